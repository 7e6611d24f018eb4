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


def pool(hidden: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """One unit vector a row of a padded batch.

    Args:
        hidden: for `mean` (B, T, D) or (B * T, D) token vectors, else (B, D) those that were picked, in any floating
            dtype.
        mask_BT: (B, T) bool, True on tokens.
        pooling: last, mean or cls.
    Returns:
        (B, D) float32 of L2 norm 1; sums run in float32.
    """
    pooled_BD = hidden.float()
    if pooling == "mean":
        # the mean points where the sum points, and only the direction is kept
        pooled_BD = (pooled_BD.reshape(*mask_BT.shape, -1) * mask_BT[..., None]).sum(dim=1)
    return functional.normalize(pooled_BD, dim=1)
