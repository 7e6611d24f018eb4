"""Features as points of a space where the domain counts more or less, and as rows of a file that says the same."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select.domains import N_DOMAINS

__all__ = ["as_centroids", "as_points", "as_rows"]


def as_points(features_QD: Tensor, domain_weight: float) -> Tensor:
    """Points in which another domain adds 2 * domain_weight to the squared distance of two unit embeddings.

    Args:
        features_QD: (Q, D) float32, the last 14 columns being the one-hot.
        domain_weight: 1 leaves the features as they are, 0 takes the domain out.
    """
    return _scaled_tail(features_QD, domain_weight**0.5)


def as_rows(features_QD: Tensor, domain_weight: float) -> Tensor:
    """Rows that lie, for a query as engines build it, in the same order of distance as the points do.

    A query's one-hot stays 1, whatever the weight. But |q - r|^2 = |q|^2 + |r|^2 - 2 q.r, all rows are of one norm, and
    in q.r a row's one-hot of `domain_weight` counts as the square root of it on both sides would.
    """
    return _scaled_tail(features_QD, domain_weight)


def as_centroids(centers_KD: Tensor, domain_weight: float) -> Tensor:
    """Centroids that are for a query as engines build it nearest where the given centers are nearest in `as_points`.

    A center's tail is sqrt(w) p, p being the shares of the domains in its cluster. Up to a constant its squared
    distance is |c|^2 + w |p|^2 - 2 e.c - 2 w p[domain], and a tail r has |r|^2 - 2 r[domain] in place of the p. As p
    adds up to 1, r = w p + t makes both equal: t solves 14 t^2 + 2 (w - 1) t + w (w - 1) |p|^2 = constant.

    Args:
        centers_KD: (K, D) float32, means of `as_points`.
        domain_weight: w.
    """
    if domain_weight == 1:
        return centers_KD
    w = domain_weight
    # on the CPU: not every device has float64
    tail_KT = centers_KD[:, -N_DOMAINS:].cpu().double() * w**0.5  # w p
    linear = w - 1
    constant_K = (w - 1) * tail_KT.square().sum(dim=1) / w if w > 0 else torch.zeros(len(tail_KT), dtype=torch.float64)
    # any constant may be added to all distances: the least one for which every center has a root
    squared_K = linear**2 - N_DOMAINS * constant_K
    root_K = (squared_K - squared_K.min().clamp(max=0)).sqrt()
    shift_K = (-linear + (root_K if linear > 0 else -root_K)) / N_DOMAINS
    return torch.cat([centers_KD[:, :-N_DOMAINS], (tail_KT + shift_K[:, None]).to(centers_KD)], dim=1)


def _scaled_tail(features_QD: Tensor, scale: float) -> Tensor:
    return torch.cat([features_QD[:, :-N_DOMAINS], scale * features_QD[:, -N_DOMAINS:]], dim=1)
