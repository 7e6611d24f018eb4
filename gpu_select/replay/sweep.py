"""From the cheapest or fastest choices to the best ones: all weights of quality in one sort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpu_select.replay.frontier import Frontier
from gpu_select.replay.log import ReplayedLog

__all__ = ["Against", "SweepPoint", "sweep"]

Against = Literal["time", "cost"]

_MOST_POINTS = 40


@dataclass(frozen=True)
class SweepPoint:
    """Means over all rows."""

    weight: float
    """1: the best choices; 0: the fastest or cheapest ones."""
    quality: float
    time_s: float | None
    cost_usd: float | None
    """A query."""
    shares: dict[str, float]
    """Share of the rows by model."""


def sweep(log: ReplayedLog, candidates: Tensor, against: Against, span: float) -> list[SweepPoint]:
    """About 40 points, evenly spaced in seconds or USD, each of which is the best there is at its price.

    A row's choice is the largest weight * quality + (1 - weight) * (1 - price / span), as expected; with time and the
    span of the records' response times that is the utility that `train --quality-weight` learns.

    Args:
        log: Q rows, M models.
        candidates: (C,) places of the models to choose from.
        against: what quality is weighed against.
        span: seconds or USD that count as much as a quality of 1.

    Returns:
        From weight 0 to 1; nothing where a candidate's price is not known.
    """
    figures = {name: values_QM[:, candidates] for name, values_QM in log.figures.items()}
    names = [log.models[m] for m in candidates.tolist()]
    price = {"time": "time_s", "cost": "cost_usd"}[against]
    if log.lacking(price, names):
        return []
    frontier = Frontier.of(figures["quality"].double(), figures[price].double())
    stops = frontier.stops(_MOST_POINTS)
    n_rows = len(log.domain_Q)

    def means(name: str) -> list[float]:
        return (frontier.totals(figures[name], stops) / n_rows).tolist()

    times, costs = (None if log.lacking(name, names) else means(name) for name in ("time_s", "cost_usd"))
    points = []
    for i, (stop, quality) in enumerate(zip(stops, means("quality"), strict=True)):
        counts = torch.bincount(frontier.choice(stop), minlength=len(names)).tolist()
        points.append(
            SweepPoint(
                weight=1 / (1 + frontier.rate_at(stop) * span),
                quality=quality,
                time_s=None if times is None else times[i],
                cost_usd=None if costs is None else costs[i],
                shares={name: count / n_rows for name, count in zip(names, counts, strict=True)},
            )
        )
    return points
