"""Cross-validation of KMeans settings: clusters are found once for all ways of naming their models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.training.kmeans import cluster_models, fit_centroids
from gpu_select.training.settings import KMeansSettings
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData

__all__ = ["kmeans_choices"]

_N_INIT = 1
"""Runs of Lloyd's algorithm: which of many equally good clusterings is found matters less than the settings."""


def kmeans_choices(
    data: FoldedData, estimates: Estimates, grid: list[KMeansSettings]
) -> Iterator[tuple[KMeansSettings, NDArray[np.int64]]]:
    """(Q,) for each setting, the model that a selector without the query's fold would choose."""
    for weight, clusters in sorted({(s.domain_weight, s.clusters) for s in grid}):
        mine = [s for s in grid if (s.domain_weight, s.clusters) == (weight, clusters)]
        points_QD = estimates.points(weight)
        choices = {s: np.empty(len(data.fold_Q), np.int64) for s in mine}
        for fold in range(data.n_folds):
            learned, held_out = data.rows(fold)
            learned_ND = points_QD[torch.from_numpy(learned).to(points_QD.device)]
            centers_KD, _, _ = fit_centroids(learned_ND, n_clusters=clusters, seed=data.seed, n_init=_N_INIT)
            # queries that are held out have no outcomes here, so they may lie in clusters
            distance_QK = torch.addmm(centers_KD.square().sum(dim=1), points_QD, centers_KD.T, alpha=-2)
            cluster_Q = distance_QK.argmin(dim=1).cpu().numpy()
            cluster_N = cluster_Q[learned]
            gains = estimates.gains[fold].of(learned)
            for s in mine:
                fitted_NM = estimates.fitted(s.gamma, s.ridge, fold)[learned]
                best_K = cluster_models(gains, fitted_NM, cluster_N, len(centers_KD), s.shrinkage)
                choices[s][held_out] = best_K[cluster_Q[held_out]]
        yield from choices.items()
