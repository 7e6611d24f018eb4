"""Which encoder to measure where the user names none."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gpu_select.encoder import DtypeName, Encoder, is_at_hand, load_encoder
from gpu_select.throughput.synthetic import QWEN3_06B, SMALL, Shape, ensure_random_encoder

__all__ = ["EncoderUsed", "pick_encoder", "random_encoder"]


@dataclass(frozen=True, eq=False)
class EncoderUsed:
    """A loaded encoder, and in plain words what it is."""

    encoder: Encoder
    is_random: bool
    """Whether the weights are random: speeds are those of real ones, decisions mean nothing."""
    words: str


def pick_encoder(name: str | None, *, device: torch.device, dtype: DtypeName, cache_dir: str) -> EncoderUsed:
    """Load the encoder that is named, else the one that says most on this device without asking the hub.

    That is qwen3 where its files are at hand; otherwise a random model of its shape on CUDA, and elsewhere MiniLM, or a
    small random model without its package.

    Args:
        name: as for `load_encoder`.
        device, dtype: as there.
        cache_dir: random models are kept there.
    Raises:
        EncoderError, DeviceError, ConfigError: as there.
        OutputError: a random model cannot be written.
    """
    if name is None:
        name = "qwen3" if is_at_hand("qwen3") else None
    if name is None and device.type != "cuda":
        name = "minilm" if is_at_hand("minilm") else None
    if name is not None:
        encoder = load_encoder(name, device=device, dtype=dtype)
        return EncoderUsed(encoder, False, f"{encoder.name}, with its own weights and tokenizer")
    return random_encoder(
        QWEN3_06B if device.type == "cuda" else SMALL, device=device, dtype=dtype, cache_dir=cache_dir
    )


def random_encoder(shape: Shape, *, device: torch.device, dtype: DtypeName, cache_dir: str) -> EncoderUsed:
    """A random model of a shape, written to `cache_dir` where it is not there yet."""
    encoder = load_encoder(str(ensure_random_encoder(cache_dir, shape, device=device)), device=device, dtype=dtype)
    entries = encoder.tokenizer.vocab_size
    words = f"RANDOM WEIGHTS of the shape of {shape.name}; the tokenizer is a BPE of {entries:,} entries trained here"
    if entries < shape.vocab_size:
        words += f" ({shape.vocab_size:,} wanted: too little text is installed)"
    return EncoderUsed(encoder, True, words)
