"""The encoder as an nn.Module: token ids in, unit vectors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gpu_select.encoder.pooling import left_align, pool
from gpu_select.encoder.settings import EncoderSettings
from gpu_select.encoder.tokens import Tokenizer

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """A transformer with its pooling. `load_encoder` makes one."""

    def __init__(self, backbone: nn.Module, tokenizer: Tokenizer, *, name: str, fingerprint: str, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        """Turns texts into what `forward` takes."""
        self.name = name
        """What the user called it; for a local folder, the folder's base name."""
        self.fingerprint = fingerprint
        """Hex sha256 of what determines the vectors: weights, config, tokenizer, settings; not dtype or path."""
        self.dim = dim
        """Length of a vector."""

    @property
    def settings(self) -> EncoderSettings:
        """Pooling, prefix and length limit."""
        return self.tokenizer.settings

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and of the computation up to pooling."""
        return next(self.backbone.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """One unit vector a text. Nothing here waits for the device.

        Args:
            input_ids_BT: (B, T) int64.
            attention_mask_BT: (B, T) int64 or bool, non-zero on tokens; the padding of a row may stand on its right or
                its left, and what ids it holds makes no difference.
        Returns:
            (B, dim) float32 of L2 norm 1.
        """
        ids_BT, mask_BT = left_align(input_ids_BT, attention_mask_BT.bool())
        output: Any = self.backbone(input_ids=ids_BT, attention_mask=mask_BT.long())
        return pool(output.last_hidden_state, mask_BT, self.settings.pooling)
