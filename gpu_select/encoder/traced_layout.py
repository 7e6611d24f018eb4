"""Attention without padding as torch.export takes it on a CPU: how many tokens there are, the program finds out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpu_select.encoder.layouts import sdpa
from gpu_select.encoder.registry import Pooling

__all__ = ["TracedLayout"]

_BUCKETS = 4
"""Of lengths. More of them save some of the padding that is left, and cost as many calls in every layer."""


class _Bucket(NamedTuple):
    """R sequences that are padded to W tokens, more or less their longest."""

    sequence_R: Tensor
    token_RW: Tensor
    """(R, W) int64, their tokens; padding is any token."""
    mask_RW: Tensor


class TracedLayout:
    """The N tokens of a rectangle B x T without its padding.

    Only attention pads them again, within buckets of similar lengths. The numbers of tokens and of the sequences in a
    bucket depend on the mask: torch.export and AOTInductor allow that, and only a device would have to be waited for.

    Args:
        mask_BT: (B, T) bool, each row's padding last.
    """

    def __init__(self, mask_BT: Tensor) -> None:
        T = mask_BT.shape[1]
        self._length_B = mask_BT.sum(dim=1)
        self._first_B = self._length_B.cumsum(0) - self._length_B
        self._place_N = mask_BT.flatten().nonzero().squeeze(1)
        # padding repeats the token before it
        self._token_P = (mask_BT.flatten().cumsum(0) - 1).clamp(min=0)
        self._buckets = []
        bucket_B = (self._length_B - 1).clamp(min=0) * _BUCKETS // T
        # where each sequence stands, and where its tokens begin, in what the buckets give one behind the other
        self._order_B = torch.zeros_like(self._length_B)
        begin_B = torch.zeros_like(self._length_B)
        n_sequences, n_tokens = begin_B.new_zeros(()), begin_B.new_zeros(())
        for number in range(_BUCKETS):
            # a width of 1 is one that torch.export would treat apart
            width = torch.sym_max((T * (number + 1) + _BUCKETS - 1) // _BUCKETS, 2)  # type: ignore[no-untyped-call]
            here_B = bucket_B == number
            rank_B, count = here_B.cumsum(0) - 1, here_B.sum()
            self._order_B = torch.where(here_B, rank_B + n_sequences, self._order_B)
            begin_B = torch.where(here_B, rank_B * width + n_tokens, begin_B)
            n_sequences, n_tokens = n_sequences + count, n_tokens + count * width
            self._buckets.append(self._bucket(here_B.nonzero().squeeze(1), torch.arange(width)))
        self._back_N = begin_B[self._place_N // T] + self._place_N % T

    def _bucket(self, sequence_R: Tensor, column_W: Tensor) -> _Bucket:
        token_RW = (self._first_B[sequence_R][:, None] + column_W).clamp(max=self._place_N.shape[0] - 1)
        return _Bucket(sequence_R, token_RW, column_W < self._length_B[sequence_R][:, None])

    def take(self, x_BT: Tensor) -> Tensor:
        """(N,): what the token vectors are made from."""
        return x_BT.flatten()[self._place_N]

    def spread(self, x_ND: Tensor) -> Tensor:
        """(B * T, D): token vectors at their places in the rectangle, and any numbers in the padding."""
        return x_ND[self._token_P]

    def attend(self, q_NHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
        """See `Layout`."""
        parts = []
        for _, token_RW, mask_RW in self._buckets:
            q, k, v = (x[token_RW] for x in (q_NHd, k_NGd, v_NGd))
            # what stands behind a token no causal model sees
            parts.append(sdpa(q, k, v, causal=causal, mask_BT=None if causal else mask_RW).flatten(0, 1))
        return torch.cat(parts)[self._back_N]

    def attend_once(self, q_BHd: Tensor, k_NGd: Tensor, v_NGd: Tensor) -> Tensor:
        """See `Layout`."""
        parts = []
        for sequence_R, token_RW, mask_RW in self._buckets:
            q, k, v = q_BHd[sequence_R][:, None], k_NGd[token_RW], v_NGd[token_RW]
            parts.append(sdpa(q, k, v, mask_BT=mask_RW).squeeze(1))
        return torch.cat(parts)[self._order_B]

    def pick(self, x_ND: Tensor, pooling: Pooling) -> Tensor:
        """See `Layout`."""
        token_B = self._first_B
        if pooling == "last":
            token_B = (token_B + self._length_B - 1).clamp(min=0)
        return x_ND.index_select(0, token_B)
