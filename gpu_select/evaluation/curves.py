"""Quality against cost or latency: what a selector's scores give when cheap models are favoured more and more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_select.evaluation.play import Play, Selection

__all__ = ["CurvePoint", "curve"]

_N_POINTS = 40


@dataclass(frozen=True)
class CurvePoint:
    """Means over the queries for which the chosen model has an outcome."""

    weight: float
    """1: the selector's own decisions; 0: the cheapest model for all."""
    quality: float
    cost_usd: float | None
    latency_s: float | None
    shares: dict[str, float]
    """Share of the queries that goes to each model."""


@dataclass(frozen=True, eq=False)
class _Switches:
    """E changes of mind in the order in which they happen as the price of cost rises from 0."""

    price_E: NDArray[np.float64]
    query_E: NDArray[np.int64]
    before_E: NDArray[np.int64]
    after_E: NDArray[np.int64]


def curve(played: Play, selection: Selection, price_QM: NDArray[np.float64]) -> list[CurvePoint]:
    """Sweep the weight w in argmax_m w * score_m / scale - (1 - w) * price_m / range.

    price_m is the model's mean price over the table, range the largest minus the smallest of them, scale the mean over
    queries of the best minus the worst score. The scores of a query are lines in (1 - w) / w, so the places where its
    choice changes are known exactly; one sweep over all of them, sorted, gives the whole curve. About 40 points of it
    are kept, evenly spaced in price, each at a weight halfway between two changes.

    Args:
        played: the strategies on the table.
        selection: the selector's choices and scores.
        price_QM: (Q, M) USD or seconds of every outcome, `play.cost_usd_QM` or `play.latency_s_QM`.

    Returns:
        From w = 1 to w = 0; nothing where a candidate's price is not known or all candidates have the same.
    """
    table = played.table
    candidate_M = np.isfinite(selection.scores_QM).any(axis=0)
    counts_M = np.isfinite(price_QM).sum(axis=0)
    if not counts_M[candidate_M].all():
        return []
    mean_M = np.where(candidate_M, np.nansum(price_QM, axis=0) / np.maximum(counts_M, 1), np.inf)
    spread = float(np.ptp(mean_M[candidate_M]))
    if not spread > 0:
        return []
    scores_QM = selection.scores_QM.astype(np.float64)
    scale = float(np.ptp(scores_QM[:, candidate_M], axis=1).mean()) or 1.0
    switches = _switches(scores_QM / scale, mean_M / spread, selection.choice_Q)
    stops_P, weight_P = _stops(switches, mean_M)

    known_QM = np.isfinite(table.quality_QM)
    rows = np.arange(len(known_QM))
    point_E = np.searchsorted(stops_P, np.arange(len(switches.price_E)), side="right")

    def sums(values_QM: NDArray[np.float64]) -> NDArray[np.float64]:
        """(P,) sum over the queries at each point."""
        change_E = values_QM[switches.query_E, switches.after_E] - values_QM[switches.query_E, switches.before_E]
        changes_P = np.bincount(point_E, change_E, minlength=len(stops_P) + 1)[: len(stops_P)]
        return np.asarray(values_QM[rows, selection.choice_Q].sum() + changes_P.cumsum())

    def means(values_QM: NDArray[np.float64]) -> list[float | None]:
        unknown_P = sums((known_QM & ~np.isfinite(values_QM)).astype(float)).round()
        total_P, scored_P = sums(np.where(np.isfinite(values_QM), values_QM, 0.0)), sums(known_QM.astype(float)).round()
        return [
            float(total / n) if n and not unknown else None
            for total, n, unknown in zip(total_P, scored_P, unknown_P, strict=True)
        ]

    n_models = len(table.models)
    moved_PM = np.zeros((len(stops_P) + 1, n_models))
    np.add.at(moved_PM, (point_E, switches.after_E), 1)
    np.add.at(moved_PM, (point_E, switches.before_E), -1)
    share_PM = (np.bincount(selection.choice_Q, minlength=n_models) + moved_PM.cumsum(axis=0)) / len(rows)
    figures = zip(means(table.quality_QM), means(played.cost_usd_QM), means(played.latency_s_QM), strict=True)
    return [
        CurvePoint(weight, quality, cost, latency, dict(zip(table.models, shares, strict=True)))
        for weight, (quality, cost, latency), shares in zip(weight_P.tolist(), figures, share_PM.tolist(), strict=False)
        if quality is not None
    ]


def _switches(scores_QM: NDArray[np.float64], price_M: NDArray[np.float64], choice_Q: NDArray[np.int64]) -> _Switches:
    """Walk each query's upper envelope of score - price * t from t = 0 on, all queries at once."""
    rows = np.arange(len(scores_QM))
    now_Q, t_Q = choice_Q.copy(), np.zeros(len(rows))
    order_M = np.argsort(price_M, kind="stable")  # of models that overtake at the same time, the cheapest stays ahead
    parts = []
    while len(rows):
        saved_QM = price_M[now_Q, None] - price_M[order_M]
        lost_QM = scores_QM[rows, now_Q][:, None] - scores_QM[rows][:, order_M]
        when_QM = np.divide(lost_QM, saved_QM, out=np.full_like(lost_QM, np.inf), where=saved_QM > 0)
        next_Q = when_QM.argmin(axis=1)
        when_Q = np.maximum(when_QM[np.arange(len(rows)), next_Q], t_Q)  # rounding must not turn time back
        moves_Q = np.isfinite(when_Q)
        rows, when_Q, before_Q, now_Q = rows[moves_Q], when_Q[moves_Q], now_Q[moves_Q], order_M[next_Q[moves_Q]]
        t_Q = when_Q
        parts.append((when_Q, rows, before_Q, now_Q))
    price_E, query_E, before_E, after_E = (np.concatenate(column) for column in zip(*parts, strict=True))
    order_E = np.argsort(price_E, kind="stable")
    return _Switches(price_E[order_E], query_E[order_E], before_E[order_E], after_E[order_E])


def _stops(switches: _Switches, mean_M: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(P,) after how many changes a point is kept, and (P,) a weight at which just these have happened."""
    n_changes = len(switches.price_E)
    # a weight lies between two changes only where their prices differ
    possible = np.flatnonzero(np.diff(switches.price_E, prepend=-1.0, append=np.inf) > 0)
    saved = np.concatenate([[0.0], (mean_M[switches.before_E] - mean_M[switches.after_E]).cumsum()])
    targets = np.linspace(0, saved[-1], _N_POINTS)
    stops = np.unique([0, *possible[np.searchsorted(saved[possible], targets).clip(max=len(possible) - 1)], n_changes])
    prices = np.concatenate([[0.0], switches.price_E, [np.inf]])
    with np.errstate(invalid="ignore"):
        weights = 1 / (1 + (prices[stops] + prices[stops + 1]) / 2)
    weights[0] = 1.0  # the selector's own decisions, ties as it breaks them
    return stops, weights
