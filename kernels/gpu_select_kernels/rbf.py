"""Decision values of RBF support vector machines, all classifiers of one gamma at once."""

from __future__ import annotations

from typing import Any, Literal, NewType

import torch
from torch import Tensor

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["Precision", "Prepared", "prepare_vectors", "rbf_decision"]

Precision = Literal["tf32x3", "ieee"]

Prepared = NewType("Prepared", object)
"""Support vectors in the layout of the kernel, from `prepare_vectors`."""


def prepare_vectors(
    vectors_SD: Tensor,
    norms_S: Tensor,
    coefficients_SR: Tensor,
    *,
    precision: Precision = "tf32x3",
    impl: Impl = "auto",
) -> Prepared | None:
    """The fixed side of `rbf_decision` in the layout of its kernel, for those who call it more than once.

    Args:
        vectors_SD, norms_S, coefficients_SR, precision, impl: as for `rbf_decision`.
    Returns:
        What `rbf_decision` takes as prepared: at most twice the memory of the vectors; None for the reference.
    Raises:
        ValueError: shapes or dtypes other than these, or an unknown precision.
    """
    _check(vectors_SD, norms_S, coefficients_SR, precision)
    if resolve_impl(impl, vectors_SD) == "torch":
        return None
    from gpu_select_kernels import rbf_triton

    return Prepared(rbf_triton.prepare_vectors(vectors_SD, norms_S, coefficients_SR, precision))


def rbf_decision(
    x_BD: Tensor,
    vectors_SD: Tensor,
    norms_S: Tensor,
    coefficients_SR: Tensor,
    gamma: float,
    *,
    prepared: Prepared | None = None,
    precision: Precision = "tf32x3",
    impl: Impl = "auto",
) -> Tensor:
    """sum_s coefficients[s, r] * exp(-gamma * max(||x||^2 + norms[s] - 2 x.vectors[s], 0)) for each query and r.

    The kernel keeps none of B x S in global memory; the bits of its rows depend neither on the batch nor on the run.

    Args:
        x_BD: (B, D) float32.
        vectors_SD: (S, D) float32.
        norms_S: (S,) float32, the squared norms of the vectors.
        coefficients_SR: (S, R) float32.
        gamma: of the kernel function.
        prepared: `prepare_vectors` of the same vectors, norms, coefficients and precision.
        precision: of the kernel's products: `tf32x3` is three TF32 products on the tensor cores, with an error near
            that of float32; `ieee` is float32 without them, and several times slower.
        impl: which implementation runs.
    Returns:
        (B, R) float32.
    Raises:
        ValueError: shapes or dtypes other than these, or an unknown precision.
    """
    _check(vectors_SD, norms_S, coefficients_SR, precision)
    if x_BD.ndim != 2 or x_BD.shape[1] != vectors_SD.shape[1] or x_BD.dtype != torch.float32:
        raise ValueError(f"x_BD: expected (B, {vectors_SD.shape[1]}) float32, got {tuple(x_BD.shape)} {x_BD.dtype}")
    if resolve_impl(impl, x_BD) == "triton":
        from gpu_select_kernels import rbf_triton

        layout: Any = prepared or rbf_triton.prepare_vectors(vectors_SD, norms_S, coefficients_SR, precision)
        return rbf_triton.rbf_decision(x_BD, layout, gamma)
    square_B1 = torch.linalg.vector_norm(x_BD, dim=1, keepdim=True).square()
    distances_BS = torch.addmm(norms_S, x_BD, vectors_SD.T, alpha=-2.0) + square_B1
    # rounding can take a distance of zero below it
    return torch.exp(-gamma * distances_BS.clamp(min=0)) @ coefficients_SR


def _check(vectors_SD: Tensor, norms_S: Tensor, coefficients_SR: Tensor, precision: str) -> None:
    if precision not in ("tf32x3", "ieee"):
        raise ValueError(f"precision: expected tf32x3 or ieee, got {precision!r}")
    if vectors_SD.ndim != 2 or vectors_SD.dtype != torch.float32:
        raise ValueError(f"vectors_SD: expected (S, D) float32, got {tuple(vectors_SD.shape)} {vectors_SD.dtype}")
    S = vectors_SD.shape[0]
    if norms_S.shape != (S,) or norms_S.dtype != torch.float32:
        raise ValueError(f"norms_S: expected ({S},) float32, got {tuple(norms_S.shape)} {norms_S.dtype}")
    if coefficients_SR.ndim != 2 or coefficients_SR.shape[0] != S or coefficients_SR.dtype != torch.float32:
        raise ValueError(
            f"coefficients_SR: expected ({S}, R) float32, got {tuple(coefficients_SR.shape)} {coefficients_SR.dtype}"
        )
