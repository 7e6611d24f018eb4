"""scale * x @ W.T + b for a W that stays: rows to search, support vectors, centroids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from gpu_select_kernels.packed_product import can_pack, pack, packed_product
from torch import Tensor, nn

__all__ = ["FixedLinear"]

_MOST_PACKED_BYTES = 1 << 30
"""The packed copy doubles the memory that W takes; beyond this it is not made."""


class FixedLinear(nn.Module):
    """A matrix product with a constant right side, in the dtype of W.

    On x86 CPUs the product goes through oneDNN with W packed once (`packed_product`), elsewhere it is `torch.addmm`.

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
        if can_pack(x_BD) and 0 < self.weight_ND.nbytes <= _MOST_PACKED_BYTES:
            if self._packed is None:
                self._packed = pack(self.scale * self.weight_ND)
            return packed_product(x_BD, self._packed, self.bias_N)
        return torch.addmm(self.bias_N, x_BD, self.weight_ND.T, alpha=self.scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._packed = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}
