"""scale * x @ W.T + b for a W that stays: rows to search, support vectors, centroids."""

from __future__ import annotations

import torch
from gpu_select_kernels.packed_product import can_pack, pack, packed_product
from torch import Tensor

from gpu_select.derived import Deriving

__all__ = ["FixedLinear"]

_MOST_PACKED_BYTES = 1 << 30
"""The packed copy doubles the memory that W takes; beyond this it is not made."""


class FixedLinear(Deriving):
    """A matrix product with a constant right side, in the dtype of W.

    On x86 CPUs the product goes through oneDNN with W packed once (`packed_product`), elsewhere it is `torch.addmm`.

    Args:
        weight_ND: (N, D) float32 or bfloat16.
        bias_N: (N,) of the same dtype; added before the result is rounded.
        scale: of the products.
    """

    derived = ("_packed",)
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
        if can_pack(x_BD) and self._may_be_packed():
            if self._packed is None:
                self._packed = pack(self.scale * self.weight_ND)
            return packed_product(x_BD, self._packed, self.bias_N)
        return self.traced(x_BD, slice(None))

    def traced(self, x_BD: Tensor, rows: slice) -> Tensor:
        """The same in plain operations, for some rows of W: (B, D) -> (B, len(rows))."""
        weight_nD, bias_n = self.weight_ND[rows], self.bias_N[rows]
        if torch.compiler.is_exporting() and x_BD.device.type == "cpu" and self._may_be_packed():
            # AOTInductor folds the scaled weights into a constant, and packs that
            return torch.addmm(bias_n, x_BD, (self.scale * weight_nD).T)
        if _would_be_tf32(x_BD):
            return torch.addmm(bias_n.double(), x_BD.double(), weight_nD.double().T, alpha=self.scale).float()
        return torch.addmm(bias_n, x_BD, weight_nD.T, alpha=self.scale)

    def _may_be_packed(self) -> bool:
        return 0 < self.weight_ND.nbytes <= _MOST_PACKED_BYTES


def _would_be_tf32(x: Tensor) -> bool:
    """Whether a compiled product would keep 10 bits of its factors, which no graph can switch off: `exact_float32`."""
    if not (torch.compiler.is_compiling() and x.is_cuda and x.dtype == torch.float32):
        return False
    return bool(torch._C._get_cublas_allow_tf32())  # what Dynamo knows as a constant, and guards
