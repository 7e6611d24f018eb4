"""x W^T + b through oneDNN on x86 CPUs, with W packed once for the kernels that it picks.

The MKL behind `torch.mm` runs at half its speed on AMD's CPUs; oneDNN picks its kernels by what the CPU has, and does
an activation or a sum while the result is in the cache. The operations are those that torch.compile itself emits.
"""

from __future__ import annotations

import functools
import platform

import torch
from torch import Tensor

__all__ = ["can_pack", "pack", "packed_product", "supports"]


def can_pack(x: Tensor) -> bool:
    """Whether products with x (float32, or bfloat16 where the CPU has it) can go through oneDNN here."""
    # a compiler packs by itself, and an empty x has no product
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and len(x) > 0 and supports(x.dtype)


def pack(weight_OI: Tensor) -> Tensor:
    """A copy of W (O, I) that only `packed_product` can read."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), None)
    return packed


def packed_product(
    x_NI: Tensor, packed: Tensor, bias_O: Tensor | None, *, gelu: bool = False, add_NO: Tensor | None = None
) -> Tensor:
    """x W^T + b, then GELU (the exact one) or the sum with `add_NO`; all of one dtype.

    Args:
        x_NI: (N, I), N >= 1, for which `can_pack`.
        packed: W, from `pack`.
        bias_O: (O,), or none.
    Returns:
        (N, O).
    """
    product = torch.ops.mkldnn._linear_pointwise
    if add_NO is not None:
        out_NO: Tensor = product.binary(x_NI, add_NO, packed, bias_O, "add")
    else:
        out_NO = product(x_NI, packed, bias_O, "gelu" if gelu else "none", [], "none")
    return out_NO


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype here."""
    operations = torch.ops.mkldnn
    known = all(hasattr(operations, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    if not known or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(operations._is_mkldnn_bf16_supported()))
