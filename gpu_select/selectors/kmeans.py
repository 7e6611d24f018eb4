"""KMeans: the model of the nearest centroid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gpu_select_kernels.centroid import MOST_FUSED_MODELS, nearest_centroid
from gpu_select_kernels.dispatch import Impl, resolve_impl
from torch import Tensor

from gpu_select.selectors.base import Selector, best_per_model, distinct_rows, with_winner
from gpu_select.selectors.fixed_linear import FixedLinear

__all__ = ["KMeansSelector"]


class KMeansSelector(Selector):
    """A model's score is minus its nearest centroid's squared Euclidean distance; the lowest centroid wins a tie.

    On CUDA one kernel goes from the features to each model's best, and no distances are kept.

    Args:
        centroids_KD: (K, D) float32.
        cluster_models: K model names.

    Attributes:
        impl: which implementation runs.

    Source:
        Lloyd (1982), doi:10.1109/TIT.1982.1056489, assignment step.
    """

    algorithm = "kmeans"
    impl: Impl = "auto"
    derived = ("_for_kernel",)
    owner_K: Tensor
    place_K: Tensor

    def __init__(self, centroids_KD: Tensor, cluster_models: Sequence[str]) -> None:
        models = list(dict.fromkeys(cluster_models))
        super().__init__(models, centroids_KD.shape[1])
        centroids_UD, place_K = distinct_rows(centroids_KD.float())
        norms_U = centroids_UD.double().square().sum(dim=1)
        self.products_less_norms = FixedLinear(centroids_UD, -norms_U.float(), scale=2.0)
        self.register_buffer("owner_K", torch.tensor([models.index(name) for name in cluster_models]))
        self.register_buffer("place_K", place_K)
        self._for_kernel: tuple[Tensor, Tensor] | None = None

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32, minus squared distances."""
        own_B1 = torch.linalg.vector_norm(features_BD, dim=1, keepdim=True).square()
        if len(self.models) <= MOST_FUSED_MODELS and resolve_impl(self.impl, features_BD) == "triton":
            if self._for_kernel is None:
                # the kernel gives equal centroids equal distances, so it takes all of them, in their order
                linear = self.products_less_norms
                self._for_kernel = linear.weight_ND[self.place_K], -linear.bias_N[self.place_K]
            fixed = *self._for_kernel, self.owner_K, len(self.models)
            best_BM, nearest_B = nearest_centroid(features_BD, *fixed, candidates_BM, impl="triton")
            return with_winner(best_BM, self.owner_K[nearest_B], own_B1)
        values_BK: Tensor = self.products_less_norms(features_BD)
        if values_BK.shape[1] < self.place_K.shape[0]:
            values_BK = values_BK[:, self.place_K]
        return best_per_model(values_BK, self.owner_K, len(self.models), candidates_BM, own_B1)
