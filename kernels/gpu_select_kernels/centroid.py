"""The nearest centroid, and the nearest of each model."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["MOST_FUSED_MODELS", "nearest_centroid"]

MOST_FUSED_MODELS = 512
"""The kernel keeps a query's best value of every model in registers; for more models the reference runs."""


def nearest_centroid(
    features_BD: Tensor,
    centroids_KD: Tensor,
    norms_K: Tensor,
    owner_K: Tensor,
    n_models: int,
    candidates_BM: Tensor | None = None,
    *,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """The largest 2 x.c - ||c||^2 of each model's centroids, and the centroid with the largest of all.

    This value is ||x||^2 less the squared distance: the largest belongs to the nearest centroid. In the kernel equal
    centroids have equal values, none of B x K is in global memory, and a row's bits do not depend on the batch. Its
    products are three TF32 products each, with an error near that of float32.

    Args:
        features_BD: (B, D) float32.
        centroids_KD: (K, D) float32, K at least 1.
        norms_K: (K,) float32, their squared norms.
        owner_K: (K,) int64, the model of each centroid, from 0 to M - 1.
        n_models: M.
        candidates_BM: (B, M) bool; by default all models.
        impl: which implementation runs.
    Returns:
        best_BM float32, -inf where a model is no candidate or has no centroid; and nearest_B int64, the lowest index of
        the largest value among the candidates' centroids, 0 where no model is a candidate.
    Raises:
        ValueError: shapes or dtypes other than these.
    Source:
        Lloyd (1982), doi:10.1109/TIT.1982.1056489, assignment step.
    """
    _check(features_BD, centroids_KD, norms_K, owner_K, n_models, candidates_BM)
    if impl == "triton" and n_models > MOST_FUSED_MODELS:
        raise ValueError(f"n_models: expected at most {MOST_FUSED_MODELS} for triton, got {n_models}; use torch")
    if resolve_impl(impl, features_BD) == "triton" and n_models <= MOST_FUSED_MODELS:
        from gpu_select_kernels import centroid_triton

        return centroid_triton.nearest_centroid(features_BD, centroids_KD, norms_K, owner_K, n_models, candidates_BM)
    values_BK = torch.addmm(-norms_K, features_BD, centroids_KD.T, alpha=2.0)
    if candidates_BM is not None:
        values_BK = values_BK.masked_fill(~candidates_BM[:, owner_K], -torch.inf)
    best_BM = values_BK.new_full((features_BD.shape[0], n_models), -torch.inf)
    best_BM = best_BM.scatter_reduce(1, owner_K.expand_as(values_BK), values_BK, "amax")
    return best_BM, values_BK.argmax(dim=1)


def _check(
    features_BD: Tensor,
    centroids_KD: Tensor,
    norms_K: Tensor,
    owner_K: Tensor,
    n_models: int,
    candidates_BM: Tensor | None,
) -> None:
    if centroids_KD.ndim != 2 or centroids_KD.shape[0] < 1 or centroids_KD.dtype != torch.float32:
        raise ValueError(
            f"centroids_KD: expected (K >= 1, D) float32, got {tuple(centroids_KD.shape)} {centroids_KD.dtype}"
        )
    K, D = centroids_KD.shape
    if features_BD.ndim != 2 or features_BD.shape[1] != D or features_BD.dtype != torch.float32:
        raise ValueError(f"features_BD: expected (B, {D}) float32, got {tuple(features_BD.shape)} {features_BD.dtype}")
    if norms_K.shape != (K,) or norms_K.dtype != torch.float32:
        raise ValueError(f"norms_K: expected ({K},) float32, got {tuple(norms_K.shape)} {norms_K.dtype}")
    if owner_K.shape != (K,) or owner_K.dtype != torch.int64:
        raise ValueError(f"owner_K: expected ({K},) int64, got {tuple(owner_K.shape)} {owner_K.dtype}")
    if n_models < 1:
        raise ValueError(f"n_models: expected at least 1, got {n_models}")
    expected = (features_BD.shape[0], n_models)
    if candidates_BM is not None and (candidates_BM.shape != expected or candidates_BM.dtype != torch.bool):
        raise ValueError(
            f"candidates_BM: expected {expected} bool, got {tuple(candidates_BM.shape)} {candidates_BM.dtype}"
        )
