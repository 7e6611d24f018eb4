"""Utility: what an outcome is worth, quality against speed, and what it is expected to be worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable

__all__ = [
    "SHRINKAGE",
    "Advantages",
    "best_model",
    "centred",
    "domain_models",
    "group_sums",
    "speed_scale",
    "utilities",
]

SHRINKAGE = 24.0
"""Outcomes that the wider group's estimate counts for where a narrower group is estimated."""


@dataclass(frozen=True, eq=False)
class Advantages:
    """What choosing a model gains over the average model on the same query."""

    gain_QM: NDArray[np.float64]
    """NaN where there is no outcome."""
    mean_M: NDArray[np.float64]
    """A model's mean gain, shrunk."""

    def of(self, rows: NDArray[np.int64]) -> Advantages:
        """Those of some queries."""
        return Advantages(self.gain_QM[rows], self.mean_M)

    def of_groups(
        self, group_Q: NDArray[np.int64], prior_GM: NDArray[np.float64], shrinkage: float = SHRINKAGE
    ) -> NDArray[np.float64]:
        """(G, M) expected gains in groups of queries: means of outcomes, pulled to what is believed without them.

        Args:
            group_Q: (Q,) the group of each query.
            prior_GM: (G, M), the belief.
            shrinkage: outcomes that the belief counts for, > 0.
        """
        sum_GM = group_sums(np.nan_to_num(self.gain_QM), group_Q, len(prior_GM))
        count_GM = group_sums(np.isfinite(self.gain_QM), group_Q, len(prior_GM))
        return np.asarray((sum_GM + shrinkage * prior_GM) / (count_GM + shrinkage))


def group_sums(values_QM: NDArray[Any], group_Q: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """(G, M) sums over the queries of each group."""
    return np.stack([np.bincount(group_Q, values_M, n_groups) for values_M in values_QM.T], axis=1)


def utilities(table: OutcomeTable, quality_weight: float) -> NDArray[np.float64]:
    """w * performance + (1 - w) * speed for every outcome.

    speed = 1 - (response_time - min) / (max - min), with minimum and maximum over all outcomes of the table, as
    production routers scale the latencies of a KNN file; 1 where all times are equal or none is known. An outcome
    without a time has its model's mean speed. The scale is one and the same for all queries, so the model with the
    largest expected utility trades mean quality against mean latency at a fixed rate.

    Args:
        table: Q queries x M models.
        quality_weight: w in [0, 1].

    Returns:
        (Q, M) float64 in [0, 1]; NaN where there is no outcome.

    Raises:
        ConfigError: w lies outside [0, 1].
    """
    if not 0 <= quality_weight <= 1:
        raise ConfigError("quality-weight", quality_weight, "a number in [0, 1]")
    latency_QM = table.latency_s_QM
    speed_QM = np.ones_like(latency_QM)
    timed_QM = np.isfinite(latency_QM)
    scale = speed_scale(table)
    if scale is not None:
        speed_QM = 1 - (latency_QM - scale[0]) / (scale[1] - scale[0])
        overall = float(speed_QM[timed_QM].mean())
        counts_M = timed_QM.sum(axis=0)
        means_M = np.where(counts_M > 0, np.nansum(speed_QM, axis=0) / np.maximum(counts_M, 1), overall)
        speed_QM = np.where(timed_QM, speed_QM, means_M)
    utility_QM: NDArray[np.float64] = quality_weight * table.quality_QM + (1 - quality_weight) * speed_QM
    return utility_QM


def speed_scale(table: OutcomeTable) -> tuple[float, float] | None:
    """Seconds at which speed is 1 and 0: the smallest and largest response time; None where no two differ."""
    times = table.latency_s_QM[np.isfinite(table.latency_s_QM)]
    return (float(times.min()), float(times.max())) if len(times) and times.min() < times.max() else None


def centred(utility_QM: NDArray[np.float64]) -> Advantages:
    """Split utilities into what a query gives any model, what a model gains on average, and the rest.

    Models that answered other queries cannot be compared by their means: one may have had the easy ones. So
    utility = query + model + rest is fitted to what is known. A model's mean gain is shrunk towards 0, the average
    model, as if it had 24 more outcomes there: thirty lucky answers do not make the best model.

    Args:
        utility_QM: (Q, M), NaN where there is no outcome.

    Source:
        Tukey (1977), Exploratory data analysis, two-way fits; the weight of 24 from hierarchical shrinkage, Agarwal et
        al. (2022), arXiv:2202.00858.
    """
    known_QM = np.isfinite(utility_QM)
    filled_QM = np.where(known_QM, utility_QM, 0.0)
    answers_Q, queries_M = np.maximum(known_QM.sum(axis=1), 1), known_QM.sum(axis=0)
    # the queries' parts are eliminated: left are as many equations as there are models
    deviation_QM = filled_QM - known_QM * (filled_QM.sum(axis=1) / answers_Q)[:, None]
    normal_MM = np.diag(queries_M + SHRINKAGE) - (known_QM / answers_Q[:, None]).T @ known_QM
    solved_M = np.linalg.solve(normal_MM, deviation_QM.sum(axis=0))
    query_Q = (filled_QM - known_QM * solved_M).sum(axis=1) / answers_Q
    # the same once more, model by model: those of the same outcomes tie to the last bit
    mean_M = (filled_QM - known_QM * query_Q[:, None]).sum(axis=0) / (queries_M + SHRINKAGE)
    return Advantages(np.where(known_QM, utility_QM - query_Q[:, None], np.nan), mean_M)


def best_model(expected_GM: NDArray[np.float64], mean_M: NDArray[np.float64]) -> NDArray[np.int64]:
    """(G,) the model with the largest expected utility; at a tie the one that is better overall, then the first."""
    order_M = np.argsort(-mean_M, kind="stable")
    return np.asarray(order_M[expected_GM[:, order_M].argmax(axis=1)])


def domain_models(table: OutcomeTable, utility_QM: NDArray[np.float64]) -> dict[str, str]:
    """The best model of each domain name by shrunk mean advantage: what a plain lookup table would choose."""
    gains = centred(utility_QM)
    names = sorted(set(table.domains))
    group_Q = np.searchsorted(names, table.domains)
    best_G = best_model(gains.of_groups(group_Q, np.tile(gains.mean_M, (len(names), 1))), gains.mean_M)
    return {name: table.models[m] for name, m in zip(names, best_G, strict=True)}
