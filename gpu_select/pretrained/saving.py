"""Writing a router's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from gpu_select import __version__
from gpu_select.encoder import Encoder, load_encoder
from gpu_select.encoder.checkpoint import fingerprint
from gpu_select.encoder.copying import copy_model
from gpu_select.errors import EncoderError, OutputError, brief
from gpu_select.files import atomic_path, check_writable, remove_file
from gpu_select.pretrained.config import CONFIG_FILE, ENCODER_FOLDER, WEIGHTS_FILE, SavedConfig, is_saved, write_config
from gpu_select.pretrained.selector_state import parameters_of
from gpu_select.selectors import Selector

__all__ = ["save_router"]


def save_router(folder: str | Path, encoder: Encoder, selector: Selector, *, include_encoder: bool) -> None:
    """Write config.json, model.safetensors and, if wanted, the encoder's files below `encoder`.

    config.json comes last, and that of an earlier save goes first: a folder that has one is complete.

    Args:
        folder: is made, or holds an earlier save, which is replaced; other files in it stay.
        encoder, selector: of the router, on any device.
        include_encoder: else only its name, revision and fingerprint are kept.
    Raises:
        OutputError: it cannot be written.
        EncoderError: the encoder's files are not there any more, or are not those of its weights.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write {folder}: it is a file, and a folder is expected")
    if (folder / ENCODER_FOLDER).exists() and not is_saved(folder):
        raise OutputError(f"cannot write {folder}: it has a folder {ENCODER_FOLDER} that is no saved router's")
    check_writable(folder)
    with _copied(encoder, folder) if include_encoder else contextlib.nullcontext() as copy:
        remove_file(folder / CONFIG_FILE)
        shutil.rmtree(folder / ENCODER_FOLDER, ignore_errors=True)
        if copy is not None:
            _rename(copy, folder / ENCODER_FOLDER)
    tensors = {f"selector.{name}": tensor.contiguous() for name, tensor in selector.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as path:
        try:
            save_file(tensors, path, {"format": "pt"})
        except SafetensorError as error:  # as its library calls a full disk
            raise OutputError(f"cannot write {folder / WEIGHTS_FILE}: {brief(str(error))}") from error
    config = SavedConfig(
        algorithm=selector.algorithm,
        models=selector.models,
        dim=selector.dim,
        parameters=parameters_of(selector),
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        encoder_revision=encoder.revision,
        has_encoder=include_encoder,
    )
    write_config(folder, config, __version__)


def _rename(folder: Path, target: Path) -> None:
    try:
        os.replace(folder, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


@contextlib.contextmanager
def _copied(encoder: Encoder, folder: Path) -> Iterator[Path]:
    """A temporary copy of the encoder's files in the folder, which they may come from."""
    if encoder.folder is None:
        raise EncoderError(f"encoder {encoder.name}: was not loaded from files, of which it could be saved")
    copy = folder / f".gpu_select.{secrets.token_hex(8)}.tmp"
    try:
        copy_model(encoder.folder, copy)
        _check(encoder, copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _check(encoder: Encoder, copy: Path) -> None:
    if fingerprint(copy, dataclasses.asdict(encoder.settings).items()) != encoder.fingerprint:
        raise EncoderError(f"{encoder.folder}: has changed since encoder {encoder.name} was loaded: load it again")
    if encoder.has_its_own_weights:
        return
    dtype: Any = str(encoder.dtype).removeprefix("torch.")
    of_files = load_encoder(encoder.name, dtype=dtype, folder=copy).state_dict()
    if not all(tensor.cpu().equal(of_files[name]) for name, tensor in encoder.state_dict().items()):
        raise EncoderError(
            f"encoder {encoder.name}: load_state_dict gave it other weights than those of {encoder.folder},"
            " which the selector was trained with: load it again"
        )
