"""The encoders known by a short name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["ENCODERS", "EncoderSpec", "Pooling", "find_spec"]

Pooling = Literal["last", "mean", "cls"]
"""How token vectors become one vector: the last token's, the mean of all, or the first token's."""


@dataclass(frozen=True)
class EncoderSpec:
    """Where a named encoder lives, and what its own sentence-transformers files may leave open."""

    hub_id: str
    """Repository on the hub."""
    pooling: Pooling
    """Used where the model has no modules.json."""
    prefix: str = ""
    """Put before every text, where the model's files name no default prompt."""


ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType(
    {
        "qwen3": EncoderSpec("Qwen/Qwen3-Embedding-0.6B", "last"),
        "gte": EncoderSpec("thenlper/gte-base", "mean"),
        "mpnet": EncoderSpec("sentence-transformers/all-mpnet-base-v2", "mean"),
        "e5": EncoderSpec("intfloat/e5-base-v2", "mean", prefix="query: "),
        "bge": EncoderSpec("BAAI/bge-base-en-v1.5", "cls"),
        "minilm": EncoderSpec("sentence-transformers/all-MiniLM-L6-v2", "mean"),
    }
)
"""Short name -> encoder."""


def find_spec(name: str) -> EncoderSpec | None:
    """The entry of a short name or of its hub id; None for any other encoder."""
    if name in ENCODERS:
        return ENCODERS[name]
    return next((spec for spec in ENCODERS.values() if spec.hub_id == name), None)
