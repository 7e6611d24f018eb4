"""Cross-validation of MLP settings: the networks of all folds are trained at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.training.mlp import MLPSettings, fit_networks
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData

__all__ = ["mlp_choices"]


def mlp_choices(
    data: FoldedData, estimates: Estimates, grid: list[MLPSettings]
) -> Iterator[tuple[MLPSettings, NDArray[np.int64]]]:
    """(Q,) for each setting, the model that a selector without the query's fold would choose."""
    fold_Q = torch.from_numpy(data.fold_Q)
    rows_FQ = fold_Q != torch.arange(data.n_folds)[:, None]
    for settings in grid:
        expected = [estimates.held_out(settings.label_gamma, settings.label_ridge, f) for f in range(data.n_folds)]
        networks = fit_networks(data.features_QD, np.stack(expected), settings, seed=data.seed, rows_PQ=rows_FQ)
        choice_Q = np.empty(len(fold_Q), np.int64)
        for fold, network in enumerate(networks):
            held_out = data.rows(fold)[1]
            features_HD = data.features_QD[torch.from_numpy(held_out).to(data.features_QD.device)]
            choice_Q[held_out] = network.scores(features_HD).argmax(dim=1).cpu().numpy()
        yield settings, choice_Q
