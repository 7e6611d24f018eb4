"""What each model is expected to gain on a query: regressions over other queries, in place of single noisy outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.domains import N_DOMAINS
from gpu_select.training.utility import SHRINKAGE, Advantages

__all__ = ["Estimate", "Predictor", "Regression"]

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

    def mixed(self, other: Estimate, share: float) -> Estimate:
        """So much of this one, the rest of the other one."""
        return Estimate(
            share * self.fitted_QM + (1 - share) * other.fitted_QM,
            share * self.held_out_QM + (1 - share) * other.held_out_QM,
        )

    def plus(self, mean_M: NDArray[np.float64]) -> Estimate:
        """With the models' means added."""
        return Estimate(self.fitted_QM + mean_M, self.held_out_QM + mean_M)


class Predictor:
    """What a regression says of queries other than those that it was fitted to."""

    def __init__(self, together: _Weights, apart: Mapping[int, _Weights], share_M: Tensor, mean_M: Tensor) -> None:
        self._together = together
        self._apart = apart
        self._share_M = share_M
        self._mean_M = mean_M

    @classmethod
    def joined(cls, predictors: Sequence[Predictor]) -> Predictor:
        """What several of one regression say, side by side, for the work of one."""
        return cls(
            _Weights.joined([p._together for p in predictors]),
            {domain: _Weights.joined([p._apart[domain] for p in predictors]) for domain in predictors[0]._apart},
            torch.cat([p._share_M for p in predictors]),
            torch.cat([p._mean_M for p in predictors]),
        )

    def __call__(self, features_BD: Tensor, domain_B: NDArray[np.int64]) -> Tensor:
        """Expected gains, the models' means included.

        Args:
            features_BD: (B, D) float32, as the regression had them, on its device.
            domain_B: (B,) numbers of domains, as the regression had them; one that it never saw, such as -1, is
                estimated by all queries together.

        Returns:
            (B, M) float32 on the same device.
        """
        points_BD = features_BD[:, :-N_DOMAINS]
        out_BM = self._together.at(points_BD)
        for domain in np.unique(domain_B).tolist():
            if domain in self._apart:
                rows = torch.from_numpy(np.flatnonzero(domain_B == domain)).to(out_BM.device)
                within_RM = self._apart[domain].at(points_BD[rows])
                out_BM[rows] = torch.lerp(out_BM[rows], within_RM, self._share_M)
        return out_BM + self._mean_M


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
        self._domains: list[int] = domains.tolist() if len(domains) > 1 else []
        self._together = _Ridge(points_QD, gamma, seed=seed, common=False)
        self._rows = [np.flatnonzero(domain_Q == domain) for domain in self._domains]
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
        return [solution.estimate.plus(gains.mean_M) for solution in self._solve(gains, ridges)]

    def learn(self, gains: Advantages, ridges: Sequence[float]) -> tuple[Estimate, Predictor]:
        """`fit` with the ridge that has the least squared error without a query's own outcomes.

        Args:
            gains: (Q, M), NaN where not known.
            ridges: to choose from.

        Returns:
            The estimate, and what says the same of other queries.
        """
        rest_QM = gains.gain_QM - gains.mean_M
        solutions = self._solve(gains, ridges)
        best = min(solutions, key=lambda found: float(np.nansum((rest_QM - found.estimate.held_out_QM) ** 2)))
        mean_M = torch.from_numpy(gains.mean_M).to(best.together.coefficients_LM)
        predictor = Predictor(
            self._together.weights(best.together),
            {d: part.weights(fit) for d, part, fit in zip(self._domains, self._apart, best.apart, strict=True)},
            torch.full_like(mean_M, best.share),
            mean_M,
        )
        return best.estimate.plus(gains.mean_M), predictor

    def _solve(self, gains: Advantages, ridges: Sequence[float]) -> list[_Solution]:
        """Without the models' means."""
        rest_QM = gains.gain_QM - gains.mean_M
        together = self._together.fit_each(rest_QM, ridges)
        if not self._rows:
            return [_Solution(fit.estimate, fit, [], 0.0) for fit in together]
        parts = [part.fit_each(rest_QM[rows], ridges) for rows, part in zip(self._rows, self._apart, strict=True)]
        out = []
        for fit, apart in zip(together, zip(*parts, strict=True), strict=True):
            within = Estimate(np.empty_like(rest_QM), np.empty_like(rest_QM))
            for rows, part in zip(self._rows, apart, strict=True):
                within.fitted_QM[rows] = part.estimate.fitted_QM
                within.held_out_QM[rows] = part.estimate.held_out_QM
            share = _best_share(within.held_out_QM, fit.estimate.held_out_QM, rest_QM)
            out.append(_Solution(within.mixed(fit.estimate, share), fit, apart, share))
        return out


def _best_share(one_QM: NDArray[np.float64], other_QM: NDArray[np.float64], truth_QM: NDArray[np.float64]) -> float:
    """How much of the first estimate, and not of the other, gives the least squared error."""
    between_QM = one_QM - other_QM
    error_QM = np.nan_to_num(truth_QM - other_QM)
    size = float((between_QM[np.isfinite(truth_QM)] ** 2).sum())
    return min(max(float((between_QM * error_QM).sum()) / size, 0.0), 1.0) if size > 0 else 1.0


@dataclass(frozen=True, eq=False)
class _Fit:
    """One ridge regression, solved."""

    estimate: Estimate
    coefficients_LM: Tensor


@dataclass(frozen=True, eq=False)
class _Solution:
    """Both regressions, and their mean."""

    estimate: Estimate
    together: _Fit
    apart: Sequence[_Fit]
    """By domain; none where there is one domain only."""
    share: float
    """How much the estimate within the domain counts."""


@dataclass(frozen=True, eq=False)
class _Weights:
    """A ridge regression as weights of its landmarks."""

    landmarks_LD: Tensor
    gamma: float
    weight_LM: Tensor
    common_M: Tensor

    @classmethod
    def joined(cls, weights: Sequence[_Weights]) -> _Weights:
        """Several on the same landmarks, side by side."""
        return cls(
            weights[0].landmarks_LD,
            weights[0].gamma,
            torch.cat([w.weight_LM for w in weights], dim=1),
            torch.cat([w.common_M for w in weights]),
        )

    def at(self, points_BD: Tensor) -> Tensor:
        """(B, M) what it says of other points."""
        blocks = torch.split(points_BD, max(1, _BLOCK_ELEMENTS // len(self.landmarks_LD)))
        return torch.cat([_kernel(b, self.landmarks_LD, self.gamma) @ self.weight_LM for b in blocks]) + self.common_M


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

    def fit_each(self, targets_QM: NDArray[np.float64], ridges: Sequence[float]) -> list[_Fit]:
        """Of (Q, M) targets, NaN where not known, for each ridge."""
        size = self._map_QL.shape[1], targets_QM.shape[1]
        out = [
            _Fit(Estimate(np.empty_like(targets_QM), np.empty_like(targets_QM)), self._map_QL.new_empty(size))
            for _ in ridges
        ]
        patterns_GQ, pattern_M = np.unique(np.isfinite(targets_QM).T, axis=0, return_inverse=True)
        for g, known_Q in enumerate(patterns_GQ):  # columns with the same holes share their factorisations
            columns = np.flatnonzero(pattern_M.reshape(-1) == g)
            known = torch.from_numpy(np.flatnonzero(known_Q)).to(self._map_QL.device)
            target_KM = torch.from_numpy(targets_QM[known_Q][:, columns]).to(self._map_QL)
            map_KL = self._map_QL if len(known) == len(self._map_QL) else self._map_QL[known]
            products_LL, right_LM = map_KL.T @ map_KL, map_KL.T @ target_KM
            for ridge, fit in zip(ridges, out, strict=True):
                precision_LL = products_LL.clone()
                precision_LL.diagonal().add_(torch.where(self._prior_L > 0, self._prior_L, ridge))
                factor_LL = torch.linalg.cholesky(_float64(precision_LL)).to(precision_LL)
                solved_LM = torch.cholesky_solve(right_LM, factor_LL)
                fitted_QM = self._map_QL @ solved_LM
                # leverage: how much an outcome counts in the estimate of its own query
                leverage_K = torch.linalg.solve_triangular(factor_LL, map_KL.T, upper=False).square().sum(dim=0)
                rest_KM = (fitted_QM[known] - leverage_K[:, None] * target_KM) / (1 - leverage_K[:, None])
                estimate = fit.estimate
                estimate.fitted_QM[:, columns] = estimate.held_out_QM[:, columns] = fitted_QM.cpu().numpy()
                estimate.held_out_QM[np.ix_(known_Q, columns)] = rest_KM.cpu().numpy()
                fit.coefficients_LM[:, torch.from_numpy(columns).to(solved_LM.device)] = solved_LM
        return out

    def weights(self, fit: _Fit) -> _Weights:
        """The same regression for points that it was not fitted to."""
        n_landmarks = len(self._landmarks_LD)
        coefficients_LM = _float64(fit.coefficients_LM[:n_landmarks])
        weight_LM = torch.linalg.solve_triangular(_float64(self._root_LL).T, coefficients_LM, upper=True)
        common_M = fit.coefficients_LM[n_landmarks:].sum(dim=0)  # of one row or none
        return _Weights(self._landmarks_LD, self._gamma, weight_LM.to(fit.coefficients_LM), common_M)

    def _coordinates(self, points_QD: Tensor) -> Tensor:
        """(Q, L) coordinates in which the kernel is a dot product."""
        blocks = torch.split(points_QD, max(1, _BLOCK_ELEMENTS // len(self._landmarks_LD)))
        kernels = (_kernel(b, self._landmarks_LD, self._gamma) for b in blocks)
        solved = [torch.linalg.solve_triangular(self._root_LL, kernel_BL.T, upper=False).T for kernel_BL in kernels]
        return torch.cat(solved).contiguous()


def _kernel(points_BD: Tensor, landmarks_LD: Tensor, gamma: float) -> Tensor:
    distances_BL = torch.addmm(landmarks_LD.square().sum(dim=1), points_BD, landmarks_LD.T, alpha=-2)
    distances_BL += points_BD.square().sum(dim=1, keepdim=True)
    return distances_BL.clamp_(min=0).mul_(-gamma).exp_()


def _float64(x: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none: in float32 the kernel of equal queries cannot be factorised."""
    return x.cpu().double() if x.device.type == "mps" else x.double()
