"""Texts to vectors, through the cache where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.encoder.backbone import Encoder
from gpu_select.encoder.batching import run_batches
from gpu_select.encoder.cache import EmbeddingCache
from gpu_select.encoder.packing import TokenBatch
from gpu_select.encoder.tokens import Tokenized, check_texts
from gpu_select.errors import EncoderError

__all__ = ["Embedded", "embed", "embed_tokenized"]

_WINDOW = 16_384
"""Distinct texts that are tokenised and sorted by length together; bounds the memory for their token ids."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors of N texts, and what it took."""

    vectors: Tensor
    """(N, dim) float32 on the CPU, L2 norm 1, in the order of the texts."""
    n_tokens: int
    """Tokens that went through the encoder: each distinct text once, cached ones not at all."""
    n_truncated: int
    """Texts that were longer than the encoder takes, among those not served from the cache."""
    n_cached: int
    """Texts served from the cache."""


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    token_budget: int | None = None,
    batch_size: int | None = None,
    cache: EmbeddingCache | None = None,
    progress: Callable[[int], None] | None = None,
) -> Embedded:
    """Embed texts in length-sorted batches; identical texts only once.

    Args:
        encoder: from `load_encoder`.
        texts: N texts.
        token_budget: tokens a batch; by default what suits the encoder's device.
        batch_size: most texts a batch; by default as many as the budget allows.
        cache: looked up first, and given every new vector; it must be of this encoder and dtype.
        progress: called with the number of texts that came to be done since the last call.
    Raises:
        ConfigError: a budget or batch size under 1.
        DeviceError: a single text does not fit on the device.
        EncoderError: texts that are no texts, or vectors that are not finite.
        OutputError: the cache cannot be written.
    """
    check_texts(texts)
    first_row: dict[str, int] = {}
    distinct_of = np.array([first_row.setdefault(text, len(first_row)) for text in texts], dtype=np.int64)
    copies = np.bincount(distinct_of, minlength=len(first_row))
    distinct = list(first_row)
    vectors = np.empty((len(distinct), encoder.dim), dtype=np.float32)
    n_tokens = n_truncated = n_cached = 0
    for start in range(0, len(distinct), _WINDOW):
        window = np.arange(start, min(start + _WINDOW, len(distinct)))
        if cache is not None:
            vectors[window], found = cache.get([distinct[i] for i in window])
            n_found = int(copies[window[found]].sum())
            n_cached += n_found
            if progress is not None and n_found:
                progress(n_found)
            window = window[~found]
        fresh = [distinct[i] for i in window]
        tokenized = encoder.tokenizer.tokenize(fresh)
        n_tokens += len(tokenized.ids)
        n_truncated += int(copies[window[tokenized.truncated]].sum())

        def done(rows: NDArray[np.int64], window: NDArray[np.int64] = window) -> None:
            if progress is not None:
                progress(int(copies[window[rows]].sum()))

        vectors[window] = embed_tokenized(
            encoder, tokenized, token_budget=token_budget, batch_size=batch_size, done=done
        )
        if cache is not None and fresh:
            cache.put(fresh, vectors[window])
    return Embedded(torch.from_numpy(vectors[distinct_of]), n_tokens, n_truncated, n_cached)


def embed_tokenized(
    encoder: Encoder,
    tokenized: Tokenized,
    *,
    token_budget: int | None = None,
    batch_size: int | None = None,
    done: Callable[[NDArray[np.int64]], None] | None = None,
) -> NDArray[np.float32]:
    """Embed texts that are tokenised already, in length-sorted batches.

    Args:
        encoder: whose tokenizer it was.
        tokenized: N texts.
        token_budget, batch_size: as for `embed`.
        done: called after each batch with the numbers of its texts.

    Returns:
        (N, dim), L2 norm 1.

    Raises:
        ConfigError, DeviceError, EncoderError: as `embed`.
    """
    vectors_ND = np.empty((len(tokenized), encoder.dim), dtype=np.float32)

    def run(batch: TokenBatch, rows: NDArray[np.int64]) -> None:
        with torch.inference_mode():
            vectors_ND[rows] = encoder.encode(batch).cpu().numpy()
        if done is not None:
            done(rows)

    run_batches(encoder, tokenized, run, token_budget=token_budget, max_rows=batch_size)
    if not np.isfinite(vectors_ND).all():
        raise EncoderError(
            f"encoder {encoder.name}: vectors are not finite in {encoder.dtype}; use float32 or bfloat16"
        )
    return vectors_ND
