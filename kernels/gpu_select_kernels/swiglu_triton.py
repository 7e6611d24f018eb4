"""swiglu as one Triton kernel: both halves are read once, the product is written once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "swiglu"]

_BLOCKS = {"BLOCK_T": 4, "BLOCK_I": 1024}


@triton.jit(do_not_specialize=["T"])
def _swiglu_kernel(in_ptr, out_ptr, stride_t, T, n_columns, BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr):
    dtype = out_ptr.dtype.element_ty
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    inside_TI = (t < T)[:, None] & (i < n_columns)[None, :]
    gate_ptr = in_ptr + t[:, None] * stride_t + i[None, :]
    gate_TI = tl.load(gate_ptr, mask=inside_TI, other=0.0).to(tl.float32)
    up_TI = tl.load(gate_ptr + n_columns, mask=inside_TI, other=0.0).to(tl.float32)
    silu_TI = (gate_TI / (1.0 + tl.exp(-gate_TI))).to(dtype).to(tl.float32)
    tl.store(out_ptr + t[:, None] * n_columns + i[None, :], (silu_TI * up_TI).to(dtype), mask=inside_TI)


def swiglu(gate_up_TE: Tensor) -> Tensor:
    """`swiglu.swiglu` after its checks."""
    T, width = gate_up_TE.shape
    if gate_up_TE.stride(1) != 1:
        gate_up_TE = gate_up_TE.contiguous()
    out_TI = gate_up_TE.new_empty(T, width // 2)
    if T:
        grid = (triton.cdiv(T, _BLOCKS["BLOCK_T"]), triton.cdiv(width // 2, _BLOCKS["BLOCK_I"]))
        with torch.cuda.device_of(gate_up_TE):
            _swiglu_kernel[grid](gate_up_TE, out_TI, gate_up_TE.stride(0), T, width // 2, **_BLOCKS, num_warps=8)
    return out_TI


def _compiled(dtype: str, aligned: str) -> tuple[Any, ...]:
    pointers = {"in_ptr": f"*{dtype}:16", "out_ptr": f"*{dtype}:16"}
    signature = {**pointers, "stride_t": f"i32{aligned}", "T": "i32", "n_columns": f"i32{aligned}"}
    return _swiglu_kernel, signature, _BLOCKS, {"num_warps": 8}


COMPILED = [_compiled("bf16", ":16"), _compiled("fp16", ":16"), _compiled("fp32", "")]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
