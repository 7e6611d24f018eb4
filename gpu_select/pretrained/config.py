"""config.json of a saved router: what is needed beside its tensors, checked as a file from anywhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_select import jsonio
from gpu_select.encoder.checkpoint import COMMIT
from gpu_select.errors import FileFormatError, InputError, brief
from gpu_select.files import atomic_write
from gpu_select.wire import ALGORITHMS, file_name

__all__ = ["CONFIG_FILE", "ENCODER_FOLDER", "WEIGHTS_FILE", "SavedConfig", "is_saved", "read_config", "write_config"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ENCODER_FOLDER = "encoder"

_MODEL_TYPE = "gpu-select-router"
_FORMAT = 1
_MAX_BYTES = 16 << 20
_MOST_MODELS, _LONGEST_NAME, _WIDEST = 10_000, 1_000, 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SavedConfig:
    """The contents of config.json."""

    algorithm: str
    models: tuple[str, ...]
    dim: int
    """D of the selector."""
    parameters: Mapping[str, Any]
    """What else makes the selector of its tensors: see `selector_state`, which checks it."""
    encoder_name: str
    encoder_fingerprint: str
    encoder_revision: str | None
    """The commit on the hub, if the encoder came from there."""
    has_encoder: bool
    """Whether the encoder's files are in the folder."""


def is_saved(folder: str | Path) -> bool:
    """Whether a folder has a config.json of ours, or one that cannot be read and no selector files beside it."""
    path = os.path.join(folder, CONFIG_FILE)
    if not os.path.isfile(path):
        return False
    try:
        return _read_object(Path(path)).get("model_type") == _MODEL_TYPE
    except (InputError, FileFormatError):
        endings = ("", ".gz", ".zst")
        names = [file_name(algorithm) + ending for algorithm in ALGORITHMS for ending in endings]
        return not any(os.path.exists(os.path.join(folder, name)) for name in names)


def write_config(folder: Path, config: SavedConfig, version: str) -> None:
    """Write the file; the same contents give the same bytes.

    Raises:
        OutputError: it cannot be written.
    """
    document = {
        "model_type": _MODEL_TYPE,
        "gpu_select": {"format": _FORMAT, "version": version},
        "selector": {
            "algorithm": config.algorithm,
            "dim": config.dim,
            "models": list(config.models),
            **config.parameters,
        },
        "encoder": {
            "name": config.encoder_name,
            "revision": config.encoder_revision,
            "fingerprint": config.encoder_fingerprint,
            "included": config.has_encoder,
        },
    }
    with atomic_write(folder / CONFIG_FILE) as stream:
        stream.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")


def read_config(folder: Path) -> SavedConfig:
    """Read and check the file.

    Raises:
        InputError: it is missing or cannot be read.
        FileFormatError: it is not that of a saved router, or of a newer format.
    """
    fields = _Fields(folder / CONFIG_FILE, _read_object(folder / CONFIG_FILE))
    if fields.values.get("model_type") != _MODEL_TYPE:
        raise fields.error("model_type", repr(_MODEL_TYPE), fields.values.get("model_type"))
    if fields.object("gpu_select").values.get("format") != _FORMAT:
        got = fields.object("gpu_select").values.get("format")
        raise fields.error("gpu_select.format", f"{_FORMAT}, which this version reads", got)
    selector, encoder = fields.object("selector"), fields.object("encoder")
    known = ("algorithm", "dim", "models")
    revision, included = encoder.values.get("revision"), encoder.values.get("included")
    if revision is not None and not (isinstance(revision, str) and COMMIT.fullmatch(revision)):
        raise encoder.error("revision", "null or the 40 hexadecimal digits of a commit", revision)
    if type(included) is not bool:
        raise encoder.error("included", "true or false", included)
    return SavedConfig(
        algorithm=selector.text("algorithm", re.compile("|".join(ALGORITHMS)), f"one of {', '.join(ALGORITHMS)}"),
        models=selector.names("models"),
        dim=selector.number("dim"),
        parameters={name: value for name, value in selector.values.items() if name not in known},
        encoder_name=encoder.text("name", re.compile(r".{1,1000}"), "a name"),
        encoder_fingerprint=encoder.text("fingerprint", _FINGERPRINT, "64 hexadecimal digits"),
        encoder_revision=revision,
        has_encoder=included,
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise FileFormatError(path, "size", f"at most {_MAX_BYTES >> 20} MiB", "more")
    try:
        value = jsonio.loads(data)
    except ValueError as error:
        raise FileFormatError(path, "contents", "JSON", brief(str(error))) from error
    if not isinstance(value, dict):
        raise FileFormatError(path, "contents", "a JSON object", brief(value))
    return value


@dataclass(frozen=True)
class _Fields:
    """A JSON object of the file, whose fields are checked as they are read."""

    path: Path
    values: dict[str, Any]
    prefix: str = ""

    def error(self, name: str, expected: str, got: object) -> FileFormatError:
        return FileFormatError(self.path, self.prefix + name, expected, brief(got))

    def object(self, name: str) -> _Fields:
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self.error(name, "an object", value)
        return _Fields(self.path, value, f"{name}.")

    def text(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(name, expected, value)
        return value

    def number(self, name: str) -> int:
        value = self.values.get(name)
        if type(value) is not int or not 1 <= value <= _WIDEST:
            raise self.error(name, f"an integer from 1 to {_WIDEST}", value)
        return value

    def names(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        if not isinstance(value, list) or not 1 <= len(value) <= _MOST_MODELS:
            raise self.error(name, f"a list of 1 to {_MOST_MODELS} names", value)
        for i, item in enumerate(value):
            if not isinstance(item, str) or not 1 <= len(item) <= _LONGEST_NAME:
                raise self.error(f"{name}[{i}]", f"a name of 1 to {_LONGEST_NAME} characters", item)
        if len(set(value)) < len(value):
            raise self.error(name, "different names", value)
        return tuple(value)
