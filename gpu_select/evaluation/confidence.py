"""Whether a selector knows when it knows: its margins against the quality that came of its choices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_select.evaluation.play import Play, Selection
from gpu_select.resampling import intervals

__all__ = ["ConfidenceBin", "confidence"]

_N_BINS = 10


@dataclass(frozen=True)
class ConfidenceBin:
    """Queries whose margins lie close together."""

    margin: tuple[float, float]
    """Smallest and largest of them, on the selector's own scale."""
    queries: int
    """How many of them the chosen model has an outcome for."""
    quality: float
    best_single_quality: float | None
    """Of the model that is best over all queries, on these; None where it has no outcome here."""
    ci95: tuple[float, float]
    """95 % percentile bootstrap interval of the quality."""


def confidence(played: Play, name: str, selection: Selection, *, seed: int = 0) -> list[ConfidenceBin]:
    """About ten bins of equally many queries, from small to large margins. Equal margins share a bin.

    Returns:
        Nothing where a query has one candidate only, and so no margin.
    """
    quality_Q = played.quality_SQ[played.index(name)]
    single_Q = played.quality_SQ[played.index(played.best_single)]
    margin_Q = selection.margin_Q.astype(np.float64)
    scored_Q = np.isfinite(quality_Q)
    if not np.isfinite(margin_Q[scored_Q]).all():
        return []
    edges = np.unique(np.quantile(margin_Q[scored_Q], np.linspace(0, 1, _N_BINS + 1)[1:-1]))
    bin_Q = np.where(scored_Q, np.searchsorted(edges, margin_Q, side="right"), -1)
    members = [np.flatnonzero(bin_Q == b) for b in np.unique(bin_Q[scored_Q])]
    values_BQ = np.full((len(members), len(quality_Q)), np.nan)
    for row, rows in zip(values_BQ, members, strict=True):
        row[rows] = quality_Q[rows]
    out = []
    for rows, bounds in zip(members, intervals(values_BQ, seed), strict=True):
        single = single_Q[rows][np.isfinite(single_Q[rows])]
        out.append(
            ConfidenceBin(
                margin=(float(margin_Q[rows].min()), float(margin_Q[rows].max())),
                queries=len(rows),
                quality=float(quality_Q[rows].mean()),
                best_single_quality=float(single.mean()) if len(single) else None,
                ci95=(float(bounds[0]), float(bounds[1])),
            )
        )
    return out
