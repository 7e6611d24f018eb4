"""Cross-validation of SVM settings: all folds, models and bounds are solved at once over one kernel matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.training.settings import SVMSettings
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.svm import problems, unit_points
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData

__all__ = ["svm_choices"]

_TOLERANCE = 1e-2
"""Of the optimality conditions. On real outcomes the choices differ from those at 1e-4 on few queries in a thousand."""


def svm_choices(
    data: FoldedData, estimates: Estimates, grid: list[SVMSettings]
) -> Iterator[tuple[SVMSettings, NDArray[np.int64]]]:
    """(Q,) for each setting, the model that a selector without the query's fold would choose."""
    n_models, n_folds = data.utility_QM.shape[1], data.n_folds
    for kernel_name, weight, gamma in sorted({(s.kernel, s.domain_weight, s.gamma) for s in grid}):
        mine = [s for s in grid if (s.kernel, s.domain_weight, s.gamma) == (kernel_name, weight, gamma)]
        points_QD = unit_points(data.features_QD, weight)
        kernel = Kernel(points_QD, gamma if kernel_name == "rbf" else None)
        # settings that learn from the same regression are solved together
        for labels in sorted({(s.label_gamma, s.label_ridge) for s in mine}):
            same = [s for s in mine if (s.label_gamma, s.label_ridge) == labels]
            expected = [estimates.held_out(*labels, fold) for fold in range(n_folds)]
            todo = [
                problems(np.where((data.fold_Q == fold)[:, None], np.nan, expected_QM), points_QD)
                for fold, expected_QM in enumerate(expected)
            ]
            sign_PQ = torch.cat([sign_MQ for _ in same for sign_MQ, _ in todo])
            cost_PQ = torch.cat([s.c * weight_MQ for s in same for _, weight_MQ in todo])
            beta_PQ, rho_P = solve(kernel, sign_PQ, cost_PQ, tolerance=_TOLERANCE)
            value_PQ = kernel.product(beta_PQ) - rho_P[:, None]
            best_SFQ = value_PQ.view(len(same), n_folds, n_models, -1).argmax(dim=2).cpu().numpy()
            for s, best_FQ in zip(same, best_SFQ, strict=True):
                yield s, best_FQ[data.fold_Q, np.arange(best_FQ.shape[1])]
