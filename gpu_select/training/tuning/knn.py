"""Cross-validation of KNN settings: neighbours and labels are found once for all numbers of voters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.knn import labels_of, vote_weights
from gpu_select.training.settings import KNNSettings
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData

__all__ = ["knn_choices"]

_BLOCK_ELEMENTS = 1 << 25


def knn_choices(
    data: FoldedData, estimates: Estimates, grid: list[KNNSettings]
) -> Iterator[tuple[KNNSettings, NDArray[np.int64]]]:
    """(Q,) for each setting, the model that a selector without the query's fold would choose."""
    n_models = data.utility_QM.shape[1]
    for weight in sorted({s.domain_weight for s in grid}):
        mine = [s for s in grid if s.domain_weight == weight]
        most = max(s.k for s in mine)
        near_of = [_nearest(estimates.points(weight), *data.rows(fold), most) for fold in range(data.n_folds)]
        for gamma, ridge in sorted({(s.gamma, s.ridge) for s in mine}):
            same = [s for s in mine if (s.gamma, s.ridge) == (gamma, ridge)]
            choices = {s: np.empty(len(data.fold_Q), np.int64) for s in same}
            for fold, near_Hk in enumerate(near_of):
                expected_QM = estimates.held_out(gamma, ridge, fold)
                label_Q, stake_Q = labels_of(expected_QM, estimates.gains[fold].mean_M)
                vote_QM = np.zeros((len(label_Q), n_models))
                vote_QM[np.arange(len(label_Q)), label_Q] = vote_weights(stake_Q)
                sums_HkM = vote_QM[near_Hk].cumsum(axis=1)
                for s in same:
                    choices[s][data.rows(fold)[1]] = sums_HkM[:, min(s.k, near_Hk.shape[1]) - 1].argmax(axis=1)
            yield from choices.items()


def _nearest(
    points_QD: Tensor, learned: NDArray[np.int64], held_out: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """(H, k) the nearest learned queries of each one held out, nearest first."""
    rows_ND = points_QD[torch.from_numpy(learned).to(points_QD.device)]
    norms_N = rows_ND.square().sum(dim=1)
    queries_HD = points_QD[torch.from_numpy(held_out).to(points_QD.device)]
    found = [
        torch.addmm(norms_N, block_hD, rows_ND.T, alpha=-2).topk(min(most, len(rows_ND)), largest=False).indices.cpu()
        for block_hD in torch.split(queries_HD, max(1, _BLOCK_ELEMENTS // len(rows_ND)))
    ]
    return np.asarray(learned[torch.cat(found).numpy()])
