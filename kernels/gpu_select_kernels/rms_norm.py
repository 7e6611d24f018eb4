"""RMSNorm, with the addition of the residual before it."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["rms_norm"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def rms_norm(
    x_TD: Tensor,
    weight_D: Tensor,
    eps: float,
    residual_TD: Tensor | None = None,
    *,
    inplace: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """weight * y / sqrt(mean(y^2) + eps) of each row, where y is x, or x + residual where there is one.

    Rounds where transformers' Qwen3RMSNorm does: the sum and the normalised row to the input's dtype; the mean and the
    root are float32.

    Args:
        x_TD: (T, D) float32, float16 or bfloat16; D at most 16384.
        weight_D: (D,) of the same dtype.
        eps: added to the mean square.
        residual_TD: (T, D) of the same dtype.
        inplace: needs a residual: the sum is written over residual_TD and the result over x_TD.
        impl: which implementation runs.
    Returns:
        The result and y, both (T, D) of x's dtype; without a residual y is x_TD itself.
    Raises:
        ValueError: shapes or dtypes other than these, or inplace without a residual.
    Source:
        Zhang and Sennrich (2019), arXiv:1910.07467.
    """
    _check(x_TD, weight_D, residual_TD, inplace)
    if resolve_impl(impl, x_TD) == "triton":
        from gpu_select_kernels import rms_norm_triton

        return rms_norm_triton.rms_norm(x_TD, weight_D, eps, residual_TD, inplace=inplace)
    return _reference(x_TD, weight_D, eps, residual_TD, inplace)


def _reference(
    x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None, inplace: bool
) -> tuple[Tensor, Tensor]:
    y_TD = x_TD
    if residual_TD is not None:
        y_TD = residual_TD.add_(x_TD) if inplace else residual_TD + x_TD
    y32_TD = y_TD.float()
    y32_TD = y32_TD * torch.rsqrt(y32_TD.square().mean(dim=-1, keepdim=True) + eps)
    normed_TD = y32_TD.to(x_TD.dtype)
    normed_TD = normed_TD * weight_D
    return (x_TD.copy_(normed_TD) if inplace else normed_TD), y_TD


def _check(x_TD: Tensor, weight_D: Tensor, residual_TD: Tensor | None, inplace: bool) -> None:
    if x_TD.ndim != 2 or x_TD.dtype not in _FLOATS or not 1 <= x_TD.shape[1] <= 16384:
        raise ValueError(
            f"x_TD: expected (T, D <= 16384) float32, float16 or bfloat16, got {tuple(x_TD.shape)} {x_TD.dtype}"
        )
    if weight_D.shape != x_TD.shape[1:] or weight_D.dtype != x_TD.dtype:
        raise ValueError(
            f"weight_D: expected ({x_TD.shape[1]},) {x_TD.dtype}, got {tuple(weight_D.shape)} {weight_D.dtype}"
        )
    if residual_TD is None:
        if inplace:
            raise ValueError("inplace: expected a residual_TD to write to, got none")
    elif residual_TD.shape != x_TD.shape or residual_TD.dtype != x_TD.dtype:
        raise ValueError(
            f"residual_TD: expected {tuple(x_TD.shape)} {x_TD.dtype}, "
            f"got {tuple(residual_TD.shape)} {residual_TD.dtype}"
        )
