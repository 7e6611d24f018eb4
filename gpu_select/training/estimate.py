"""What each model is expected to gain on a query: regressions over other queries, in place of single noisy outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.domains import N_DOMAINS
from gpu_select.training.utility import SHRINKAGE, Advantages

__all__ = ["Estimate", "Regression"]

_MOST_LANDMARKS = 1024
"""Queries that span a regression; with fewer it is exact. On 5,000 queries of MMLU-Pro more choose no better."""

_JITTER = 1e-4
"""Keeps the kernel of the landmarks invertible, and its root well enough conditioned for float32."""

_BLOCK_ELEMENTS = 1 << 25


@dataclass(frozen=True, eq=False)
class Estimate:
    """Expected gains of all models on every query."""

    fitted_QM: NDArray[np.float64]
    """The query's own outcomes taken into account."""
    held_out_QM: NDArray[np.float64]
    """As if the query's own outcomes were not known, but for the models' means."""

    def plus(self, mean_M: NDArray[np.float64]) -> Estimate:
        """With the models' means added."""
        return Estimate(self.fitted_QM + mean_M, self.held_out_QM + mean_M)


class Regression:
    """Two kernel ridge regressions, one over all queries and one within each domain, and the best mean of the two.

    Within a domain, what is known of a model is pulled from the narrow to the wide: the queries around a query to their
    domain's mean, that to the model's mean. On MMLU-Pro what embeddings tell beyond the domain is local and small (a
    fifth of a percent of the variance), and a kernel that reaches across domains drowns it in noise. Where domains say
    little, or hold few queries each, all queries have to be looked at together. How much each of the two counts is
    chosen by the squared error on queries whose own outcomes are left out.

    Args:
        features_QD: (Q, D) float32 on any device: unit embeddings, and the one-hot, which is not looked at.
        domain_Q: (Q,) the domain of each query, by name: two names may share a slot of the one-hot.
        gamma: of the kernel exp(-gamma ||x - y||^2) between embeddings.
        seed: of the choice of landmarks where there are more than 1,024 queries.

    Source:
        Agarwal et al. (2022), arXiv:2202.00858, hierarchical shrinkage; Breiman (1996), doi:10.1007/BF00117832, stacked
        regressions; Williams and Seeger (2001), Using the Nystroem method to speed up kernel machines, NIPS 13; the
        estimate without a query's own outcome by the leverage formula, e.g. Rifkin and Lippert (2007),
        MIT-CSAIL-TR-2007-025.
    """

    def __init__(self, features_QD: Tensor, domain_Q: NDArray[np.int64], gamma: float, *, seed: int) -> None:
        points_QD = features_QD[:, :-N_DOMAINS]
        domains = np.unique(domain_Q)
        self._together = _Ridge(points_QD, gamma, seed=seed, common=False)
        self._rows = [np.flatnonzero(domain_Q == domain) for domain in domains] if len(domains) > 1 else []
        self._apart = [
            _Ridge(points_QD[torch.from_numpy(rows).to(points_QD.device)], gamma, seed=seed, common=True)
            for rows in self._rows
        ]

    def fit(self, gains: Advantages, ridge: float) -> Estimate:
        """Regress each model's gains on the queries where they are known.

        Args:
            gains: (Q, M), NaN where not known.
            ridge: so many known outcomes on one spot count as much as the belief that it is like its domain.
        """
        return self.fit_each(gains, [ridge])[0]

    def fit_each(self, gains: Advantages, ridges: Sequence[float]) -> list[Estimate]:
        """`fit` for several ridges, which share most of the work."""
        rest_QM = gains.gain_QM - gains.mean_M
        together = self._together.fit_each(rest_QM, ridges)
        if not self._rows:
            return [estimate.plus(gains.mean_M) for estimate in together]
        apart = [Estimate(np.empty_like(rest_QM), np.empty_like(rest_QM)) for _ in ridges]
        for rows, part in zip(self._rows, self._apart, strict=True):
            for whole, estimate in zip(apart, part.fit_each(rest_QM[rows], ridges), strict=True):
                whole.fitted_QM[rows], whole.held_out_QM[rows] = estimate.fitted_QM, estimate.held_out_QM
        return [_stacked(a, t, rest_QM).plus(gains.mean_M) for a, t in zip(apart, together, strict=True)]


def _stacked(one: Estimate, other: Estimate, truth_QM: NDArray[np.float64]) -> Estimate:
    """The mean of two estimates that has the least squared error without a query's own outcomes."""
    between_QM = one.held_out_QM - other.held_out_QM
    error_QM = np.nan_to_num(truth_QM - other.held_out_QM)
    size = float((between_QM[np.isfinite(truth_QM)] ** 2).sum())
    share = min(max(float((between_QM * error_QM).sum()) / size, 0.0), 1.0) if size > 0 else 1.0
    return Estimate(
        share * one.fitted_QM + (1 - share) * other.fitted_QM,
        share * one.held_out_QM + (1 - share) * other.held_out_QM,
    )


class _Ridge:
    """A kernel ridge regression on up to 1,024 landmarks; with `common`, also of what all queries deviate by."""

    def __init__(self, points_QD: Tensor, gamma: float, *, seed: int, common: bool) -> None:
        order_Q = torch.randperm(len(points_QD), generator=torch.Generator().manual_seed(seed))
        self._landmarks_LD = points_QD[order_Q[:_MOST_LANDMARKS].sort().values.to(points_QD.device)]
        self._gamma = gamma
        exact_LD = _float64(self._landmarks_LD)
        gram_LL = (-gamma * torch.cdist(exact_LD, exact_LD, compute_mode="use_mm_for_euclid_dist").square()).exp()
        gram_LL.diagonal().add_(_JITTER)
        self._root_LL = torch.linalg.cholesky(gram_LL).to(points_QD)
        self._map_QL = self._coordinates(points_QD)
        self._prior_L = self._map_QL.new_zeros(self._map_QL.shape[1])
        if common:  # one coordinate more, the same for all queries, and shrunk by as many outcomes whatever the ridge
            self._map_QL = torch.cat([self._map_QL, torch.ones_like(self._map_QL[:, :1])], dim=1)
            self._prior_L = torch.cat([self._prior_L, self._prior_L.new_full((1,), SHRINKAGE)])

    def fit_each(self, targets_QM: NDArray[np.float64], ridges: Sequence[float]) -> list[Estimate]:
        """Of (Q, M) targets, NaN where not known, for each ridge."""
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
                precision_LL.diagonal().add_(torch.where(self._prior_L > 0, self._prior_L, ridge))
                factor_LL = torch.linalg.cholesky(_float64(precision_LL)).to(precision_LL)
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


def _float64(x: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none: in float32 the kernel of equal queries cannot be factorised."""
    return x.cpu().double() if x.device.type == "mps" else x.double()
