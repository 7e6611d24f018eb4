"""What each model is expected to gain on a query: a regression over all queries, in place of single noisy outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Estimate", "Regression"]

_MOST_LANDMARKS = 1024
"""Queries that span the regression. With 4,000 queries of MMLU-Pro, 1,024 choose as well as all of them."""

_JITTER = 1e-4
"""Keeps the kernel of the landmarks invertible in float32; hundreds of times smaller than any ridge."""

_BLOCK_ELEMENTS = 1 << 25


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a regression says of every query."""

    fitted_QM: NDArray[np.float64]
    """The query's own outcomes taken into account."""
    held_out_QM: NDArray[np.float64]
    """As if the query's own outcomes were not known."""


class Regression:
    """Kernel ridge regression on up to 1,024 landmarks.

    Args:
        points_QD: (Q, D) float32 on any device.
        gamma: of the kernel exp(-gamma ||x - y||^2).
        seed: of the choice of landmarks.

    Source:
        Williams and Seeger (2001), Using the Nystroem method to speed up kernel machines, NIPS 13; the estimate without
        a query's own outcome by the leverage formula, e.g. Rifkin and Lippert (2007), MIT-CSAIL-TR-2007-025.
    """

    def __init__(self, points_QD: Tensor, gamma: float, *, seed: int) -> None:
        order_Q = torch.randperm(len(points_QD), generator=torch.Generator().manual_seed(seed))
        self._landmarks_LD = points_QD[order_Q[:_MOST_LANDMARKS].sort().values.to(points_QD.device)]
        self._gamma = gamma
        gram_LL = self._kernel(self._landmarks_LD)
        gram_LL.diagonal().add_(_JITTER)
        self._root_LL = torch.linalg.cholesky(gram_LL)
        self._map_QL = self._coordinates(points_QD)

    def fit(self, targets_QM: NDArray[np.float64], ridge: float) -> Estimate:
        """Regress each column on the queries where it is known.

        Args:
            targets_QM: (Q, M), NaN where not known; shrunk towards 0.
            ridge: so many known queries of one spot count as much as the belief that the target is 0 there.
        """
        return self.fit_each(targets_QM, [ridge])[0]

    def fit_each(self, targets_QM: NDArray[np.float64], ridges: Sequence[float]) -> list[Estimate]:
        """`fit` for several ridges, which share most of the work."""
        out = [Estimate(np.empty_like(targets_QM), np.empty_like(targets_QM)) for _ in ridges]
        patterns_GQ, pattern_M = np.unique(np.isfinite(targets_QM).T, axis=0, return_inverse=True)
        for g, known_Q in enumerate(patterns_GQ):  # columns with the same holes share their factorisations
            columns = np.flatnonzero(pattern_M.reshape(-1) == g)
            known = torch.from_numpy(np.flatnonzero(known_Q)).to(self._map_QL.device)
            target_KM = torch.from_numpy(targets_QM[known_Q][:, columns]).to(self._map_QL)
            map_KL = self._map_QL if len(known) == len(self._map_QL) else self._map_QL[known]
            products_LL, right_LM = map_KL.T @ map_KL, map_KL.T @ target_KM
            for ridge, estimate in zip(ridges, out, strict=True):
                precision_LL = products_LL.clone()
                precision_LL.diagonal().add_(ridge)
                factor_LL = torch.linalg.cholesky(precision_LL)
                fitted_QM = self._map_QL @ torch.cholesky_solve(right_LM, factor_LL)
                # leverage: how much an outcome counts in the estimate of its own query
                leverage_K = torch.linalg.solve_triangular(factor_LL, map_KL.T, upper=False).square().sum(dim=0)
                rest_KM = (fitted_QM[known] - leverage_K[:, None] * target_KM) / (1 - leverage_K[:, None])
                estimate.fitted_QM[:, columns] = estimate.held_out_QM[:, columns] = fitted_QM.cpu().numpy()
                estimate.held_out_QM[np.ix_(known_Q, columns)] = rest_KM.cpu().numpy()
        return out

    def _coordinates(self, points_QD: Tensor) -> Tensor:
        """(Q, L) coordinates in which the kernel is a dot product."""
        blocks = torch.split(points_QD, max(1, _BLOCK_ELEMENTS // len(self._landmarks_LD)))
        solved = [torch.linalg.solve_triangular(self._root_LL, self._kernel(b).T, upper=False).T for b in blocks]
        return torch.cat(solved).contiguous()

    def _kernel(self, points_BD: Tensor) -> Tensor:
        marks_LD = self._landmarks_LD
        distances_BL = torch.addmm(marks_LD.square().sum(dim=1), points_BD, marks_LD.T, alpha=-2)
        distances_BL += points_BD.square().sum(dim=1, keepdim=True)
        return distances_BL.clamp_(min=0).mul_(-self._gamma).exp_()
