"""The older trainer's way, as files in the wild show it: a row for every record, and summed scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpu_select.records import OutcomeTable
from gpu_select.training.kmeans import fit_centroids
from gpu_select.wire import KMeansFile, KNNFile

__all__ = ["older_kmeans", "older_knn"]


def older_knn(features_QD: Tensor, table: OutcomeTable) -> KNNFile:
    """k = 5 over a row for each query and model, so that one or two queries vote."""
    query_N, model_N = np.isfinite(table.quality_QM).nonzero()
    latency_s_N = table.latency_s_QM[query_N, model_N]
    return KNNFile(
        k=5,
        embeddings_ND=features_QD[torch.from_numpy(query_N)].numpy(),
        labels=[table.models[m] for m in model_N],
        qualities_N=table.quality_QM[query_N, model_N],
        latencies_ns_N=(np.nan_to_num(latency_s_N, nan=1.0) * 1e9).astype(np.int64),
    )


def older_kmeans(features_QD: Tensor, table: OutcomeTable, *, seed: int) -> KMeansFile:
    """Eight clusters, each with the model of the largest sum of scores, 0.9 * quality + 0.1 * speed."""
    centroids_KD, cluster_Q, _ = fit_centroids(features_QD, n_clusters=8, seed=seed)
    latency_s_QM = table.latency_s_QM
    least, most = np.nanmin(latency_s_QM), np.nanmax(latency_s_QM)
    speed_QM = 1 - (latency_s_QM - least) / max(most - least, 1e-9)
    score_QM = np.nan_to_num(0.9 * table.quality_QM + 0.1 * speed_QM)
    sum_KM = np.eye(len(centroids_KD))[:, cluster_Q.numpy()] @ score_QM
    return KMeansFile(centroids_KD.numpy(), [table.models[m] for m in sum_KM.argmax(axis=1)])
