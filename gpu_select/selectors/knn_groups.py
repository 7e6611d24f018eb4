"""Groups of vectors with the same last dimensions: a query's neighbours are mostly in the group that it belongs to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TailGroups", "distinct_by_tail"]

_MOST_GROUPS = 64
"""With more, a query's own group says little about where its neighbours are."""

_BLOCK_ROWS = 4096
"""Rows that are hashed and compared at once."""

_LESS = 1 - 2.0**-16
"""More than what rounding takes from a float32 sum of squares over the tail."""

_LARGEST = 1e38
"""Squares beyond may have overflowed: they say no more than this."""


def distinct_by_tail(rows_ND: Tensor, n_tail: int) -> tuple[Tensor, Tensor, Tensor]:
    """The different rows, those of equal tail next to each other.

    Args:
        rows_ND: (N, D) float32 on the CPU, without -0.0 and NaN.
        n_tail: how many of the last dimensions are the tail.

    Returns:
        (U, D) vectors, (N,) int64 each row's vector, (U,) int64 rows of each vector.
    """
    # sorting a million long rows takes minutes, sorting their hashes a second
    hash_N, tail_N = _hashes(rows_ND, n_tail)
    order_N = hash_N.argsort(stable=True)
    order_N = order_N[tail_N[order_N].argsort(stable=True)]
    hash_N = hash_N[order_N]
    repeats_N = torch.zeros(len(rows_ND), dtype=torch.bool)
    repeats_N[1:] = hash_N[1:] == hash_N[:-1]
    for some in torch.split(repeats_N.nonzero().squeeze(1), _BLOCK_ROWS):
        if not torch.equal(rows_ND[order_N[some]], rows_ND[order_N[some - 1]]):
            return _distinct_by_sorting(rows_ND, n_tail)  # different rows of one hash
    vector_N = torch.empty_like(order_N).scatter_(0, order_N, (~repeats_N).cumsum(0) - 1)
    return rows_ND[order_N[~repeats_N]], vector_N, vector_N.bincount()


def _distinct_by_sorting(rows_ND: Tensor, n_tail: int) -> tuple[Tensor, Tensor, Tensor]:
    tail_first_ND = rows_ND.roll(n_tail, dims=1)  # unique sorts by the first dimension, then by the next
    vectors_UD, vector_N, count_U = torch.unique(tail_first_ND, dim=0, return_inverse=True, return_counts=True)
    return vectors_UD.roll(-n_tail, dims=1), vector_N, count_U


def _hashes(rows_ND: Tensor, n_tail: int) -> tuple[Tensor, Tensor]:
    """(N,) int64 each, of whole rows and of their tails: sums of bits times random odd numbers, modulo 2^64."""
    generator = torch.Generator().manual_seed(0)
    factor_D = torch.randint(-(2**62), 2**62, (rows_ND.shape[1],), generator=generator) * 2 + 1
    whole, tails = [], []
    for rows_nD in torch.split(rows_ND, _BLOCK_ROWS):
        products_nD = rows_nD.contiguous().view(torch.int32) * factor_D
        whole.append(products_nD.sum(dim=1))
        tails.append(products_nD[:, rows_ND.shape[1] - n_tail :].sum(dim=1))
    return torch.cat(whole), torch.cat(tails)


class TailGroups(nn.Module):
    """Which group a query is nearest to, and how far away all other groups are at least.

    A squared distance is that of the heads plus that of the tails. So a vector of another group is no closer than its
    tail: 2.0, where the tail is the one-hot of a domain.

    Args:
        tail_GT: (G, T) float32, all different, at least two.
        bounds: G + 1 numbers.

    Attributes:
        bounds: the vectors of group g are [bounds[g], bounds[g + 1]).
    """

    tail_GT: Tensor
    bounds_G1: Tensor

    def __init__(self, tail_GT: Tensor, bounds: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("tail_GT", tail_GT)
        self.register_buffer("bounds_G1", torch.tensor(bounds))
        self.bounds = bounds  # for the host, which is not to wait for them

    @classmethod
    def of(cls, vectors_UD: Tensor, n_tail: int) -> TailGroups | None:
        """The groups of vectors in the order of `distinct_by_tail`, or None if there are too few or too many."""
        if not 0 < n_tail < vectors_UD.shape[1]:
            return None
        tail_UT = vectors_UD[:, -n_tail:]
        differs_U = torch.ones(len(vectors_UD), dtype=torch.bool)
        differs_U[1:] = (tail_UT[1:] != tail_UT[:-1]).any(dim=1)
        first_G = differs_U.nonzero().squeeze(1)
        if not 2 <= len(first_G) <= _MOST_GROUPS:
            return None
        return cls(tail_UT[first_G].clone(), (*first_G.tolist(), len(vectors_UD)))

    def forward(self, x_bD: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest group of each query, and what the squared distance to any other group's vectors exceeds.

        Args:
            x_bD: (b, D) float32.

        Returns:
            (b,) int64 groups, and (b,) float32 lower bounds.
        """
        tail_b1T = x_bD[:, None, -self.tail_GT.shape[1] :]
        squared_bG = (tail_b1T - self.tail_GT).square().sum(dim=2)
        nearest_b2, group_b2 = squared_bG.topk(2, dim=1, largest=False)
        return group_b2[:, 0], (nearest_b2[:, 1] * _LESS).clamp(max=_LARGEST)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.bounds = tuple(self.bounds_G1.tolist())
