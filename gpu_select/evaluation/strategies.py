"""The figures of each strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_select.evaluation.play import Kind, Play, play
from gpu_select.records import OutcomeTable
from gpu_select.resampling import intervals

__all__ = ["Strategy", "evaluate", "summarize"]


@dataclass(frozen=True)
class Strategy:
    """How one way of choosing does. Means are over the queries for which the chosen model has an outcome."""

    name: str
    """oracle, a selector, always:MODEL, per-domain, cheapest:MODEL, fastest:MODEL or random."""
    kind: Kind
    mean_quality: float
    ci95: tuple[float, float]
    """95 % percentile bootstrap interval of the mean quality, over queries."""
    mean_latency_s: float | None
    """Seconds; an unknown time counts as its model's mean. None where a chosen model has no time at all."""
    mean_cost_usd: float | None
    """USD a query, by the same rule."""
    best_rate: float
    """Share of queries on which the choice is a best model; a tie for best counts as best."""
    n_scored: int
    """Queries for which the chosen model has an outcome."""
    gain_over_random: float
    gain_over_best_single: float
    gap_share: float | None
    """(strategy - best single model) / (oracle - best single model); None where these two do the same."""
    shares: dict[str, float]
    """Share of the queries that goes to each model."""


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
        In the order of `play`.

    Raises:
        DataError: nothing to compare: no query has an outcome.
    """
    return summarize(play(table, choices, domain_models=domain_models), seed=seed)


def summarize(played: Play, *, seed: int = 0) -> list[Strategy]:
    """The figures of strategies that have been played."""
    bounds = intervals(played.quality_SQ, seed)
    means = {name: float(np.nanmean(values_Q)) for name, values_Q in zip(played.names, played.quality_SQ, strict=True)}
    single, gap = means[played.best_single], means["oracle"] - means[played.best_single]
    return [
        Strategy(
            name=name,
            kind=played.kinds[s],
            mean_quality=means[name],
            ci95=(float(bounds[s, 0]), float(bounds[s, 1])),
            mean_latency_s=_mean(played.latency_s_SQ[s], played.quality_SQ[s]),
            mean_cost_usd=_mean(played.cost_usd_SQ[s], played.quality_SQ[s]),
            best_rate=float(np.nanmean(played.is_best_SQ[s])),
            n_scored=int(np.isfinite(played.quality_SQ[s]).sum()),
            gain_over_random=means[name] - means["random"],
            gain_over_best_single=means[name] - single,
            gap_share=(means[name] - single) / gap if gap > 0 else None,
            shares=dict(zip(played.table.models, played.share_SM[s].tolist(), strict=True)),
        )
        for s, name in enumerate(played.names)
    ]


def _mean(values_Q: NDArray[np.float64], quality_Q: NDArray[np.float64]) -> float | None:
    scored = values_Q[np.isfinite(quality_Q)]
    return float(scored.mean()) if np.isfinite(scored).all() else None
