"""Cross-validation of SVM settings: all folds, models and bounds are solved at once over one kernel matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.training.settings import SVMSettings
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.svm import problems, unit_points
from gpu_select.training.tuning.folds import FoldedData

__all__ = ["svm_choices"]

_TOLERANCE = 1e-2
"""Of the optimality conditions. On real outcomes the choices differ from those at 1e-4 on few queries in a thousand."""


def svm_choices(data: FoldedData, grid: list[SVMSettings]) -> Iterator[tuple[SVMSettings, NDArray[np.int64]]]:
    """(Q,) for each setting, the model that a selector without the query's fold would choose."""
    n_models = data.utility_QM.shape[1]
    for kernel_name, weight, gamma in sorted({(s.kernel, s.domain_weight, s.gamma) for s in grid}):
        mine = [s for s in grid if (s.kernel, s.domain_weight, s.gamma) == (kernel_name, weight, gamma)]
        points_QD = unit_points(data.features_QD, weight)
        kernel = Kernel(points_QD, gamma if kernel_name == "rbf" else None)
        folds = [problems(data.without(fold), points_QD) for fold in range(data.n_folds)]
        sign_PQ = torch.cat([fold.sign_MQ for _ in mine for fold in folds])
        cost_PQ = torch.cat([s.c * fold.weight_MQ for s in mine for fold in folds])
        beta_PQ, rho_P = solve(kernel, sign_PQ, cost_PQ, tolerance=_TOLERANCE)
        value_PQ = (kernel.product(beta_PQ) - rho_P[:, None]).cpu().double()
        value_SFMQ = value_PQ.view(len(mine), len(folds), n_models, -1)
        best_SFQ = np.stack(
            [
                [
                    fold.comparable(value_MQ).argmax(dim=0).numpy()
                    for fold, value_MQ in zip(folds, value_FMQ, strict=True)
                ]
                for value_FMQ in value_SFMQ
            ]
        )
        for s, best_FQ in zip(mine, best_SFQ, strict=True):
            yield s, best_FQ[data.fold_Q, np.arange(best_FQ.shape[1])]
