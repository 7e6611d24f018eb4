"""Each strategy on each query: what it scored, how long that took and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import DataError
from gpu_select.evaluation.baselines import cheapest, filled, oracle, per_domain
from gpu_select.records import OutcomeTable

__all__ = ["Kind", "Play", "Selection", "play"]

Kind = Literal["oracle", "selector", "single", "baseline"]


@dataclass(frozen=True, eq=False)
class Selection:
    """What one selector made of Q queries."""

    choice_Q: NDArray[np.int64]
    """(Q,) column of the chosen model in the outcome table."""
    margin_Q: NDArray[np.float32]
    """(Q,) how far the runner-up lies behind; infinite where there is no other candidate."""
    scores_QM: NDArray[np.float32]
    """(Q, M) by the table's columns; -inf where a model is no candidate."""


@dataclass(frozen=True, eq=False)
class Play:
    """S strategies on Q queries. NaN: the chosen model has no outcome there, or the figure is not known."""

    table: OutcomeTable
    names: list[str]
    kinds: list[Kind]
    quality_SQ: NDArray[np.float64]
    latency_s_SQ: NDArray[np.float64]
    cost_usd_SQ: NDArray[np.float64]
    is_best_SQ: NDArray[np.float64]
    """1 where the choice is a best model; a tie for best counts as best."""
    share_SM: NDArray[np.float64]
    """Share of the queries that goes to each model."""
    latency_s_QM: NDArray[np.float64]
    """Of every outcome, `baselines.filled`."""
    cost_usd_QM: NDArray[np.float64]
    best_single: str
    """Name of the strategy that gives all queries to the model with the largest mean quality."""

    def index(self, name: str) -> int:
        """Row of a strategy."""
        return self.names.index(name)


def play(
    table: OutcomeTable, choices: Mapping[str, NDArray[np.int64]], *, domain_models: Mapping[str, str] | None = None
) -> Play:
    """Let selectors and baselines choose.

    Args:
        table: Q queries x M models.
        choices: (Q,) columns of models, by selector name.
        domain_models: as in `baselines.per_domain`.

    Returns:
        oracle, the selectors, always:MODEL from best to worst, per-domain, cheapest:MODEL and fastest:MODEL where that
        is known and differs between models, random. Random is its expectation.

    Raises:
        DataError: nothing to compare, as no query has an outcome, or none that a strategy chooses.
    """
    quality_QM = table.quality_QM
    known_QM = np.isfinite(quality_QM)
    if not known_QM.any():
        raise DataError("expected at least one outcome to validate on, got none")
    latency_QM, cost_QM = filled(table.latency_s_QM, known_QM), filled(table.cost_usd_QM, known_QM)
    rows = np.arange(len(quality_QM))
    best_Q1 = np.nan_to_num(quality_QM, nan=-1).max(axis=1, keepdims=True)
    is_best_QM = np.where(known_QM, (quality_QM == best_Q1).astype(float), np.nan)

    picks: dict[str, tuple[Kind, NDArray[np.int64]]] = {"oracle": ("oracle", oracle(quality_QM, table.latency_s_QM))}
    picks |= {name: ("selector", choice_Q) for name, choice_Q in choices.items()}
    mean_M = np.where(known_QM, quality_QM, 0).sum(axis=0) / np.maximum(known_QM.sum(axis=0), 1)
    by_quality = [m for m in np.argsort(-mean_M, kind="stable") if known_QM[:, m].any()]
    for m in by_quality:
        picks[f"always:{table.models[m]}"] = "single", np.full(len(rows), m)
    picks["per-domain"] = "baseline", per_domain(table, domain_models)
    for word, values_QM in (("cheapest", cost_QM), ("fastest", latency_QM)):
        m_least = cheapest(values_QM[:, by_quality])
        if m_least is not None and len(by_quality) > 1 and np.nanmin(values_QM) < np.nanmax(values_QM):
            m = by_quality[m_least]
            picks[f"{word}:{table.models[m]}"] = "baseline", np.full(len(rows), m)

    def picked(values_QM: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(
            [*(values_QM[rows, choice_Q] for _, choice_Q in picks.values()), _row_means(values_QM, known_QM)]
        )

    quality_SQ = picked(quality_QM)
    for name, values_Q in zip(picks, quality_SQ, strict=False):
        if not np.isfinite(values_Q).any():
            raise DataError(f"{name}: expected outcomes of the models it chooses, got none in this table")
    n_models = len(table.models)
    shares = [np.bincount(choice_Q, minlength=n_models) / len(rows) for _, choice_Q in picks.values()]
    shares.append((known_QM / np.maximum(known_QM.sum(axis=1, keepdims=True), 1)).mean(axis=0))
    return Play(
        table=table,
        names=[*picks, "random"],
        kinds=[*(kind for kind, _ in picks.values()), "baseline"],
        quality_SQ=quality_SQ,
        latency_s_SQ=picked(latency_QM),
        cost_usd_SQ=picked(cost_QM),
        is_best_SQ=picked(is_best_QM),
        share_SM=np.stack(shares),
        latency_s_QM=latency_QM,
        cost_usd_QM=cost_QM,
        best_single=f"always:{table.models[by_quality[0]]}",
    )


def _row_means(values_QM: NDArray[np.float64], known_QM: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(Q,) mean over the models with an outcome, NaN where one of them has no value."""
    counts_Q = known_QM.sum(axis=1)
    sums_Q = np.where(known_QM, values_QM, 0).sum(axis=1)
    return np.where(counts_Q > 0, sums_Q / np.maximum(counts_Q, 1), np.nan)
