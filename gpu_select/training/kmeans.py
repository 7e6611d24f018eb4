"""Training of KMeans: Lloyd's iterations from k-means++ seeds, one model a cluster."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Regression
from gpu_select.training.points import as_centroids, as_points
from gpu_select.training.settings import KMeansSettings
from gpu_select.training.utility import Advantages, best_model, centred, group_sums
from gpu_select.wire import KMeansFile

__all__ = ["cluster_models", "fit_centroids", "fit_kmeans"]

_MOST_RUNS = 20
"""With ten, two seeds of four ended 1.4 % above the best inertia known on 8 clusters of real queries."""
_RUNS_TIMES_CLUSTERS = 200
"""With more clusters one run comes closer to the others, and takes longer."""
_MAX_ITERATIONS = 300
_TOLERANCE = 1e-4


def fit_kmeans(
    features_QD: Tensor,
    models: list[str],
    utility_QM: NDArray[np.float64],
    domain_Q: NDArray[np.int64],
    settings: KMeansSettings,
    *,
    seed: int,
) -> KMeansFile:
    """Cluster the queries and give each cluster the model with the largest mean gain in it, shrunk.

    Args:
        features_QD: (Q, D) float32, on the device to train on.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        domain_Q: (Q,) the domain of each query, by name.
        settings: see there; never more clusters than there are different queries.
        seed: of the k-means++ draws and the regression's landmarks.
    """
    points_QD = as_points(features_QD, settings.domain_weight)
    centers_KD, cluster_Q, _ = fit_centroids(points_QD, n_clusters=settings.clusters, seed=seed)
    gains = centred(utility_QM)
    fitted_QM = Regression(features_QD, domain_Q, settings.gamma, seed=seed).fit(gains, settings.ridge).fitted_QM
    best_K = cluster_models(gains, fitted_QM, cluster_Q.cpu().numpy(), len(centers_KD), settings.shrinkage)
    return KMeansFile(as_centroids(centers_KD, settings.domain_weight).cpu().numpy(), [models[m] for m in best_K])


def cluster_models(
    gains: Advantages,
    fitted_QM: NDArray[np.float64],
    cluster_Q: NDArray[np.int64],
    n_clusters: int,
    shrinkage: float,
) -> NDArray[np.int64]:
    """(K,) the model of each cluster.

    A cluster's mean gains are pulled to what a regression says of its queries: a cluster of few queries chooses as its
    surroundings do.

    Args:
        gains: of the training queries.
        fitted_QM: (Q, M), the regression's estimates of gains.
        cluster_Q: (Q,) the cluster of each query.
        n_clusters: K.
        shrinkage: outcomes that the regression counts for.

    Source:
        Agarwal et al. (2022), arXiv:2202.00858: hierarchical shrinkage; a regression takes the place of wider groups.
    """
    size_K = np.maximum(np.bincount(cluster_Q, minlength=n_clusters), 1)
    around_KM = group_sums(fitted_QM, cluster_Q, n_clusters) / size_K[:, None]
    return best_model(gains.of_groups(cluster_Q, around_KM, shrinkage), gains.mean_M)


def fit_centroids(
    features_QD: Tensor, *, n_clusters: int, seed: int, n_init: int | None = None
) -> tuple[Tensor, Tensor, float]:
    """The best of several runs of Lloyd's algorithm.

    Args:
        features_QD: (Q, D) float32.
        n_clusters: K at most; reduced to the number of different rows.
        seed: the same seed gives the same clusters.
        n_init: runs; by default 20 for few clusters, fewer for many, at least 3.

    Returns:
        (K, D) float32 centroids, (Q,) int64 clusters, and the inertia: the sum of squared distances.

    Source:
        Lloyd (1982), doi:10.1109/TIT.1982.1056489; seeds by greedy k-means++, Arthur and Vassilvitskii (2007).
    """
    n_init = n_init or max(3, min(_MOST_RUNS, _RUNS_TIMES_CLUSTERS // n_clusters))
    n_clusters = min(n_clusters, len(torch.unique(features_QD, dim=0)))
    norms_Q = features_QD.square().sum(dim=1)
    # the spread of the data makes the tolerance independent of its scale
    tolerance = _TOLERANCE * float(features_QD.var(dim=0, correction=0).mean())
    generator = torch.Generator().manual_seed(seed)
    best: tuple[Tensor, Tensor, float] | None = None
    for _ in range(n_init):
        run = _lloyd(features_QD, norms_Q, _seeds(features_QD, norms_Q, n_clusters, generator), tolerance)
        if best is None or run[2] < best[2]:
            best = run
    assert best is not None
    return best


def _squared(features_QD: Tensor, norms_Q: Tensor, centers_KD: Tensor) -> Tensor:
    """(Q, K) squared distances, never below zero."""
    products_QK = features_QD @ centers_KD.T
    return (norms_Q[:, None] - 2 * products_QK + centers_KD.square().sum(dim=1)).clamp_(min=0)


def _seeds(features_QD: Tensor, norms_Q: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows drawn in proportion to their squared distance from the rows drawn so far, the best of a few draws each."""
    n_trials = 2 + int(math.log(n_clusters))
    n_rows = len(features_QD)
    chosen = [int(torch.randint(n_rows, (1,), generator=generator))]
    closest_Q = _squared(features_QD, norms_Q, features_QD[chosen])[:, 0]
    for _ in range(1, n_clusters):
        mass_Q = closest_Q.cpu().double().cumsum(0)
        draws = torch.rand(n_trials, generator=generator, dtype=torch.float64) * mass_Q[-1]
        trial_T = torch.searchsorted(mass_Q, draws).clamp(max=n_rows - 1).to(features_QD.device)
        after_QT = torch.minimum(closest_Q[:, None], _squared(features_QD, norms_Q, features_QD[trial_T]))
        best = int(after_QT.sum(dim=0).argmin())
        chosen.append(int(trial_T[best]))
        closest_Q = after_QT[:, best]
    return features_QD[chosen].clone()


def _lloyd(features_QD: Tensor, norms_Q: Tensor, centers_KD: Tensor, tolerance: float) -> tuple[Tensor, Tensor, float]:
    cluster_Q = torch.full((len(features_QD),), -1, device=features_QD.device)
    for _ in range(_MAX_ITERATIONS):
        distance_Q, new_Q = _squared(features_QD, norms_Q, centers_KD).min(dim=1)
        settled = bool((new_Q == cluster_Q).all())
        cluster_Q = new_Q
        # a product with the one-hot membership adds in a fixed order on every device
        member_KQ = (torch.arange(len(centers_KD), device=cluster_Q.device)[:, None] == cluster_Q).float()
        counts_K = member_KQ.sum(dim=1)
        moved_KD = member_KQ @ features_QD / counts_K.clamp(min=1)[:, None]
        empty = (counts_K == 0).nonzero().squeeze(1)
        if len(empty):  # an empty cluster takes the row that is worst served
            moved_KD[empty] = features_QD[distance_Q.topk(len(empty)).indices]
        shift = float((moved_KD - centers_KD).square().sum())
        centers_KD = moved_KD
        if settled or (shift <= tolerance and not len(empty)):
            break
    distance_Q, cluster_Q = _squared(features_QD, norms_Q, centers_KD).min(dim=1)
    return (
        centers_KD,
        cluster_Q,
        float(distance_Q.double().sum()) if distance_Q.device.type != "mps" else float(distance_Q.sum()),
    )
