"""From token vectors to one unit vector a text, without a host sync."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select.encoder.registry import Pooling

__all__ = ["left_align", "pool"]


def left_align(input_ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each row so that its tokens stand first and its padding last, on whichever side it came.

    Afterwards positions count from 0 by themselves, and a causal model needs no padding mask, as no token sees what
    stands behind it.

    Args:
        input_ids_BT: (B, T) int64.
        mask_BT: (B, T) bool; the True of a row are contiguous.
    Returns:
        Both, rotated.
    """
    T = input_ids_BT.shape[1]
    start_B1 = mask_BT.to(torch.int32).argmax(dim=1, keepdim=True)
    source_BT = (torch.arange(T, device=input_ids_BT.device) + start_B1) % T
    return input_ids_BT.gather(1, source_BT), mask_BT.gather(1, source_BT)


def pool(hidden_BTD: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """One unit vector a row.

    Args:
        hidden_BTD: (B, T, D) token vectors in any floating dtype.
        mask_BT: (B, T) bool, True first (`left_align`).
        pooling: last, mean or cls.
    Returns:
        (B, D) float32 of L2 norm 1; sums run in float32.
    """
    if pooling == "cls":
        pooled_BD = hidden_BTD[:, 0].float()
    elif pooling == "last":
        last_B = (mask_BT.sum(dim=1) - 1).clamp(min=0)
        pooled_BD = hidden_BTD.gather(1, last_B[:, None, None].expand(-1, 1, hidden_BTD.shape[2])).squeeze(1).float()
    else:
        # the mean points where the sum points, and only the direction is kept
        pooled_BD = (hidden_BTD.float() * mask_BT[..., None]).sum(dim=1)
    return functional.normalize(pooled_BD, dim=1)
