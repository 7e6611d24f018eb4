"""Every two strategies on the same queries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gpu_select.evaluation.play import Play
from gpu_select.resampling import intervals

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Quality of `a` minus quality of `b`, over the queries that both have an outcome for."""

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    """95 % percentile bootstrap interval of the difference: a query is drawn with both its outcomes."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.ci95[0] > 0 or self.ci95[1] < 0


def compare(played: Play, *, seed: int = 0) -> list[Comparison]:
    """All pairs, in the order of the strategies; those that share no query are left out."""
    pairs = list(combinations(range(len(played.names)), 2))
    difference_PQ = np.stack([played.quality_SQ[a] - played.quality_SQ[b] for a, b in pairs])
    return [
        Comparison(played.names[a], played.names[b], float(np.nanmean(values_Q)), (float(bounds[0]), float(bounds[1])))
        for (a, b), values_Q, bounds in zip(pairs, difference_PQ, intervals(difference_PQ, seed), strict=True)
        if np.isfinite(values_Q).any()
    ]
