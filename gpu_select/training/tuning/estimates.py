"""The regressions that selectors learn from, each fitted once for all settings and folds that need it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Estimate, Regression
from gpu_select.training.points import as_points
from gpu_select.training.tuning.folds import FoldedData
from gpu_select.training.utility import Advantages

__all__ = ["Estimates"]


class Estimates:
    """Expected gains by gamma, ridge and fold.

    Args:
        data: the folds.
        ridges: all that will be asked for: one factorisation of the kernel serves them.
    """

    def __init__(self, data: FoldedData, ridges: Iterable[float]) -> None:
        self._data = data
        self._ridges = tuple(ridges)
        self.gains: list[Advantages] = [data.gains(fold) for fold in range(data.n_folds)]
        self._known: dict[float, dict[tuple[float, int], Estimate]] = {}
        self._points: dict[float, Tensor] = {}

    def points(self, domain_weight: float) -> Tensor:
        """(Q, D) the queries as points."""
        if domain_weight not in self._points:
            self._points[domain_weight] = as_points(self._data.features_QD, domain_weight)
        return self._points[domain_weight]

    def held_out(self, gamma: float, ridge: float, fold: int) -> NDArray[np.float64]:
        """(Q, M) expected gains of each query as all others outside the fold tell."""
        return self._fits(gamma)[ridge, fold].held_out_QM

    def fitted(self, gamma: float, ridge: float, fold: int) -> NDArray[np.float64]:
        """(Q, M) expected gains of each query, its own outcomes included unless it is in the fold."""
        return self._fits(gamma)[ridge, fold].fitted_QM

    def _fits(self, gamma: float) -> dict[tuple[float, int], Estimate]:
        if gamma not in self._known:
            data = self._data
            regression = Regression(data.features_QD, data.domain_Q, gamma, seed=data.seed)
            self._known[gamma] = {
                (ridge, fold): estimate
                for fold, gains in enumerate(self.gains)
                for ridge, estimate in zip(self._ridges, regression.fit_each(gains, self._ridges), strict=True)
            }
        return self._known[gamma]
