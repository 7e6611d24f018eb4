"""The domain head: which of the documented domains an embedded query is of, in the same forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_select.domain_file import DomainFile
from gpu_select.domains import KNOWN_DOMAINS
from gpu_select.selectors.base import exact_float32

__all__ = ["DomainHead"]

_TILE = 256
"""Queries that a deterministic head multiplies at once."""


class DomainHead(nn.Module):
    """Multinomial logistic regression on unit embeddings.

    Attributes:
        domains: the C names that it tells apart.
        dim: d, the width of the embeddings it takes.
        deterministic: whether a query's logits have the same bits in whatever batch it is.
    """

    weight_Cd: Tensor
    bias_C: Tensor
    domain_C: Tensor
    deterministic = False

    def __init__(self, document: DomainFile) -> None:
        super().__init__()
        self.domains = document.domains
        self.dim = document.weight_Cd.shape[1]
        self.register_buffer("weight_Cd", torch.from_numpy(document.weight_Cd))
        self.register_buffer("bias_C", torch.from_numpy(document.bias_C))
        self.register_buffer("domain_C", torch.tensor([KNOWN_DOMAINS.index(name) for name in document.domains]))

    def forward(self, embeddings_Bd: Tensor) -> Tensor:
        """(B, d) float32 unit embeddings -> (B, C) float32 logits."""
        with exact_float32():
            if not self.deterministic:
                return functional.linear(embeddings_Bd, self.weight_Cd, self.bias_C)
            # libraries choose the order of their sums by the shape, so every query goes through the same one
            B = len(embeddings_Bd)
            tiles = torch.split(functional.pad(embeddings_Bd, (0, 0, 0, -B % _TILE)), _TILE)
            return torch.cat([functional.linear(tile, self.weight_Cd, self.bias_C) for tile in tiles])[:B]

    def predict(self, embeddings_Bd: Tensor) -> Tensor:
        """(B,) int64, the most probable domain as an index into `domains.KNOWN_DOMAINS`."""
        return self.domain_C[self(embeddings_Bd).argmax(dim=1)]
