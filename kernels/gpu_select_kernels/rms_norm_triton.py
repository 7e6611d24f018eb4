"""rms_norm as one Triton kernel: a warp a row for usual widths, each number read once and written once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "rms_norm"]

_TILE = 4096
"""Numbers of one input that a program holds, where a row is not longer."""


@triton.jit(do_not_specialize=["T"])
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
    residual_ptr,
    out_ptr,
    sum_ptr,
    x_stride,
    residual_stride,
    out_stride,
    sum_stride,
    T,
    D,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    dtype = out_ptr.dtype.element_ty
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    inside_TD = (t < T)[:, None] & (d < D)[None, :]
    y_TD = tl.load(x_ptr + t[:, None] * x_stride + d[None, :], mask=inside_TD, other=0.0).to(tl.float32)
    weight_D = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual_TD = tl.load(residual_ptr + t[:, None] * residual_stride + d[None, :], mask=inside_TD, other=0.0)
        rounded_TD = (y_TD + residual_TD.to(tl.float32)).to(dtype)
        tl.store(sum_ptr + t[:, None] * sum_stride + d[None, :], rounded_TD, mask=inside_TD)
        y_TD = rounded_TD.to(tl.float32)
    scale_T = tl.rsqrt(tl.sum(y_TD * y_TD, axis=1) / D + eps)
    normed_TD = (y_TD * scale_T[:, None]).to(dtype).to(tl.float32)
    out_TD = (normed_TD * weight_D[None, :]).to(dtype)
    tl.store(out_ptr + t[:, None] * out_stride + d[None, :], out_TD, mask=inside_TD)


def _options(D: int) -> tuple[dict[str, int], dict[str, int]]:
    block_d = triton.next_power_of_2(D)
    blocks = {"BLOCK_T": max(1, _TILE // block_d), "BLOCK_D": block_d}
    return blocks, {"num_warps": min(16, max(4, block_d // 1024))}


def rms_norm(
    x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None, *, inplace: bool
) -> tuple[Tensor, Tensor]:
    """`rms_norm.rms_norm` after its checks."""
    T, D = x_TD.shape
    read_TD = x_TD if x_TD.stride(1) == 1 else x_TD.contiguous()
    add_TD = residual_TD if residual_TD is None or residual_TD.stride(1) == 1 else residual_TD.contiguous()
    out_TD, sum_TD = torch.empty_like(read_TD), x_TD
    if inplace and read_TD is x_TD:
        out_TD = x_TD
    if add_TD is not None:
        sum_TD = add_TD if inplace and add_TD is residual_TD else torch.empty_like(add_TD)
    blocks, options = _options(D)
    if T:
        with torch.cuda.device_of(x_TD):
            _rms_norm_kernel[(triton.cdiv(T, blocks["BLOCK_T"]),)](
                read_TD,
                weight_D.contiguous(),
                read_TD if add_TD is None else add_TD,
                out_TD,
                sum_TD,
                read_TD.stride(0),
                0 if add_TD is None else add_TD.stride(0),
                out_TD.stride(0),
                sum_TD.stride(0),
                T,
                D,
                eps,
                HAS_RESIDUAL=add_TD is not None,
                **blocks,
                **options,
            )
    if inplace and residual_TD is not None:
        out_TD = out_TD if out_TD is x_TD else x_TD.copy_(out_TD)
        sum_TD = sum_TD if sum_TD is residual_TD else residual_TD.copy_(sum_TD)
    return out_TD, sum_TD


def _compiled(dtype: str, D: int, has_residual: bool, aligned: str) -> tuple[Any, ...]:
    strides = {f"{name}_stride": f"i32{aligned}" for name in ("x", "residual", "out", "sum")}
    pointers = {f"{name}_ptr": f"*{dtype}:16" for name in ("x", "weight", "residual", "out", "sum")}
    blocks, options = _options(D)
    signature = {**pointers, **strides, "T": "i32", "D": f"i32{aligned}", "eps": "fp32"}
    return _rms_norm_kernel, signature, {"HAS_RESIDUAL": has_residual, **blocks}, options


COMPILED = [
    _compiled("bf16", 1024, True, ":16"),
    _compiled("bf16", 1024, False, ":16"),
    _compiled("fp16", 4096, True, ":16"),
    _compiled("fp32", 1038, True, ""),
]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
