"""Linear layers whose weights stay: through oneDNN with the weights packed once on x86 CPUs, plain elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gpu_select_kernels.packed_product import can_pack, pack, packed_product
from gpu_select_kernels.rowwise import rowwise
from torch import Tensor, nn
from torch.nn import functional

from gpu_select.derived import Deriving

__all__ = ["Linear"]


class Linear(Deriving):
    """x W^T + b, with what follows it in a transformer.

    On x86 CPUs the product goes through oneDNN (`packed_product`).

    Args:
        weight_OI: (O, I).
        bias_O: (O,), or None.

    Attributes:
        tile: rows that are multiplied at once, the last of them filled up with zeros: libraries choose the order of
            their sums by the shape, so that only equal shapes give a row the same bits in any batch. None for all rows
            at once.
    """

    derived = ("_packed",)
    bias: Tensor | None
    tile: int | None = None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_OI.detach().contiguous(), requires_grad=False)
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach(), requires_grad=False)
        self._packed: Tensor | None = None

    def forward(self, x_NI: Tensor, *, gelu: bool = False, add_NO: Tensor | None = None) -> Tensor:
        """(N, I) -> (N, O), then GELU (the exact one) or the sum with `add_NO`."""
        if self.tile is None:
            return self._product(x_NI, gelu, add_NO)
        N = len(x_NI)
        filling = (0, 0, 0, -N % self.tile)
        x_tiles = torch.split(functional.pad(x_NI, filling), self.tile)
        add_tiles: Sequence[Tensor | None] = [None] * len(x_tiles)
        if add_NO is not None:
            add_tiles = torch.split(functional.pad(add_NO, filling), self.tile)
        return torch.cat([self._product(x, gelu, add) for x, add in zip(x_tiles, add_tiles, strict=True)])[:N]

    def _product(self, x_NI: Tensor, gelu: bool, add_NO: Tensor | None) -> Tensor:
        if can_pack(x_NI):
            if self._packed is None:
                self._packed = pack(self.weight)
            return packed_product(x_NI, self._packed, self.bias, gelu=gelu, add_NO=add_NO)
        out_NO = functional.linear(x_NI, self.weight, self.bias)
        if gelu:
            out_NO = functional.gelu(out_NO) if self.tile is None else rowwise(functional.gelu, out_NO)
        return out_NO if add_NO is None else out_NO + add_NO
