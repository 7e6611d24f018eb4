"""Training of KNN: one row a query, labelled with the model that is expected to serve such queries best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.utility import best_model, expected, mean_utility
from gpu_select.wire import KNNFile

__all__ = ["fit_knn"]

_MOST_NEIGHBORS = 50
"""Queries whose outcomes make one estimate; with few queries, their square root. 50 to 100 do equally well on
MMLU-Pro and on 14 mixed tasks (5-fold cross-validation), fewer are noise."""

_QUALITY_SCALE = 1000.0
"""A vote is 0.9 * quality + 0.1. The scale makes the constant, which would count rows, negligible; there is no cap."""

_BLOCK_ELEMENTS = 1 << 25


def fit_knn(features_QD: Tensor, models: list[str], utility_QM: NDArray[np.float64], *, n_neighbors: int) -> KNNFile:
    """Label each training query by expected utility, and let its row vote with what that label gains.

    A single outcome says little about a query: with graded or 0/1 scores most queries have several best models, and
    which one wins is chance. So each query's utilities are first estimated from its nearest training queries (itself
    included); the label is the model with the largest estimate, the weight its lead over the runner-up.

    Args:
        features_QD: (Q, D) float32.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        n_neighbors: the file's k, the number of rows that vote.

    Source:
        Wilson (1972), doi:10.1109/TSMC.1972.4309137: editing training labels by their neighbours; here with expected
        utilities in place of class counts.
    """
    mean_M = mean_utility(utility_QM)
    n_estimate = max(1, min(_MOST_NEIGHBORS, round(len(features_QD) ** 0.5)))
    device = features_QD.device
    filled_QM = torch.from_numpy(np.nan_to_num(utility_QM)).float().to(device)
    known_QM = torch.from_numpy(np.isfinite(utility_QM)).float().to(device)
    norms_Q = features_QD.double().square().sum(dim=1).float() if device.type != "mps" else features_QD.square().sum(1)
    sums, counts = [], []
    for block_bD in torch.split(features_QD, max(1, _BLOCK_ELEMENTS // len(features_QD))):
        near_bk = torch.addmm(norms_Q, block_bD, features_QD.T, alpha=-2).topk(n_estimate, largest=False).indices
        sums.append(filled_QM[near_bk].sum(dim=1).cpu())
        counts.append(known_QM[near_bk].sum(dim=1).cpu())
    estimate_QM = expected(torch.cat(sums).double().numpy(), torch.cat(counts).double().numpy(), mean_M)
    label_Q = best_model(estimate_QM, mean_M)
    ranked_QM = np.sort(estimate_QM, axis=1)
    lead_Q = ranked_QM[:, -1] - (ranked_QM[:, -2] if len(models) > 1 else 0.0)
    return KNNFile(
        k=n_neighbors,
        embeddings_ND=features_QD.cpu().numpy(),
        labels=[models[m] for m in label_Q],
        # six decimals of a thousandth: shorter files, the same decisions
        qualities_N=np.round(_QUALITY_SCALE * lead_Q, 6),
    )
