"""The encoder as an nn.Module: token ids in, unit vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gpu_select_kernels.pool import pool_features
from torch import Tensor, nn

from gpu_select.encoder.bert import BertBackbone
from gpu_select.encoder.checkpoint import commit_of
from gpu_select.encoder.layouts import PaddedLayout, packed_layout, takes_varlen
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.packing import TokenBatch
from gpu_select.encoder.pooling import left_align, pool
from gpu_select.encoder.qwen3 import Qwen3Backbone
from gpu_select.encoder.registry import Pooling
from gpu_select.encoder.settings import EncoderSettings
from gpu_select.encoder.tokens import Tokenizer
from gpu_select.encoder.traced_layout import TracedLayout
from gpu_select.encoder.transformers_backbone import TransformersBackbone, padded
from gpu_select.errors import ConfigError
from gpu_select.exporting import may_count

__all__ = ["Backbone", "Encoder", "backbone_of"]

Backbone = BertBackbone | Qwen3Backbone | TransformersBackbone

_TILE = {"cpu": 256, "cuda": 4096}
"""Rows that a deterministic encoder multiplies at once."""


def backbone_of(model: Any, pooling: Pooling) -> Backbone:
    """The fastest form of a model of transformers: packed for BERT and Qwen3, else the model itself.

    Args:
        model: a `PreTrainedModel`, which must not be used afterwards; weights are shared where they can be.
        pooling: which token vectors make a text's vector.
    """
    return BertBackbone.of(model, pooling) or Qwen3Backbone.of(model, pooling) or TransformersBackbone(model, pooling)


class Encoder(nn.Module):
    """A transformer with its pooling. `load_encoder` makes one."""

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        *,
        name: str,
        fingerprint: str,
        dim: int,
        folder: Path | None = None,
    ) -> None:
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
        self.folder = folder
        """Where its files are, if it was loaded from files."""
        self.has_its_own_weights = True
        """False once `load_state_dict` has put others in the place of those of its files, or may have."""
        self.deterministic = False
        """Whether a text's vector has the same bits in every batch; see `make_deterministic`."""

    @property
    def revision(self) -> str | None:
        """The commit on the hub that its files are of, if they are of one."""
        return None if self.folder is None else commit_of(self.folder)

    @property
    def settings(self) -> EncoderSettings:
        """Pooling, prefix and length limit."""
        return self.tokenizer.settings

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and of the computation up to pooling."""
        return next(self.backbone.parameters()).dtype

    @property
    def precision(self) -> str:
        """What vectors of the same fingerprint may still differ by: the dtype, and whether they are deterministic."""
        return str(self.dtype).removeprefix("torch.") + ("-deterministic" if self.deterministic else "")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def takes_packed(self) -> bool:
        """Whether batches are computed without padding."""
        return not isinstance(self.backbone, TransformersBackbone)

    @property
    def can_be_recorded(self) -> bool:
        """Whether `encode` reads nothing of a batch's host side but its longest length, as a CUDA graph needs."""
        if isinstance(self.backbone, TransformersBackbone):
            return False
        return takes_varlen(self.device, self.dtype, self.backbone.head_dim)

    def make_deterministic(self) -> None:
        """Give a text the same bits in whatever batch it is, from `encode` on this device.

        Matrix products then run over tiles of fixed shape, and attention does not split its sums. A model that takes
        no packed batches gets its texts one by one.
        """
        self.deterministic = True
        for module in self.modules():
            if isinstance(module, Linear):
                module.tile = _TILE.get(self.device.type, _TILE["cpu"])

    def compile_layers(self, **options: Any) -> None:
        """Let torch.compile fuse what stands before and behind attention in each layer; the first batches take long.

        The layers share what is compiled.

        Args:
            options: for torch.compile.
        Raises:
            ConfigError: a model that takes no packed batches.
        """
        if isinstance(self.backbone, TransformersBackbone):
            raise ConfigError("compile", self.name, "an encoder of the BERT or Qwen3 family")
        layers: Any = self.backbone.layers
        for layer in layers:
            layer.project = torch.compile(layer.project, dynamic=True, **options)
            layer.finish = torch.compile(layer.finish, dynamic=True, **options)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """One unit vector a text, from a padded batch. Nothing here waits for the device.

        Args:
            input_ids_BT: (B, T) int64.
            attention_mask_BT: (B, T) int64 or bool, non-zero on tokens; the padding of a row may stand on its right or
                its left, and what ids it holds makes no difference.
        Returns:
            (B, dim) float32 of L2 norm 1.
        """
        ids_BT, mask_BT = left_align(input_ids_BT, attention_mask_BT.bool())
        if isinstance(self.backbone, TransformersBackbone):
            return pool(self.backbone(ids_BT, mask_BT), mask_BT, self.settings.pooling)
        layout: PaddedLayout | TracedLayout = TracedLayout(mask_BT) if may_count(mask_BT) else PaddedLayout(mask_BT)
        positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(ids_BT.shape)
        hidden = self.backbone(layout.take(ids_BT), layout.take(positions_BT), layout)
        if self.settings.pooling == "mean":
            hidden = layout.spread(hidden)
        return pool(hidden, mask_BT, self.settings.pooling)

    def encode(self, batch: TokenBatch, domain_B: Tensor | None = None, *, n_domains: int = 0) -> Tensor:
        """One unit vector a text, from a packed batch, with its one-hot domain behind it. No host sync.

        Args:
            batch: B texts, on the encoder's device.
            domain_B: (B,) int64 slots under n_domains; none for plain vectors.
            n_domains: width of the one-hot.
        Returns:
            (B, dim + n_domains) float32.
        """
        offsets_B1, picked = batch.offsets_B1, self.settings.pooling != "mean"
        if isinstance(self.backbone, TransformersBackbone):
            hidden, picked = self(*padded(batch, self.tokenizer.pad_id)), True
        else:
            layout = packed_layout(batch, self.dtype, self.backbone.head_dim, deterministic=self.deterministic)
            hidden = self.backbone(batch.ids_T, batch.positions_T, layout)
        if picked:  # one vector a text
            offsets_B1 = torch.arange(len(offsets_B1), dtype=torch.int32, device=offsets_B1.device)
        return pool_features(
            hidden, offsets_B1, domain_B, n_domains=n_domains, pooling="cls" if picked else self.settings.pooling
        )

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.has_its_own_weights = False
        super()._load_from_state_dict(*arguments)
