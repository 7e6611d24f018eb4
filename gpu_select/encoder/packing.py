"""Texts packed end to end, without padding, and their way to the device."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.encoder.tokens import Tokenized

__all__ = ["TokenBatch", "pack"]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """B texts of T tokens together, one behind the other."""

    ids_T: Tensor
    """(T,) int32 token ids."""
    positions_T: Tensor
    """(T,) int32, each token's place in its text, from 0."""
    offsets_B1: Tensor
    """(B + 1,) int32: text b is tokens offsets[b] to offsets[b + 1]."""
    lengths: NDArray[np.int64]
    """(B,) tokens a text, on the host."""
    tag_B: Tensor
    """(B,) int32, the number that came with each text."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.ids_T.device

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """(first token, texts, tokens a text) of each run of texts of equal length."""
        starts = np.flatnonzero(np.diff(self.lengths, prepend=-1))
        counts = np.diff(starts, append=len(self.lengths))
        lengths = self.lengths[starts]
        first = np.cumsum(counts * lengths) - counts * lengths
        return list(zip(first.tolist(), counts.tolist(), lengths.tolist(), strict=True))


def pack(
    tokenized: Tokenized, rows: NDArray[np.int64], device: torch.device, tags_N: NDArray[np.int64] | None = None
) -> TokenBatch:
    """Some texts as one batch on a device.

    All that the device needs goes there as one array, on CUDA from pinned memory on a stream of its own, so that it
    travels while the device still computes on the batch before.

    Args:
        tokenized: N texts.
        rows: (B,) text numbers, B >= 1; texts of equal length should stand together.
        device: where the batch goes.
        tags_N: (N,) a number for each text, which travels with it; by default 0.
    """
    lengths = tokenized.offsets[rows + 1] - tokenized.offsets[rows]
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    ids = tokenized.ids[np.repeat(tokenized.offsets[rows], lengths) + place]
    tags = np.zeros(len(rows), np.int64) if tags_N is None else tags_N[rows]
    parts = ids, place, np.concatenate([[0], ends]), tags
    there = _to_device(np.concatenate(parts, dtype=np.int32, casting="unsafe"), device)
    ids_T, positions_T, offsets_B1, tag_B = torch.split(there, [len(part) for part in parts])
    return TokenBatch(ids_T, positions_T, offsets_B1, lengths, tag_B)


def _to_device(array: NDArray[np.int32], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    copying, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        # pinned blocks are kept and used again once their copy is done
        there = tensor.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(copying)
    there.record_stream(computing)
    return there


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
