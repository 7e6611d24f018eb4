"""From a name to a ready `Encoder`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpu_select.encoder.backbone import Encoder, backbone_of
from gpu_select.encoder.checkpoint import VOCABULARY_FILES, fingerprint, weight_files
from gpu_select.encoder.device import DtypeName, resolve_device, resolve_dtype
from gpu_select.encoder.quiet import quiet
from gpu_select.encoder.registry import find_spec
from gpu_select.encoder.resolve import local_folder, resolve_encoder
from gpu_select.encoder.settings import read_settings
from gpu_select.encoder.tokens import Tokenizer
from gpu_select.errors import DeviceError, EncoderError, GpuSelectError, brief

__all__ = ["load_encoder"]

_UNLIMITED = 10**9
"""transformers writes 10**30 where a tokenizer names no limit."""

_FALLBACK_MAX_LENGTH = 512


def load_encoder(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: DtypeName = "auto",
    revision: str | None = None,
    folder: Path | None = None,
) -> Encoder:
    """Load an encoder for inference: evaluation mode, no gradients, SDPA attention.

    Weights are read from safetensors only, and no code that comes with a model is run.

    Args:
        name: one of `ENCODERS`, a local folder or a hub id; see `resolve_encoder`.
        device: cpu, cuda, cuda:N, mps, or auto for the best there is.
        dtype: of weights and computation; auto is float32 on the CPU and bfloat16 on CUDA and MPS.
        revision: the commit on the hub, for an encoder that comes from there; by default the one at hand, else the
            newest.
        folder: where its files are, if they are not to be looked for by the name.
    Raises:
        EncoderError: it cannot be found or read, or needs something that is not supported.
        DeviceError: no such device, or no memory on it.
        ConfigError: an unknown dtype.
    """
    target = resolve_device(device)
    compute = resolve_dtype(dtype, target)
    shown = None if folder is None else name
    folder = folder or resolve_encoder(name, revision)
    if not (folder / "config.json").is_file():
        raise EncoderError(f"{folder}: expected the folder of a transformers model, got no config.json in it")
    if (folder / "adapter_config.json").is_file():
        raise EncoderError(f"{folder}: expected a whole model, got an adapter (adapter_config.json): merge it and save")
    weight_files(folder)
    if not any((folder / file).is_file() for file in VOCABULARY_FILES):
        raise EncoderError(f"{folder}: expected tokenizer.json, got none of {', '.join(VOCABULARY_FILES)}")
    try:
        with quiet():
            encoder = _load(folder, name, compute, shown)
    except GpuSelectError:
        raise
    except Exception as error:  # transformers raises nearly every type for a damaged or unknown model
        raise EncoderError(f"{folder}: transformers cannot load this model ({_first_line(error)})") from error
    try:
        return encoder.to(target)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"device {target}: out of memory while loading encoder {encoder.name}; free memory on it or use cpu"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__


def _load(folder: Path, name: str, dtype: torch.dtype, shown: str | None) -> Encoder:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **local)
    dim = getattr(config, "hidden_size", None)
    if getattr(config, "is_encoder_decoder", False) or type(dim) is not int:
        raise EncoderError(f"{folder}: expected a text encoder, got a model of type {brief(config.model_type)}")
    if getattr(config, "quantization_config", None) is not None:
        raise EncoderError(f"{folder}: expected weights in floating point, got a quantization_config in config.json")
    # config.json may name an attention kernel that transformers would fetch from the hub and run
    config._attn_implementation = None
    config.use_cache = False  # keys and values of past tokens serve generation only
    fast = AutoTokenizer.from_pretrained(folder, **local)
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise EncoderError(f"{folder}: expected a fast tokenizer (tokenizer.json), got {type(fast).__name__}")
    limits = [fast.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _UNLIMITED]
    settings = read_settings(folder, find_spec(name), min(known, default=_FALLBACK_MAX_LENGTH))

    model, report = AutoModel.from_pretrained(
        folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
    )
    # transformers fills what the file lacks with random numbers; only the pooler's output is never used here
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise EncoderError(f"{folder}: expected all weights of a {config.model_type} model, got none for {missing[0]}")

    rows = model.get_input_embeddings().num_embeddings
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= rows:
        raise EncoderError(
            f"{folder}: expected token ids below {rows}, as the model has it, got {largest} in the tokenizer"
        )
    settings = dataclasses.replace(settings, max_length=min(settings.max_length, _position_limit(model)))
    tokenizer = Tokenizer(
        backend,
        settings,
        pad_id=fast.pad_token_id if fast.pad_token_id is not None else 0,
        truncation_side=fast.truncation_side,
    )
    digest = fingerprint(folder, dataclasses.asdict(settings).items())
    shown = shown or (folder.resolve().name if local_folder(name) else name)
    backbone = backbone_of(model, settings.pooling)
    encoder = Encoder(backbone, tokenizer, name=shown, fingerprint=digest, dim=dim, folder=folder.resolve())
    return encoder.eval().requires_grad_(False)


def _position_limit(model: nn.Module) -> int:
    """Most tokens that a learned position table has rows for; a longer text would read beyond it."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            # models of the RoBERTa family number positions from padding_idx + 1
            padding_idx = getattr(module, "padding_idx", None)
            return table.num_embeddings - (padding_idx + 1 if isinstance(padding_idx, int) else 0)
    return _UNLIMITED
