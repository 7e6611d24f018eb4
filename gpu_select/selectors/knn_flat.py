"""Proposing the closest vectors by one matrix product: in float32, or quicker through bfloat16."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gpu_select.derived import Deriving
from gpu_select.selectors.fixed_linear import FixedLinear
from gpu_select.selectors.knn_groups import TailGroups

__all__ = ["BFloat16Search", "Float32Search", "GroupedSearch", "Search", "has_fast_bfloat16", "summing_error"]

_ROUNDING_BFLOAT16 = 2.0**-8
"""Twice the relative error of rounding to bfloat16."""

_EXTRA = 32
"""Vectors that bfloat16 looks at beyond those asked for."""

_BLOCK_ROWS = 4096
"""Vectors whose squares are held in float64 at once."""

_FEW_QUERIES = 2
"""Queries a group, below which groups are not worth it."""


class Search(Protocol):
    """Finds close vectors by float32 distances."""

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """The n closest vectors of each query, ascending; those that cannot be among the k closest may be infinite.

        Args:
            x_bD: (b, D) float32.
            k: how many must be right, up to float32 rounding of their distances.
            n: how many come back, k <= n <= U.
            allowed_bU: (b, U) bool, the vectors that count; by default all.

        Returns:
            (b, n) float32 squared distances less the query's own squared norm, infinite for what is not allowed, and
            (b, n) int64 vectors.
        """
        ...


class Within(NamedTuple):
    """The group of each query, and where groups begin and end."""

    group_b: Tensor
    """(b,) int64, on a CPU."""
    bounds: tuple[int, ...]

    def of(self, queries: Tensor) -> Within:
        """That of some of the queries."""
        return self._replace(group_b=self.group_b[queries])


class Smallest(Deriving):
    """||u||^2 - 2 x.u for all vectors, or for those of each query's group, and the smallest of them.

    Args:
        vectors_UD: (U, D) float32 or bfloat16.
        norms_U: (U,) of the same dtype.
    """

    derived = ("_parts",)

    def __init__(self, vectors_UD: Tensor, norms_U: Tensor) -> None:
        super().__init__()
        self.all = FixedLinear(vectors_UD, norms_U, scale=-2.0)
        self._parts: list[FixedLinear] | None = None

    def forward(self, x_bD: Tensor, m: int, allowed_bU: Tensor | None, within: Within | None) -> tuple[Tensor, Tensor]:
        """The m smallest values, ascending, and their vectors.

        Args:
            x_bD: (b, D) of the vectors' dtype.
            m: at most U; where a group has fewer vectors, infinite values follow.
            allowed_bU: (b, U) bool; the value of any other vector is infinite.
            within: the groups to look at; by default all vectors.
        """
        if within is None:
            return _smallest(self.all, x_bD, m, allowed_bU)
        group_b, bounds = within
        sizes = group_b.bincount(minlength=len(bounds) - 1).tolist()
        order_b = group_b.argsort() if max(sizes) < len(x_bD) else None
        value_bm = x_bD.new_full((len(x_bD), m), torch.inf)
        vector_bm = torch.zeros((len(x_bD), m), dtype=torch.int64)
        done = 0
        for g, size in enumerate(sizes):
            if not size:
                continue
            start, stop = bounds[g], bounds[g + 1]
            some: Any = slice(None) if order_b is None else order_b[done : done + size]
            done += size
            allowed = None if allowed_bU is None else allowed_bU[some, start:stop]
            width = min(m, stop - start)
            value, vector = _smallest(self._part(g, bounds), x_bD[some], width, allowed)
            value_bm[some, :width], vector_bm[some, :width] = value, vector + start
        return value_bm, vector_bm

    def _part(self, group: int, bounds: tuple[int, ...]) -> FixedLinear:
        if self._parts is None:
            vectors_UD, norms_U = self.all.weight_ND, self.all.bias_N
            self._parts = [FixedLinear(vectors_UD[a:b], norms_U[a:b], scale=-2.0) for a, b in pairwise(bounds)]
        return self._parts[group]


def _smallest(values: FixedLinear, x_bD: Tensor, m: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
    value_bU = values(x_bD)
    if allowed_bU is not None:
        value_bU.masked_fill_(~allowed_bU, torch.inf)
    value_bm, vector_bm = torch.topk(value_bU, m, dim=1, largest=False)
    return value_bm, vector_bm


class Float32Search(nn.Module):
    """||u||^2 - 2 x.u in float32, then top-k.

    Args:
        vectors_UD: (U, D) float32.
    """

    longest: Tensor

    def __init__(self, vectors_UD: Tensor) -> None:
        super().__init__()
        norms_U = torch.cat([part.double().square().sum(dim=1) for part in torch.split(vectors_UD, _BLOCK_ROWS)])
        self.smallest = Smallest(vectors_UD, norms_U.float())
        self.register_buffer("longest", norms_U.max().sqrt().float())

    @property
    def vectors(self) -> Tensor:
        """(U, D) float32."""
        return self.smallest.all.weight_ND

    @property
    def norms(self) -> Tensor:
        """(U,) float32 squared norms."""
        return self.smallest.all.bias_N

    def forward(
        self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None, within: Within | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Search` and `Smallest`."""
        approx_bn, vector_bn = self.smallest(x_bD, n, allowed_bU, within)
        return approx_bn, vector_bn

    def error(self, x_bD: Tensor) -> Tensor:
        """(b, 1) bound on the rounding of a float32 squared distance taken as ||u||^2 - 2 x.u (+ ||x||^2)."""
        length_b1 = torch.linalg.vector_norm(x_bD, dim=1, keepdim=True)
        # and on numbers too small for float32, of which a device may make zeros
        smallest = x_bD.shape[1] * torch.finfo(torch.float32).tiny
        error_b1: Tensor = (length_b1 + self.longest).square() * summing_error(x_bD.shape[1]) + smallest
        return error_b1


def summing_error(n_terms: int) -> float:
    """Largest relative error of a float32 product of `n_terms` terms and the few operations around it.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: a product of n terms is off by at
    most gamma_n |x||u| in any order of summation.
    """
    return 2.0**-24 * (n_terms + 8)


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


class BFloat16Search:
    """A bfloat16 product proposes, an error bound says which vectors can matter, and only these are done in float32.

    On a CPU with bfloat16 products this halves the time. The bound is rigorous: what is rounded away of each side is
    known exactly, and the rest follows from Cauchy and Schwarz. Queries for which too many vectors can matter are
    searched in float32.

    Args:
        exact: the float32 search over the same vectors, on the CPU.

    Source:
        The inequality |x.u - x'.u'| <= |x - x'||u| + |x'||u - u'| for rounded x' and u'.
    """

    def __init__(self, exact: Float32Search) -> None:
        vectors_UD = exact.vectors
        low_UD, low_norms_U = vectors_UD.bfloat16(), exact.norms.bfloat16()
        self._exact = exact
        self._smallest = Smallest(low_UD, low_norms_U)
        self._longest = torch.linalg.vector_norm(vectors_UD, dim=1).max()
        self._vector_error = torch.linalg.vector_norm(vectors_UD - low_UD.float(), dim=1).max()
        self._norm_error = (exact.norms - low_norms_U.float()).abs().max()

    def __call__(
        self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None, within: Within | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Search` and `Smallest`."""
        n_vectors = len(self._exact.norms)
        low_bD = x_bD.bfloat16()
        low_bm, vector_bm = self._smallest(low_bD, min(n + _EXTRA, n_vectors), allowed_bU, within)
        value_bm = low_bm.float()
        error_bm = self._error(x_bD, low_bD) + _ROUNDING_BFLOAT16 * value_bm.abs()
        bound_b1 = (value_bm + error_bm)[:, :k].amax(dim=1, keepdim=True)
        # infinity less infinity compares false, as it should: not allowed is not near
        matters_bm = value_bm - error_bm <= bound_b1
        approx_bm = torch.full_like(value_bm, torch.inf)
        approx_bm[matters_bm] = self._float32(x_bD, vector_bm, matters_bm)
        approx_bm, order_bm = approx_bm.sort(dim=1)
        approx_bn, vector_bn = approx_bm[:, :n], vector_bm.gather(1, order_bm[:, :n])
        # more may matter than was proposed
        todo = matters_bm[:, -1].nonzero().squeeze(1)
        if len(todo) and matters_bm.shape[1] < n_vectors:
            allowed = None if allowed_bU is None else allowed_bU[todo]
            inside = None if within is None else within.of(todo)
            approx_bn[todo], vector_bn[todo] = self._exact(x_bD[todo], k, n, allowed, inside)
        return approx_bn, vector_bn

    def _error(self, x_bD: Tensor, low_bD: Tensor) -> Tensor:
        """(b, 1) bound on what a product differs by before it is rounded to bfloat16."""
        kept_b1 = torch.linalg.vector_norm(low_bD.float(), dim=1, keepdim=True)
        lost_b1 = torch.linalg.vector_norm(x_bD - low_bD.float(), dim=1, keepdim=True)
        products_b1 = lost_b1 * self._longest + kept_b1 * self._vector_error
        summing_b1 = summing_error(x_bD.shape[1]) * (kept_b1 + self._longest + self._vector_error).square()
        error_b1: Tensor = 2 * products_b1 + summing_b1 + self._norm_error
        return error_b1

    def _float32(self, x_bD: Tensor, vector_bm: Tensor, matters_bm: Tensor) -> Tensor:
        """(P,) float32 values of the P pairs that matter, row by row."""
        start_B = torch.nn.functional.pad(matters_bm.sum(dim=1).cumsum(0), (1, 0))
        vector_P = vector_bm[matters_bm]
        size = len(x_bD), len(self._exact.norms)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            pairs = torch.sparse_csr_tensor(
                start_B, vector_P, torch.zeros(len(vector_P)), size=size, check_invariants=False
            )
        # sampled: only these pairs are multiplied, and no vector is copied
        product_P = torch.sparse.sampled_addmm(pairs, x_bD, self._exact.vectors.T, beta=0.0).values()
        value_P: Tensor = self._exact.norms[vector_P] - 2 * product_P
        return value_P


class GroupedSearch:
    """Looks at the vectors of the nearest group, and at all others only where they may be among the k closest.

    Args:
        groups: those of the vectors.
        exact: the float32 search over the same vectors, on the CPU.
        search: what searches a group, and everything: `exact` or a quicker one.
    """

    def __init__(self, groups: TailGroups, exact: Float32Search, search: Float32Search | BFloat16Search) -> None:
        self._groups, self._exact, self._search = groups, exact, search

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`."""
        # few queries are seldom of few groups, and many small products take longer than a single one over everything
        if 1 < len(x_bD) < _FEW_QUERIES * (len(self._groups.bounds) - 1):
            return self._search(x_bD, k, n, allowed_bU)
        group_b, beyond_b = self._groups(x_bD)
        approx_bn, vector_bn = self._search(x_bD, k, n, allowed_bU, Within(group_b, self._groups.bounds))
        # the k-th closest of the group is no farther than this, with room for the rounding of these sums
        farthest_b = approx_bn[:, k - 1] + x_bD.square().sum(dim=1) + 3 * self._exact.error(x_bD).squeeze(1)
        # infinite where the group has too few; not a number compares false
        todo = (~(farthest_b < beyond_b)).nonzero().squeeze(1)
        if len(todo) == len(x_bD):
            return self._search(x_bD, k, n, allowed_bU)
        if len(todo):
            allowed = None if allowed_bU is None else allowed_bU[todo]
            approx_bn[todo], vector_bn[todo] = self._search(x_bD[todo], k, n, allowed)
        return approx_bn, vector_bn
