"""The settings that are tried: up to 232, around what has done well on MMLU-Pro and LLMRouter outcomes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from gpu_select.training.mlp import MLPSettings
from gpu_select.training.settings import KMeansSettings, KNNSettings, SVMSettings

__all__ = ["kmeans_grid", "knn_grid", "mlp_grid", "svm_grid"]


def knn_grid(n_rows: int) -> list[KNNSettings]:
    """Voters, domain weight, and the regression that labels rows; n_rows is what one fold learns from."""
    return [
        KNNSettings(k, weight, gamma, ridge)
        for weight, gamma, ridge, k in product(
            (0.25, 1.0), (0.5, 1.0, 2.0, 4.0), (1.0, 3.0, 10.0), (5, 10, 25, 50, 100)
        )
        if k == 5 or k <= n_rows
    ]


def kmeans_grid(n_rows: int) -> list[KMeansSettings]:
    """Clusters, domain weight, and how much a cluster is shrunk to which regression; its width makes no difference."""
    return [
        KMeansSettings(clusters, weight, shrinkage, ridge=ridge)
        for weight, clusters, shrinkage, ridge in product(
            (0.25, 1.0), (8, 16, 32, 64, 128), (24.0, 100.0, 300.0), (3.0, 10.0)
        )
        if clusters == 8 or 2 * clusters <= n_rows
    ]


def svm_grid(base: SVMSettings) -> list[SVMSettings]:
    """Width, bound, and the regression that machines learn from; the kernel stays."""
    gammas = (0.5, 1.0, 2.0) if base.kernel == "rbf" else (base.gamma,)
    return [
        replace(base, gamma=gamma, c=c, label_gamma=label_gamma, label_ridge=ridge)
        for gamma, c, label_gamma, ridge in product(gammas, (0.3, 1.0, 3.0, 10.0), (1.0, 2.0), (3.0, 10.0))
    ]


def mlp_grid(base: MLPSettings) -> list[MLPSettings]:
    """The regression that networks learn from; the rest stays."""
    return [replace(base, label_gamma=gamma, label_ridge=ridge) for gamma, ridge in product((1.0, 2.0), (3.0, 10.0))]
