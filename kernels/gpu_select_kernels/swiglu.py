"""SwiGLU: the gated activation of the feed-forward block."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["swiglu"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def swiglu(gate_up_TE: Tensor, *, impl: Impl = "auto") -> Tensor:
    """silu(gate) * up, where gate is the first half of each row and up the second.

    Rounds where transformers does: silu to the input's dtype, then the product.

    Args:
        gate_up_TE: (T, 2 I) float32, float16 or bfloat16.
        impl: which implementation runs.
    Returns:
        (T, I) of the same dtype.
    Raises:
        ValueError: a shape or dtype other than these.
    Source:
        Shazeer (2020), arXiv:2002.05202.
    """
    if gate_up_TE.ndim != 2 or gate_up_TE.dtype not in _FLOATS or gate_up_TE.shape[1] % 2 or not gate_up_TE.shape[1]:
        raise ValueError(
            f"gate_up_TE: expected (T, 2 I) float32, float16 or bfloat16, "
            f"got {tuple(gate_up_TE.shape)} {gate_up_TE.dtype}"
        )
    if resolve_impl(impl, gate_up_TE) == "triton":
        from gpu_select_kernels import swiglu_triton

        return swiglu_triton.swiglu(gate_up_TE)
    gate_TI, up_TI = gate_up_TE.chunk(2, dim=1)
    return functional.silu(gate_TI) * up_TI
