"""Proposing the closest vectors on CUDA, exactly, from minima of float16 products over bins of vectors."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from gpu_select_kernels.dispatch import Impl
from gpu_select_kernels.knn import (
    BIN,
    BLOCK,
    DEPTH,
    QUERY_TILE,
    TILE,
    bin_distances,
    bin_minima,
    interleaved,
    refine_minima,
)
from torch import Tensor

from gpu_select.selectors.knn_flat import Float32Search, summing_error
from gpu_select.selectors.knn_groups import TailGroups

__all__ = ["BinSearch"]

_TOP_EXPONENT = 13
"""Rows are scaled so that their largest element lies in [2^13, 2^14): float16 ends at 2^16, and keeps all of its bits
for elements down to 2^-27 of the largest."""

_MOST_EXPONENT = 60
"""Of a scale: products of two stay within float32."""

_TENSOR_CORE = 4.0
"""Tensor cores cut sums off where float32 would round them, which is up to twice as far off; and twice for safety."""

_LITTLE = 1e-37
"""More than what is lost where float32 runs out of exponents."""

_BLOCK_ROWS = 1 << 16
"""Vectors that are rounded at once; a multiple of `TILE`."""


class _Rounded(NamedTuple):
    """Queries in float16."""

    low_BK: Tensor
    factor_B: Tensor
    error_B1: Tensor
    """(B, 1) float32, what a float16 value of norm - 2 * product is off by at most."""


class _Found(NamedTuple):
    """What a pass over bins found."""

    approx_Bn: Tensor
    vector_Bn: Tensor
    reach_B: Tensor
    """(B,) float32, what the k-th smallest value is at most."""
    rest_B: Tensor
    """(B,) float32, the smallest minimum of all bins that were left out."""


class _Minima(NamedTuple):
    """What tiles of queries saw."""

    fine_RX: Tensor
    coarse_RY: Tensor
    query_R: Tensor
    place_B: Tensor
    """(B,) int64, where each query is in R."""
    bin_B: Tensor
    """(B,) int64, the bin that its first minimum belongs to."""


class BinSearch:
    """`Search` over many vectors on CUDA, without ever waiting for the device.

    A float16 product on tensor cores gives the smallest value of each bin of 16 vectors, or rather a value that is off
    by a known bound. The k closest vectors lie in the k bins of smallest minima; so some more bins than that are
    looked at in float32, and the smallest minimum of all others says whether that was enough. Queries for which it
    was not (in their own group first, then among all vectors) get those bins whose minima are within the bound done
    in float32, however many these are.

    Args:
        exact: the float32 search over the same vectors, on the device.
        groups: those of the vectors; a query's own is looked at first.
        impl: which implementation of the kernels runs.

    Source:
        The inequality |x.u - x'.u'| <= |x - x'||u| + |x'||u - u'| for rounded x' and u'; summing_error for the sums.
    """

    def __init__(self, exact: Float32Search, groups: TailGroups | None, impl: Impl = "auto") -> None:
        self._exact, self._groups, self._impl = exact, groups, impl
        device = exact.vectors.device
        n_vectors, dim = exact.vectors.shape
        bounds = groups.bounds if groups else (0, n_vectors)
        # each group begins with a tile of its own
        sizes = [-(-(stop - start) // TILE) for start, stop in pairwise(bounds)]
        firsts = [sum(sizes[:g]) for g in range(len(sizes))]
        self._n_tiles, self._largest = sum(sizes), max(sizes)
        vector_W = torch.full((self._n_tiles * TILE,), -1, dtype=torch.int32)
        for (start, stop), first in zip(pairwise(bounds), firsts, strict=True):
            vector_W[first * TILE : first * TILE + stop - start] = torch.arange(start, stop, dtype=torch.int32)
        self._vector_W = vector_W.to(device)
        self._first_G, self._last_G = self._ranges(firsts, [a + b for a, b in zip(firsts, sizes, strict=True)], device)
        self._first_all, self._last_all = self._ranges([0], [self._n_tiles], device)
        self._dim, self._depth = dim, -(-dim // DEPTH) * DEPTH
        self._round_vectors()

    def _ranges(self, firsts: list[int], lasts: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        # one more, of no tiles: for what is not searched
        first = torch.tensor([*firsts, 0], dtype=torch.int32, device=device)
        return first, torch.tensor([*lasts, 0], dtype=torch.int32, device=device)

    def _round_vectors(self) -> None:
        vectors_UD, norm_U, vector_W = self._exact.vectors, self._exact.norms, self._vector_W
        peak = torch.stack([part.abs().amax() for part in torch.split(vectors_UD, _BLOCK_ROWS)]).amax()
        self._scale = _scale_of(peak)
        self._low_WK = torch.zeros((len(vector_W), self._depth), dtype=torch.float16, device=vectors_UD.device)
        lost, kept = [], []
        for start in range(0, len(vector_W), _BLOCK_ROWS):
            vector_w = vector_W[start : start + _BLOCK_ROWS]
            scaled_wD = vectors_UD[vector_w.clamp(min=0).long()] * self._scale
            scaled_wD = scaled_wD.masked_fill((vector_w < 0)[:, None], 0.0)
            low_wD = scaled_wD.half()
            self._low_WK[start : start + _BLOCK_ROWS, : self._dim] = interleaved(low_wD)
            lost.append(torch.linalg.vector_norm(scaled_wD - low_wD.float(), dim=1).amax())
            kept.append(torch.linalg.vector_norm(low_wD.float(), dim=1).amax())
        self._lost, self._kept = torch.stack(lost).amax(), torch.stack(kept).amax()
        norm_W = norm_U[vector_W.clamp(min=0).long()].masked_fill(vector_W < 0, torch.inf)
        self._norm_W = interleaved(norm_W[:, None]).squeeze(1)

    @property
    def bytes_a_query(self) -> int:
        """Minima held for each query of a call."""
        return 4 * self._n_tiles * (TILE // BIN + TILE // BLOCK)

    def can_take(self, n: int) -> bool:
        """Whether so many vectors a query are few enough."""
        return 8 * n <= self._n_tiles * (TILE // BIN)

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`; all vectors are allowed here."""
        assert allowed_bU is None
        if not len(x_bD):
            return x_bD.new_empty((0, n)), torch.empty((0, n), dtype=torch.int64, device=x_bD.device)
        low = self._round(x_bD)
        unsure_b1 = self._exact.error(x_bD)
        sure_b = torch.zeros(len(x_bD), dtype=torch.bool, device=x_bD.device)
        approx_bn, vector_bn = x_bD.new_empty(0), x_bD.new_empty(0)
        if self._groups is not None:
            group_b, beyond_b = self._groups(x_bD)
            minima = self._minima(low, group_b, self._first_G, self._last_G, self._largest)
            found = self._look(x_bD, minima, low.error_B1, unsure_b1, k, n)
            approx_bn, vector_bn = found.approx_Bn, found.vector_Bn
            farthest_b = found.reach_B + x_bD.square().sum(dim=1) + 2 * unsure_b1.squeeze(1)
            sure_b = (found.rest_B > found.reach_B) & (farthest_b < beyond_b)
        minima = self._minima(low, sure_b.long(), self._first_all, self._last_all, self._n_tiles)
        found = self._look(x_bD, minima, low.error_B1, unsure_b1, k, n)
        if self._groups is None:
            approx_bn, vector_bn = found.approx_Bn, found.vector_Bn
        else:
            approx_bn = torch.where(sure_b[:, None], approx_bn, found.approx_Bn)
            vector_bn = torch.where(sure_b[:, None], vector_bn, found.vector_Bn)
        sure_b = sure_b | (found.rest_B > found.reach_B)
        # what is left: all bins that may matter, in float32
        limit_b = (found.reach_B + low.error_B1.squeeze(1)).masked_fill(sure_b, -torch.inf)
        limit_R = limit_b.new_full((len(minima.query_R),), -torch.inf).scatter(0, minima.place_B, limit_b)
        stored = self._exact.vectors, self._exact.norms, self._vector_W
        refine_minima(minima.fine_RX, minima.coarse_RY, limit_R, minima.query_R, x_bD, *stored, impl=self._impl)
        found = self._look(x_bD, minima, unsure_b1, unsure_b1, k, n, ~sure_b)
        approx_bn = torch.where(sure_b[:, None], approx_bn, found.approx_Bn)
        return approx_bn, torch.where(sure_b[:, None], vector_bn, found.vector_Bn)

    def _round(self, x_bD: Tensor) -> _Rounded:
        scale_b1 = _scale_of(x_bD.abs().amax(dim=1, keepdim=True))
        scaled_bD = x_bD * scale_b1
        low_bD = scaled_bD.half()
        lost_b1 = torch.linalg.vector_norm(scaled_bD - low_bD.float(), dim=1, keepdim=True)
        kept_b1 = torch.linalg.vector_norm(low_bD.float(), dim=1, keepdim=True)
        factor_b1 = 2 / (self._scale * scale_b1)
        longest = self._kept + self._lost  # of a scaled vector, at least
        sums_b1 = _TENSOR_CORE * summing_error(self._depth) * kept_b1 * self._kept
        products_b1 = factor_b1 * (lost_b1 * longest + kept_b1 * self._lost + sums_b1)
        norms = summing_error(8) * (self._exact.longest.square() + factor_b1 * kept_b1 * self._kept)
        # these norms and sums are rounded as well
        error_b1 = 1.001 * (products_b1 + norms) + _LITTLE
        low_bK = torch.nn.functional.pad(low_bD, (0, self._depth - self._dim))
        return _Rounded(low_bK, factor_b1.squeeze(1), error_b1)

    def _minima(self, low: _Rounded, group_b: Tensor, first_G: Tensor, last_G: Tensor, width: int) -> _Minima:
        """Minima over each query's bins: its group's, from tile first_G[group] to last_G[group]."""
        device, n_queries, n_groups = group_b.device, len(group_b), len(first_G)
        ones_b = torch.ones_like(group_b)
        size_G = torch.zeros(n_groups, dtype=torch.int64, device=device).scatter_add(0, group_b, ones_b)
        # queries of one group fill tiles of their own; there cannot be more than these
        n_query_tiles = -(-n_queries // QUERY_TILE) + n_groups - 1
        end_G = ((size_G + QUERY_TILE - 1) // QUERY_TILE).cumsum(0)
        start_G = torch.nn.functional.pad(end_G[:-1], (1, 0)) * QUERY_TILE - (size_G.cumsum(0) - size_G)
        order_b = group_b.argsort(stable=True)
        place_b = start_G[group_b[order_b]] + torch.arange(n_queries, device=device)
        place_b = torch.empty_like(place_b).scatter(0, order_b, place_b)
        query_b = torch.arange(n_queries, dtype=torch.int32, device=device)
        query_R = torch.zeros(n_query_tiles * QUERY_TILE, dtype=torch.int32, device=device).scatter(0, place_b, query_b)
        # the tiles behind the last one look at nothing: they are the last group's, which has none
        tile_T = torch.arange(n_query_tiles, device=device)
        group_T = torch.searchsorted(end_G, tile_T, right=True).clamp(max=n_groups - 1)
        fine_RX, coarse_RY = bin_minima(
            low.low_BK,
            low.factor_B,
            self._low_WK,
            self._norm_W,
            query_R,
            first_G[group_T],
            last_G[group_T],
            width=width,
            impl=self._impl,
        )
        return _Minima(fine_RX, coarse_RY, query_R, place_b, first_G[group_b].long() * (TILE // BIN))

    def _look(
        self,
        x_bD: Tensor,
        minima: _Minima,
        error_b1: Tensor,
        unsure_b1: Tensor,
        k: int,
        n: int,
        wanted_b: Tensor | None = None,
    ) -> _Found:
        """The n smallest values of the n bins with the smallest minima."""
        value_bm, bin_bm = _smallest(minima, n + 1)
        rest_b = value_bm[:, n] - error_b1.squeeze(1)
        value_bm, bin_bm = value_bm[:, :n], bin_bm[:, :n]
        # each of the first k bins has a vector up to here
        reach_b1 = value_bm[:, k - 1 : k] + error_b1
        matters_bm = (value_bm - error_b1 <= reach_b1) & (value_bm < torch.inf)
        if wanted_b is not None:
            matters_bm = matters_bm & wanted_b[:, None]
        bin_bm = bin_bm.masked_fill(~matters_bm, -1).int()
        stored = self._exact.vectors, self._exact.norms, self._vector_W
        value_bX = bin_distances(x_bD, *stored, bin_bm, impl=self._impl).flatten(1)
        approx_bn, which_bn = value_bX.topk(n, dim=1, largest=False)
        place_bn = bin_bm.gather(1, which_bn // BIN).clamp(min=0) * BIN + which_bn % BIN
        vector_bn = self._vector_W[place_bn].clamp(min=0).long()
        return _Found(approx_bn, vector_bn, approx_bn[:, k - 1] + unsure_b1.squeeze(1), rest_b)


def _smallest(minima: _Minima, m: int) -> tuple[Tensor, Tensor]:
    """(B, m) smallest minima of bins, ascending, and their bins; infinite where there are no more."""
    coarse_bY = minima.coarse_RY[minima.place_B]
    # m bins of smallest minima lie in m blocks of smallest minima
    block_value_by, block_by = coarse_bY.topk(min(m, coarse_bY.shape[1]), dim=1, largest=False)
    bins = torch.arange(BLOCK // BIN, device=coarse_bY.device)
    bin_bx = (block_by[:, :, None] * (BLOCK // BIN) + bins).flatten(1)
    value_bx = minima.fine_RX[minima.place_B[:, None], bin_bx]
    nothing_bx = (block_value_by == torch.inf).repeat_interleave(BLOCK // BIN, dim=1)
    value_bx = value_bx.masked_fill(nothing_bx, torch.inf)
    width = min(m, value_bx.shape[1])
    value_bm, which_bm = value_bx.topk(width, dim=1, largest=False)
    bin_bm = bin_bx.gather(1, which_bm) + minima.bin_B[:, None]
    more = (0, m - width)
    return torch.nn.functional.pad(value_bm, more, value=torch.inf), torch.nn.functional.pad(bin_bm, more)


def _scale_of(peak: Tensor) -> Tensor:
    """The power of two that takes float32 numbers to [2^13, 2^14), or as near as 2^60 or 2^-60 take them."""
    exponent = (peak.contiguous().view(torch.int32) >> 23) - 127
    shift = (_TOP_EXPONENT - exponent).clamp(-_MOST_EXPONENT, _MOST_EXPONENT)
    return ((shift + 127) << 23).int().view(torch.float32)
