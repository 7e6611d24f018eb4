"""Grouped search as torch.export takes it on a CPU: how many queries a group has, the program finds out as it runs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select.selectors.knn_flat import Float32Search
from gpu_select.selectors.knn_groups import TailGroups

__all__ = ["TracedGroupedSearch"]


class TracedGroupedSearch:
    """What `GroupedSearch` finds, by float32 products alone and without a branch on any number.

    Args:
        groups: those of the vectors.
        exact: the float32 search over the same vectors.
    """

    def __init__(self, groups: TailGroups, exact: Float32Search) -> None:
        self._groups, self._exact = groups, exact

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`."""
        group_b, beyond_b = self._groups(x_bD)
        found = _Found(x_bD.shape[0], n)
        for g, (start, stop) in enumerate(pairwise(self._groups.bounds)):
            query_q = (group_b == g).nonzero().squeeze(1)
            value_qu = self._exact.smallest.all.traced(x_bD[query_q], slice(start, stop))
            found.add(query_q, value_qu, None if allowed_bU is None else allowed_bU[query_q][:, start:stop], start)
        # the k-th closest of the group is no farther than this, with room for the rounding of these sums
        farthest_b = found.approx_bn[:, k - 1] + x_bD.square().sum(dim=1) + 3 * self._exact.error(x_bD).squeeze(1)
        # infinite where the group has too few; not a number compares false
        query_q = (~(farthest_b < beyond_b)).nonzero().squeeze(1)
        # seldom any, so that the vectors are not to be kept once more for it, packed or turned: they stand on the left
        value_qU = self._exact.norms - 2 * (self._exact.vectors @ x_bD[query_q].T).T
        found.add(query_q, value_qU, None if allowed_bU is None else allowed_bU[query_q], 0)
        return found.approx_bn, found.vector_bn


class _Found:
    """(b, n) smallest values and their vectors, infinite where nothing was found."""

    def __init__(self, n_queries: int, n: int) -> None:
        self.approx_bn = torch.full((n_queries, n), torch.inf)
        self.vector_bn = torch.zeros((n_queries, n), dtype=torch.int64)

    def add(self, query_q: Tensor, value_qu: Tensor, allowed_qu: Tensor | None, first: int) -> None:
        """Put the smallest allowed values of some queries in the place of theirs; vectors are counted from `first`."""
        if allowed_qu is not None:
            value_qu = value_qu.masked_fill(~allowed_qu, torch.inf)
        n = self.approx_bn.shape[1]
        width = min(n, value_qu.shape[1])
        value_qm, vector_qm = torch.topk(value_qu, width, dim=1, largest=False)
        more = (0, n - width)
        self.approx_bn = self.approx_bn.index_copy(0, query_q, functional.pad(value_qm, more, value=torch.inf))
        self.vector_bn = self.vector_bn.index_copy(0, query_q, functional.pad(vector_qm + first, more))
