"""KMeans: the model of the nearest centroid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpu_select.selectors.base import Selector, best_per_model

__all__ = ["KMeansSelector"]


class KMeansSelector(Selector):
    """A model's score is minus its nearest centroid's squared Euclidean distance; the lowest centroid wins a tie.

    Args:
        centroids_KD: (K, D) float32.
        cluster_models: K model names.

    Source:
        Lloyd (1982), doi:10.1109/TIT.1982.1056489, assignment step.
    """

    algorithm = "kmeans"
    centroids_KD: Tensor
    norms_K: Tensor
    owner_K: Tensor

    def __init__(self, centroids_KD: Tensor, cluster_models: Sequence[str]) -> None:
        models = list(dict.fromkeys(cluster_models))
        super().__init__(models, centroids_KD.shape[1])
        self.register_buffer("centroids_KD", centroids_KD.float())
        self.register_buffer("norms_K", centroids_KD.double().square().sum(dim=1).float())
        self.register_buffer("owner_K", torch.tensor([models.index(name) for name in cluster_models]))

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32, minus squared distances."""
        products_BK = features_BD @ self.centroids_KD.T
        squares_B1 = features_BD.square().sum(dim=1, keepdim=True)
        return best_per_model(
            2 * products_BK - self.norms_K - squares_B1, self.owner_K, len(self.models), candidates_BM
        )
