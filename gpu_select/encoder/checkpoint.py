"""The files of a model folder: which ones count, bounded reading, and the fingerprint of what makes the vectors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_select import jsonio
from gpu_select.errors import EncoderError

__all__ = [
    "COMMIT",
    "INDEX_FILE",
    "TOKENIZER_FILES",
    "VOCABULARY_FILES",
    "WEIGHTS_FILE",
    "commit_of",
    "fingerprint",
    "read_json_object",
    "read_json_value",
    "sha256_file",
    "shard_names",
    "weight_files",
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""A tokenizer needs one of these; without any, transformers would make an empty one."""

TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
"""Files that transformers may build a tokenizer from. None of them can carry code."""

_MAX_JSON_BYTES = 16 * 2**20
"""Far above any real config.json, modules.json or shard index."""

COMMIT = re.compile(r"[0-9a-f]{40}")
"""What the hub names a commit by."""

_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors")


def read_json_value(path: Path) -> Any:
    """Parse one of a model's small JSON files.

    Raises:
        EncoderError: missing, unreadable, over 16 MiB, or not JSON.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > _MAX_JSON_BYTES:
        raise EncoderError(f"{path}: expected at most {_MAX_JSON_BYTES} bytes of JSON, got more")
    try:
        return jsonio.loads(data)
    except ValueError as error:
        raise EncoderError(f"{path}: not valid JSON ({error})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """`read_json_value` for a file that must hold one JSON object.

    Raises:
        EncoderError: as there, or another kind of value.
    """
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def shard_names(index: Path) -> list[str]:
    """Sorted names of the weight files that a model.safetensors.index.json lists.

    Raises:
        EncoderError: no weight_map, or a name that is not a plain .safetensors file name.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise EncoderError(f"{index}: weight_map: expected an object of parameter and file names")
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name):
            raise EncoderError(f"{index}: weight_map: expected names of .safetensors files, got {name!r:.80}")
    return sorted(set(weight_map.values()))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights.

    Raises:
        EncoderError: there are none (pickled weights are never read), or a listed one is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        files = [folder / name for name in shard_names(folder / INDEX_FILE)]
        for file in files:
            if not file.is_file():
                raise EncoderError(f"{folder}: {file.name} is missing, which {INDEX_FILE} lists: fetch the model again")
        return files
    pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickled:
        raise EncoderError(
            f"{folder}: expected {WEIGHTS_FILE}, got only {pickled[0]}, a pickle, which can run code and is never read:"
            " save the model with save_pretrained of transformers 5, which writes safetensors"
        )
    raise EncoderError(f"{folder}: expected {WEIGHTS_FILE} or {INDEX_FILE}, got neither")


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache is of, None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) is not None
    return folder.name if is_snapshot else None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        EncoderError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror or error})") from error


def fingerprint(folder: Path, settings: Iterable[tuple[str, object]]) -> str:
    """Hex sha256 over what determines an encoder's vectors.

    That is the bytes of the weights, config.json and the tokenizer's files, and the settings. Neither the path nor
    the dtype of the computation is part of it.

    Args:
        folder: the model's folder.
        settings: names and values.
    """
    # the first line changes whenever our own way from files to vectors does
    lines = ["gpu-select encoder 1"]
    files = [folder / "config.json", *(folder / name for name in TOKENIZER_FILES), *weight_files(folder)]
    lines += [f"{file.name} {sha256_file(file)}" for file in files if file.is_file()]
    lines += [f"{name}={value!r}" for name, value in settings]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
