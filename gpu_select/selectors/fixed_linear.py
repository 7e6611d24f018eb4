"""scale * x @ W.T + b for a W that stays: rows to search, support vectors, centroids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["FixedLinear"]

_MOST_PACKED_BYTES = 1 << 30
"""The packed copy doubles the memory that W takes; beyond this it is not made."""


class FixedLinear(nn.Module):
    """A matrix product with a constant right side, in the dtype of W.

    On CPUs the product goes through oneDNN with W packed once: it picks its kernels by what the CPU has, whereas the
    MKL behind `torch.mm` runs at half its speed on AMD's. Elsewhere it is `torch.addmm`.

    Args:
        weight_ND: (N, D) float32 or bfloat16.
        bias_N: (N,) of the same dtype; added before the result is rounded.
        scale: of the products.
    """

    weight_ND: Tensor
    bias_N: Tensor

    def __init__(self, weight_ND: Tensor, bias_N: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("weight_ND", weight_ND.contiguous())
        self.register_buffer("bias_N", bias_N)
        self.scale = scale
        self._packed: Tensor | None = None

    def forward(self, x_BD: Tensor) -> Tensor:
        """(B, D) -> (B, N), both of the dtype of W."""
        if x_BD.device.type == "cpu" and not torch.compiler.is_compiling() and self._can_pack() and len(x_BD):
            if self._packed is None:
                self._packed = torch.ops.mkldnn._reorder_linear_weight(self.scale * self.weight_ND, None)
            out_BN: Tensor = torch.ops.mkldnn._linear_pointwise(x_BD, self._packed, self.bias_N, "none", [], "")
            return out_BN
        return torch.addmm(self.bias_N, x_BD, self.weight_ND.T, alpha=self.scale)

    def _can_pack(self) -> bool:
        # the two operations are those that torch.compile itself emits for CPUs
        known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return known and available and 0 < self.weight_ND.nbytes <= _MOST_PACKED_BYTES

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._packed = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}
