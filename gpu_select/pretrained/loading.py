"""Reading a router's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpu_select.encoder import DtypeName, Encoder, load_encoder
from gpu_select.errors import EncoderMismatchError, FileFormatError, InputError, brief
from gpu_select.pretrained.config import CONFIG_FILE, ENCODER_FOLDER, WEIGHTS_FILE, SavedConfig, read_config
from gpu_select.pretrained.selector_state import selector_of
from gpu_select.selectors import Backend, Selector

__all__ = ["load_saved"]

_PREFIX = "selector."
_MOST_TENSORS = 10_000


def load_saved(
    folder: Path,
    *,
    encoder: str | Encoder | None,
    device: torch.device,
    dtype: DtypeName,
    algorithm: str | None,
    backend: Backend,
) -> tuple[Encoder, Selector]:
    """The parts of a router that was saved.

    Args:
        folder: has config.json, model.safetensors and perhaps the encoder's files.
        encoder: in place of the folder's own; has to have the same fingerprint.
        device, dtype: as for `load_encoder`.
        algorithm: what is expected, if anything is.
        backend: what searches KNN's rows.

    Raises:
        InputError, FileFormatError: files that are missing or not those of a saved router.
        EncoderError: the encoder cannot be found, or (EncoderMismatchError) is another one.
    """
    config = read_config(folder)
    if algorithm not in (None, config.algorithm):
        raise FileFormatError(folder / CONFIG_FILE, "selector.algorithm", repr(algorithm), repr(config.algorithm))
    selector = selector_of(folder, config, _read_tensors(folder / WEIGHTS_FILE), backend=backend).to(device)
    if not isinstance(encoder, Encoder):
        encoder = _load_encoder(folder, config, encoder, device, dtype)
    if encoder.fingerprint != config.encoder_fingerprint:
        saved = config.encoder_name, config.encoder_fingerprint
        raise EncoderMismatchError.between(folder / CONFIG_FILE, saved, (encoder.name, encoder.fingerprint))
    return encoder, selector


def _load_encoder(
    folder: Path, config: SavedConfig, name: str | None, device: torch.device, dtype: DtypeName
) -> Encoder:
    if name is not None:
        return load_encoder(name, device=device, dtype=dtype)
    if config.has_encoder:
        return load_encoder(config.encoder_name, device=device, dtype=dtype, folder=folder / ENCODER_FOLDER)
    return load_encoder(config.encoder_name, device=device, dtype=dtype, revision=config.encoder_revision)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The selector's tensors, under the names of its own `state_dict`."""
    try:
        with safe_open(str(path), framework="pt") as tensors:
            names = list(tensors.keys())
            if len(names) > _MOST_TENSORS or not all(name.startswith(_PREFIX) for name in names):
                raise FileFormatError(path, "tensors", f"names that begin with {_PREFIX}", brief(sorted(names)[:3]))
            return {name.removeprefix(_PREFIX): tensors.get_tensor(name) for name in names}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or brief(str(error))}") from error
    except SafetensorError as error:
        raise FileFormatError(path, "contents", "a safetensors file", brief(str(error))) from error
