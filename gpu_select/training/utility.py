"""Utility: what an outcome is worth, quality against speed, and what it is expected to be worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable

__all__ = ["advantages", "best_model", "domain_models", "expected", "mean_utility", "utilities"]

_PRIOR_COUNT = 1.0
"""A model's overall mean counts like one more outcome, so that a group in which nobody scored it still has a value."""


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
    if timed_QM.any():
        least, most = latency_QM[timed_QM].min(), latency_QM[timed_QM].max()
        if most > least:
            speed_QM = 1 - (latency_QM - least) / (most - least)
            overall = float(speed_QM[timed_QM].mean())
            counts_M = timed_QM.sum(axis=0)
            means_M = np.where(counts_M > 0, np.nansum(speed_QM, axis=0) / np.maximum(counts_M, 1), overall)
            speed_QM = np.where(timed_QM, speed_QM, means_M)
    utility_QM: NDArray[np.float64] = quality_weight * table.quality_QM + (1 - quality_weight) * speed_QM
    return utility_QM


def mean_utility(utility_QM: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) mean over the queries that each model answered."""
    return np.asarray(np.nanmean(utility_QM, axis=0))


def expected(
    sum_GM: NDArray[np.float64], count_GM: NDArray[np.float64], mean_M: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Expected utility of each model in G groups of queries: (G, M), from sums and counts of outcomes."""
    return np.asarray((sum_GM + _PRIOR_COUNT * mean_M) / (count_GM + _PRIOR_COUNT))


def best_model(expected_GM: NDArray[np.float64], mean_M: NDArray[np.float64]) -> NDArray[np.int64]:
    """(G,) the model with the largest expected utility; at a tie the one that is better overall, then the first."""
    order_M = np.argsort(-mean_M, kind="stable")
    return np.asarray(order_M[expected_GM[:, order_M].argmax(axis=1)])


def advantages(utility_QM: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, M) what choosing a model gains (> 0) or loses (< 0) against the mean of the query's outcomes; else 0."""
    return np.asarray(np.nan_to_num(utility_QM - np.nanmean(utility_QM, axis=1, keepdims=True), nan=0.0))


def domain_models(table: OutcomeTable, utility_QM: NDArray[np.float64]) -> dict[str, str]:
    """The best model of each domain name by expected utility: what a plain lookup table would choose."""
    mean_M = mean_utility(utility_QM)
    names = sorted(set(table.domains))
    member_GQ = np.array([[name == domain for domain in table.domains] for name in names], dtype=np.float64)
    sum_GM, count_GM = member_GQ @ np.nan_to_num(utility_QM), member_GQ @ np.isfinite(utility_QM)
    best_G = best_model(expected(sum_GM, count_GM, mean_M), mean_M)
    return {name: table.models[m] for name, m in zip(names, best_G, strict=True)}
