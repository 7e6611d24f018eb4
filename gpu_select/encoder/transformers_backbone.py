"""Any other architecture: the model of transformers as it is, over padded batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gpu_select.encoder.attention import use_sync_free_attention
from gpu_select.encoder.layouts import PaddedLayout
from gpu_select.encoder.packing import TokenBatch
from gpu_select.encoder.registry import Pooling

__all__ = ["TransformersBackbone", "padded"]


class TransformersBackbone(nn.Module):
    """A `PreTrainedModel` whose masks are made without host reads.

    Args:
        model: its config is changed.
        pooling: which token vectors are wanted.
    """

    def __init__(self, model: Any, pooling: Pooling) -> None:
        super().__init__()
        use_sync_free_attention(model)
        self.model = model
        self.pooling = pooling

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D) token vectors for the pooling `mean`, else (B, D).

        Args:
            ids_BT: (B, T) tokens.
            mask_BT: (B, T) bool, each row's padding last.
        """
        output: Any = self.model(input_ids=ids_BT, attention_mask=mask_BT.long())
        hidden_BTD: Tensor = output.last_hidden_state
        if self.pooling == "mean":
            return hidden_BTD
        return PaddedLayout(mask_BT).pick(hidden_BTD.flatten(0, 1), self.pooling)


def padded(batch: TokenBatch, pad_id: int) -> tuple[Tensor, Tensor]:
    """A packed batch as (B, T) ids and mask, made on its device."""
    T = int(batch.lengths.max())
    column_T = torch.arange(T, device=batch.device)
    first_B1, end_B1 = batch.offsets_B1[:-1, None], batch.offsets_B1[1:, None]
    place_BT = first_B1 + column_T
    mask_BT = place_BT < end_B1
    ids_BT = batch.ids_T[place_BT.clamp(max=len(batch.ids_T) - 1)].long()
    return ids_BT.masked_fill(~mask_BT, pad_id), mask_BT
