"""Comparing ways to choose on recorded outcomes: oracle, selectors, single models, a table by domain, chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import DataError
from gpu_select.records import OutcomeTable

__all__ = ["Strategy", "evaluate"]

_N_RESAMPLES = 1000
_BLOCK = 50


@dataclass(frozen=True)
class Strategy:
    """How one way of choosing does. Means are over the queries for which the chosen model has an outcome."""

    name: str
    """oracle, knn, kmeans, svm, always:MODEL, per-domain or random."""
    mean_quality: float
    mean_latency_s: float | None
    """Seconds; None where no response time is known."""
    best_rate: float
    """Share of queries on which the choice is a best model; a tie for best counts as best."""
    ci95: tuple[float, float]
    """95 % percentile bootstrap interval of the mean quality, over queries."""
    n_scored: int
    """Queries for which the chosen model has an outcome."""
    gain_over_random: float
    gain_over_best_single: float


def evaluate(
    table: OutcomeTable,
    choices: Mapping[str, NDArray[np.int64]],
    *,
    domain_models: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Strategy]:
    """Score selectors beside the baselines that they must beat.

    Args:
        table: Q queries x M models.
        choices: (Q,) model columns by selector name.
        domain_models: the best model of each domain on the training data. Without it "per-domain" picks, for each
            query, the model that is best on the domain's other queries of this table.
        seed: of the bootstrap; all strategies share its resamples.

    Returns:
        oracle, the selectors, always:MODEL from best to worst, per-domain, random. Random is its expectation.

    Raises:
        DataError: nothing to compare: no query has an outcome.
    """
    quality_QM, latency_QM = table.quality_QM, table.latency_s_QM
    known_QM = np.isfinite(quality_QM)
    if not known_QM.any():
        raise DataError("expected at least one outcome to validate on, got none")
    rows = np.arange(len(quality_QM))
    best_Q = np.nanmax(quality_QM, axis=1)
    is_best_QM = (quality_QM == best_Q[:, None]).astype(float)
    is_best_QM[~known_QM] = np.nan
    # of several best models the oracle takes the fastest
    fastest_QM = np.where(is_best_QM == 1, np.nan_to_num(latency_QM, nan=np.inf), np.inf)
    fastest_QM[is_best_QM != 1] = np.inf
    oracle_Q = np.where(
        np.isfinite(fastest_QM).any(axis=1), fastest_QM.argmin(axis=1), np.nanargmax(quality_QM, axis=1)
    )

    picks: dict[str, NDArray[np.int64]] = {"oracle": oracle_Q, **choices}
    by_quality = np.argsort(-np.nanmean(quality_QM, axis=0), kind="stable")
    for m in by_quality:
        picks[f"always:{table.models[m]}"] = np.full(len(rows), m)
    picks["per-domain"] = _per_domain(table, domain_models)

    def picked(values_QM: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        out = {
            name: np.where(np.isfinite(quality_QM[rows, m]), values_QM[rows, m], np.nan) for name, m in picks.items()
        }
        return out | {"random": _row_means(values_QM)}

    quality, latency, is_best = picked(quality_QM), picked(latency_QM), picked(is_best_QM)
    for name, values_Q in quality.items():
        if not np.isfinite(values_Q).any():
            raise DataError(f"{name}: expected outcomes of the models it chooses, got none in this table")
    intervals = _bootstrap(np.stack(list(quality.values())), seed)
    random_quality = float(np.nanmean(quality["random"]))
    single_quality = float(np.nanmean(quality[f"always:{table.models[by_quality[0]]}"]))
    out = []
    for name, interval in zip(quality, intervals, strict=True):
        mean = float(np.nanmean(quality[name]))
        out.append(
            Strategy(
                name=name,
                mean_quality=mean,
                mean_latency_s=_mean(latency[name]),
                best_rate=float(np.nanmean(is_best[name])),
                ci95=(float(interval[0]), float(interval[1])),
                n_scored=int(np.isfinite(quality[name]).sum()),
                gain_over_random=mean - random_quality,
                gain_over_best_single=mean - single_quality,
            )
        )
    return out


def _row_means(values_QM: NDArray[np.float64]) -> NDArray[np.float64]:
    known_QM = np.isfinite(values_QM)
    counts_Q = known_QM.sum(axis=1)
    return np.where(counts_Q > 0, np.nansum(values_QM, axis=1) / np.maximum(counts_Q, 1), np.nan)


def _mean(values_Q: NDArray[np.float64]) -> float | None:
    known = values_Q[np.isfinite(values_Q)]
    return float(known.mean()) if len(known) else None


def _per_domain(table: OutcomeTable, domain_models: Mapping[str, str] | None) -> NDArray[np.int64]:
    quality_QM = np.nan_to_num(table.quality_QM)
    known_QM = np.isfinite(table.quality_QM)
    overall_M = quality_QM.sum(axis=0) / np.maximum(known_QM.sum(axis=0), 1)
    out = np.full(len(quality_QM), overall_M.argmax())
    domains = np.array(table.domains)
    for domain in set(table.domains):
        rows = np.flatnonzero(domains == domain)
        if domain_models is not None:
            if domain_models.get(domain) in table.models:
                out[rows] = table.models.index(domain_models[domain])
            continue
        # without the query itself: a model must not be chosen for the very outcome it is judged by
        sums = quality_QM[rows].sum(axis=0) - quality_QM[rows] + overall_M
        counts = known_QM[rows].sum(axis=0) - known_QM[rows] + 1.0
        out[rows] = (sums / counts).argmax(axis=1)
    return out


def _bootstrap(values_SQ: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(S, 2) percentile intervals of the means over queries; resamples are shared, so strategies are comparable."""
    rng = np.random.default_rng(seed)
    n_queries = values_SQ.shape[1]
    filled_QS, known_QS = np.nan_to_num(values_SQ).T, np.isfinite(values_SQ).T.astype(float)
    even = np.full(n_queries, 1 / n_queries)
    means = []
    for _ in range(_N_RESAMPLES // _BLOCK):
        counts = rng.multinomial(n_queries, even, size=_BLOCK).astype(float)
        totals = counts @ known_QS
        means.append(np.divide(counts @ filled_QS, totals, out=np.full_like(totals, np.nan), where=totals > 0))
    low, high = np.nanpercentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return np.stack([low, high], axis=1)
