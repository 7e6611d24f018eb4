"""The feature vector that selectors decide on: the normalised embedding, then the one-hot of the domain."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select.domains import N_DOMAINS
from gpu_select.errors import DimensionError

__all__ = ["build_features", "check_width"]


def build_features(embeddings_Bd: Tensor, domain_B: Tensor) -> Tensor:
    """Append the one-hot domain to L2-normalised embeddings.

    Args:
        embeddings_Bd: (B, d) float32 of unit norm.
        domain_B: (B,) int64, slots of `domains.WIRE_ORDER`, on the same device.

    Returns:
        (B, d + 14) float32, of norm sqrt(2).
    """
    slots = torch.arange(N_DOMAINS, device=domain_B.device)
    return torch.cat([embeddings_Bd, (domain_B[:, None] == slots).to(embeddings_Bd.dtype)], dim=1)


def check_width(has: int, embedding_dim: int, where: object = "file") -> None:
    """Refuse a selector of D = `has`, from the file `where`, beside an encoder of d = `embedding_dim`.

    Raises:
        DimensionError: D is not d + 14.
    """
    gives = embedding_dim + N_DOMAINS
    if has != gives:
        raise DimensionError(
            f"embedding dimension mismatch: {where} has D = {has} ({has - N_DOMAINS} + {N_DOMAINS}), "
            f"encoder gives {gives} ({embedding_dim} + {N_DOMAINS})"
        )
