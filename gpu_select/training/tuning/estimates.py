"""The regressions that KNN and KMeans lean on, each fitted once for all settings and folds that need it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Regression
from gpu_select.training.points import as_points
from gpu_select.training.tuning.folds import FoldedData
from gpu_select.training.utility import Advantages

__all__ = ["Estimates"]

_Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


class Estimates:
    """Expected gains by domain weight, gamma, ridge and fold.

    Args:
        data: the folds.
        ridges: all that will be asked for: one factorisation of the kernel serves them.
    """

    def __init__(self, data: FoldedData, ridges: Iterable[float]) -> None:
        self._data = data
        self._ridges = tuple(ridges)
        self.gains: list[Advantages] = [data.gains(fold) for fold in range(data.n_folds)]
        self._known: dict[tuple[float, float], dict[tuple[float, int], _Pair]] = {}
        self._points: dict[float, Tensor] = {}

    def points(self, domain_weight: float) -> Tensor:
        """(Q, D) the queries as points."""
        if domain_weight not in self._points:
            self._points[domain_weight] = as_points(self._data.features_QD, domain_weight)
        return self._points[domain_weight]

    def held_out(self, domain_weight: float, gamma: float, ridge: float, fold: int) -> NDArray[np.float64]:
        """(Q, M) expected gains of each query as all others outside the fold tell."""
        return self._fits(domain_weight, gamma)[ridge, fold][0]

    def fitted(self, domain_weight: float, gamma: float, ridge: float, fold: int) -> NDArray[np.float64]:
        """(Q, M) what the regression says of each query beyond the models' means, its own outcomes included."""
        return self._fits(domain_weight, gamma)[ridge, fold][1]

    def _fits(self, domain_weight: float, gamma: float) -> dict[tuple[float, int], _Pair]:
        key = domain_weight, gamma
        if key not in self._known:
            regression = Regression(self.points(domain_weight), gamma, seed=self._data.seed)
            found: dict[tuple[float, int], _Pair] = {}
            for fold, gains in enumerate(self.gains):
                estimates = regression.fit_each(gains.gain_QM - gains.mean_M, self._ridges)
                for ridge, estimate in zip(self._ridges, estimates, strict=True):
                    found[ridge, fold] = gains.mean_M + estimate.held_out_QM, estimate.fitted_QM
            self._known[key] = found
        return self._known[key]
