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
from gpu_select.training.estimate import Predictor, Regression
from gpu_select.training.utility import Advantages, centred

__all__ = ["Expected", "ExpectedOutcomes", "SelfCheck"]

_GAMMA = 1.0
"""Width of the kernel. On MMLU-Pro 0.5 to 2 foretell equally well, each with its own ridge."""

_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

_AROUND_MEANS = ("latency_s", "output_tokens", "cost_usd")
"""What is estimated around each model's own mean, by the names that the table of outcomes has."""


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
        names = sorted(set(table.domains))
        self._domains = {name: number for number, name in enumerate(names)}
        self._device = features_QD.device
        digests_Q = query_digests(table.queries)
        self._order_Q = np.argsort(digests_Q, kind="stable")
        self._digests_Q = digests_Q[self._order_Q]

        regression = Regression(features_QD, table.domain_groups(), _GAMMA, seed=seed)
        gains = centred(table.quality_QM)
        level_Q1 = np.nanmean(table.quality_QM - gains.gain_QM, axis=1, keepdims=True)
        learned = {
            "gain": _Learned(regression, gains),
            "level": _Learned(regression, Advantages(level_Q1, level_Q1.mean(axis=0))),
        }
        for name in _AROUND_MEANS:
            values_QM = getattr(table, f"{name}_QM")
            if values_QM is not None and np.isfinite(values_QM).any():
                learned[name] = _Learned(regression, _around_means(values_QM))
        self._predictor = Predictor.joined([part.predictor for part in learned.values()])
        self._widths = {name: len(part.least_M) for name, part in learned.items()}
        self._held_out_QC, self._least_C, self._most_C = (
            torch.from_numpy(np.concatenate(arrays, axis=-1).astype(np.float32)).to(self._device)
            for arrays in zip(*((p.held_out_QM, p.least_M, p.most_M) for p in learned.values()), strict=True)
        )
        self.check = _checked(table.quality_QM, learned["gain"].held_out_QM + learned["level"].held_out_QM)

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

        values_BC = self._predictor(features_BD, domain_B)
        values_BC[seen_R] = self._held_out_QC[record]
        values_BC = values_BC.clamp(self._least_C, self._most_C)
        told = dict(zip(self._widths, torch.split(values_BC, list(self._widths.values()), dim=1), strict=True))
        nothing_BM = features_BD.new_full((len(domains), len(self.models)), torch.nan)
        return Expected(
            quality_BM=(told["gain"] + told["level"]).clamp(0, 1),
            time_s_BM=told.get("latency_s", nothing_BM),
            output_tokens_BM=told.get("output_tokens", nothing_BM),
            cost_usd_BM=told.get("cost_usd", nothing_BM),
            n_seen=len(seen),
        )


def _checked(quality_QM: NDArray[np.float64], held_out_QM: NDArray[np.float64]) -> SelfCheck:
    """On the models that answered."""
    expected_QM = held_out_QM.clip(0, 1)
    choice_Q = np.where(np.isfinite(quality_QM), expected_QM, -np.inf).argmax(axis=1)
    rows = np.arange(len(choice_Q))
    expected_Q, realised_Q = expected_QM[rows, choice_Q], quality_QM[rows, choice_Q]
    return SelfCheck(
        queries=len(rows),
        expected=float(expected_Q.mean()),
        realised=float(realised_Q.mean()),
        ci95=mean_interval(realised_Q - expected_Q, rows),
    )


class _Learned:
    """One quantity: what is held out of the records, what is said of other queries, and the bounds of both."""

    def __init__(self, regression: Regression, values: Advantages) -> None:
        estimate, self.predictor = regression.learn(values, _RIDGES)
        self.held_out_QM = estimate.held_out_QM
        known_QM = np.isfinite(values.gain_QM)
        # no mean of outcomes lies beyond all of them
        self.least_M = np.where(known_QM, values.gain_QM, np.inf).min(axis=0)
        self.most_M = np.where(known_QM, values.gain_QM, -np.inf).max(axis=0)


def _around_means(values_QM: NDArray[np.float64]) -> Advantages:
    """Seconds, tokens or USD: what each model needs more or less than its own mean."""
    known_QM = np.isfinite(values_QM)
    counts_M = known_QM.sum(axis=0)
    means_M = np.where(known_QM, values_QM, 0).sum(axis=0) / np.maximum(counts_M, 1)
    return Advantages(values_QM, np.where(counts_M > 0, means_M, np.nan))
