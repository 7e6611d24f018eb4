"""The router's own encoder as an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_select.encoder import Encoder, embed_tokenized

__all__ = ["Embedder", "Embedding"]


@dataclass(frozen=True, eq=False)
class Embedding:
    """The vector of a text."""

    vector_D: NDArray[np.float32]
    """(D,) of unit norm."""
    n_tokens: int
    """Special tokens included."""
    truncated: bool
    """Whether the text was longer than the encoder takes."""


class Embedder:
    """Texts to vectors.

    Args:
        encoder: which may be the router's.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._encoder.name

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._encoder.dim

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """The vectors of some texts, in their order.

        Raises:
            DeviceError, EncoderError: as `gpu_select.encoder.embed_tokenized`.
        """
        place: dict[str, int] = {}
        for text in texts:
            place.setdefault(text, len(place))
        tokenized = self._encoder.tokenizer.tokenize([*place])
        vectors_ND = embed_tokenized(self._encoder, tokenized)
        distinct = [
            Embedding(vector_D, int(n_tokens), bool(truncated))
            for vector_D, n_tokens, truncated in zip(vectors_ND, tokenized.lengths, tokenized.truncated, strict=True)
        ]
        return [distinct[place[text]] for text in texts]
