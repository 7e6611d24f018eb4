"""Proposing the closest vectors by one matrix product over all of them: in float32, or quicker through bfloat16."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

from gpu_select.selectors.fixed_linear import FixedLinear

__all__ = ["BFloat16Search", "Float32Search", "Search", "has_fast_bfloat16", "summing_error"]

_ROUNDING_BFLOAT16 = 2.0**-8
"""Twice the relative error of rounding to bfloat16."""

_EXTRA = 32
"""Vectors that bfloat16 looks at beyond those asked for."""


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


class Float32Search(nn.Module):
    """||u||^2 - 2 x.u for all vectors, then top-k.

    Args:
        vectors_UD: (U, D) float32.
    """

    def __init__(self, vectors_UD: Tensor) -> None:
        super().__init__()
        norms_U = vectors_UD.double().square().sum(dim=1).float()
        self.norms_less_products = FixedLinear(vectors_UD, norms_U, scale=-2.0)

    @property
    def vectors(self) -> Tensor:
        """(U, D) float32."""
        return self.norms_less_products.weight_ND

    @property
    def norms(self) -> Tensor:
        """(U,) float32 squared norms."""
        return self.norms_less_products.bias_N

    def forward(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`."""
        approx_bU = self.norms_less_products(x_bD)
        if allowed_bU is not None:
            approx_bU.masked_fill_(~allowed_bU, torch.inf)
        approx_bn, vector_bn = torch.topk(approx_bU, n, dim=1, largest=False)
        return approx_bn, vector_bn


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
        self._product = FixedLinear(low_UD, low_norms_U, scale=-2.0)
        self._longest = torch.linalg.vector_norm(vectors_UD, dim=1).max()
        self._vector_error = torch.linalg.vector_norm(vectors_UD - low_UD.float(), dim=1).max()
        self._norm_error = (exact.norms - low_norms_U.float()).abs().max()

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`."""
        n_vectors = len(self._exact.norms)
        low_bD = x_bD.bfloat16()
        values_bU = self._product(low_bD)
        if allowed_bU is not None:
            values_bU.masked_fill_(~allowed_bU, torch.inf)
        low_bm, vector_bm = values_bU.topk(min(n + _EXTRA, n_vectors), dim=1, largest=False)
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
            approx_bn[todo], vector_bn[todo] = self._exact(x_bD[todo], k, n, allowed)
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
