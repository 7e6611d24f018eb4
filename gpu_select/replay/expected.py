"""What each model is expected to score, take and write on a query, as benchmark records tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.records import OutcomeTable, query_digests
from gpu_select.replay.outcomes import mean_interval
from gpu_select.training.estimate import Estimate, Predictor, Regression
from gpu_select.training.utility import Advantages, centred

__all__ = ["Expected", "ExpectedOutcomes", "SelfCheck"]

_GAMMA = 1.0
"""Width of the kernel. On MMLU-Pro 0.5 to 2 foretell equally well, each with its own ridge."""

_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class SelfCheck:
    """Expectations against outcomes, on records whose own outcomes they do not know."""

    queries: int
    expected: float
    """Mean expected quality of the models with the largest expected quality."""
    realised: float
    """What these models really scored."""
    ci95: tuple[float, float]
    """Of realised - expected."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Of B queries and M models, float32; NaN for a model of which the records do not tell."""

    quality_BM: Tensor
    time_s_BM: Tensor
    output_tokens_BM: Tensor
    cost_usd_BM: Tensor
    """By the costs that the records name, not by tokens."""
    n_seen: int
    """Queries that are among the records."""


class ExpectedOutcomes:
    """Regressions over benchmark records, which speak of any query.

    A selector's score orders models and says nothing of how good they are. Expected quality is what the regression
    that selectors are trained by says: how much any model scores on such a query, plus what this model gains there over
    the average one, each pulled from the queries around it to the domain's mean and the overall mean, as strongly as
    foretells queries best whose own outcomes are left out. A query that is among the records is estimated without its
    own outcomes, because selectors were trained on just these. Response times, output tokens and costs are estimated
    the same way, each model around its own mean.

    An expectation is a mean over queries alike: it says what many queries score together, not what one of them will.

    Args:
        features_QD: (Q, D) float32 on any device, row q for the table's query q.
        table: Q queries x M models.
        seed: of the choice of landmarks where there are more than 1,024 queries.
    """

    def __init__(self, features_QD: Tensor, table: OutcomeTable, *, seed: int = 0) -> None:
        self.models = tuple(table.models)
        self.check: SelfCheck
        names = sorted(set(table.domains))
        self._domains = {name: number for number, name in enumerate(names)}
        self._device = features_QD.device
        digests_Q = query_digests(table.queries)
        self._order_Q = np.argsort(digests_Q, kind="stable")
        self._digests_Q = digests_Q[self._order_Q]

        regression = Regression(features_QD, table.domain_groups(), _GAMMA, seed=seed)
        gains = centred(table.quality_QM)
        level_Q1 = np.nanmean(table.quality_QM - gains.gain_QM, axis=1, keepdims=True)
        self._gain = _Learned(regression, gains, self._device)
        self._level = _Learned(regression, Advantages(level_Q1, level_Q1.mean(axis=0)), self._device)
        self._time = _around_means(regression, table.latency_s_QM, self._device)
        self._output_tokens = _around_means(regression, table.output_tokens_QM, self._device)
        self._cost = _around_means(regression, table.cost_usd_QM, self._device)
        self.check = self._checked(table.quality_QM)

    def of(self, features_BD: Tensor, domains: Sequence[str], digests_B: NDArray[np.uint64]) -> Expected:
        """Expectations for other queries, or for the same.

        Args:
            features_BD: (B, D) float32 on the device of the records' features.
            domains: B names; one that no record has is estimated by all records together.
            digests_B: (B,) `records.query_digests` of the queries.
        """
        domain_B = np.array([self._domains.get(name, -1) for name in domains], dtype=np.int64)
        at = np.minimum(np.searchsorted(self._digests_Q, digests_B), len(self._digests_Q) - 1)
        seen = np.flatnonzero(self._digests_Q[at] == digests_B)
        record = torch.from_numpy(self._order_Q[at[seen]]).to(self._device)
        seen_R = torch.from_numpy(seen).to(self._device)

        def told(learned: _Learned | None) -> Tensor:
            if learned is None:
                return features_BD.new_full((len(domains), len(self.models)), torch.nan)
            values_BM = learned.predictor(features_BD, domain_B)
            values_BM[seen_R] = learned.held_out_QM[record]
            return values_BM.clamp(learned.least_M, learned.most_M)

        return Expected(
            quality_BM=(told(self._gain) + told(self._level)).clamp(0, 1),
            time_s_BM=told(self._time),
            output_tokens_BM=told(self._output_tokens),
            cost_usd_BM=told(self._cost),
            n_seen=len(seen),
        )

    def _checked(self, quality_QM: NDArray[np.float64]) -> SelfCheck:
        expected_QM = (self._gain.held_out_QM + self._level.held_out_QM).clamp(0, 1).cpu().numpy().astype(np.float64)
        known_QM = np.isfinite(quality_QM)
        choice_Q = np.where(known_QM, expected_QM, -np.inf).argmax(axis=1)
        rows = np.arange(len(choice_Q))
        expected_Q, realised_Q = expected_QM[rows, choice_Q], quality_QM[rows, choice_Q]
        return SelfCheck(
            queries=len(rows),
            expected=float(expected_Q.mean()),
            realised=float(realised_Q.mean()),
            ci95=mean_interval(realised_Q - expected_Q, rows),
        )


class _Learned:
    """One quantity: what is held out of the records, and what is said of other queries."""

    def __init__(self, regression: Regression, values: Advantages, device: torch.device) -> None:
        estimate: Estimate
        self.predictor: Predictor
        estimate, self.predictor = regression.learn(values, _RIDGES)
        self.held_out_QM = torch.from_numpy(estimate.held_out_QM).to(device, torch.float32)
        known_QM = np.isfinite(values.gain_QM)
        # no mean of outcomes lies beyond all of them
        self.least_M = _bounds(np.where(known_QM, values.gain_QM, np.inf).min(axis=0), device)
        self.most_M = _bounds(np.where(known_QM, values.gain_QM, -np.inf).max(axis=0), device)


def _bounds(values_M: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values_M).to(device, torch.float32)


def _around_means(
    regression: Regression, values_QM: NDArray[np.float64] | None, device: torch.device
) -> _Learned | None:
    """Seconds, tokens or USD; None where nothing is known."""
    if values_QM is None or not np.isfinite(values_QM).any():
        return None
    known_QM = np.isfinite(values_QM)
    counts_M = known_QM.sum(axis=0)
    means_M = np.where(known_QM, values_QM, 0).sum(axis=0) / np.maximum(counts_M, 1)
    return _Learned(regression, Advantages(values_QM, np.where(counts_M > 0, means_M, np.nan)), device)
