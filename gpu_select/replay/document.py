"""Everything that a replay finds, and the JSON document that carries it to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gpu_select.replay.expected import SelfCheck
from gpu_select.replay.limits import Limited, Limits, keep_limits
from gpu_select.replay.log import ReplayedLog
from gpu_select.replay.policies import Policy, play_policy
from gpu_select.replay.sweep import SweepPoint, sweep

__all__ = ["Nearest", "Replay", "replay"]

_BEST = "best-expected"
"""The policy of the largest expected quality for every query."""


@dataclass(frozen=True)
class Nearest:
    """What comes nearest to choices within limits among those that a weight of quality alone makes.

    Of the weights that keep the limits the one of the largest expected quality; where none does, the one whose shares
    of models differ least.
    """

    point: SweepPoint
    """Of the sweep against time: its weight is what `train` takes."""
    keeps_limits: bool


@dataclass(frozen=True)
class Replay:
    """What policies would do to a log."""

    log: ReplayedLog
    candidates: tuple[str, ...]
    policies: list[Policy]
    """What the log did, the selectors, single models from the best on, the best expected choices, those in limits."""
    sweeps: dict[str, list[SweepPoint]]
    """By "time" or "cost"; without those that cannot be drawn."""
    limits: Limits | None
    limited: Limited | None
    nearest: Nearest | None
    check: SelfCheck

    def named(self, name: str) -> Policy:
        """The policy of that name."""
        return next(policy for policy in self.policies if policy.name == name)

    def document(self, *, log_file: str, data_file: str, encoder: str, record_queries: int) -> dict[str, Any]:
        """The JSON document.

        Args:
            log_file, data_file: what was read.
            encoder: its name.
            record_queries: queries of the records.
        """
        limits = None
        if self.limits is not None and self.limited is not None:
            limits = {
                "quality_weight": self.limits.quality_weight,
                "budget_usd": self.limits.usd(len(self.log.domain_Q)),
                "max_share": {name: share / 100 for name, share in self.limits.max_share.items()},
                "utility": self.limited.utility,
                "bound": self.limited.bound,
                "nearest": None if self.nearest is None else asdict(self.nearest.point),
                "nearest_keeps": self.nearest is not None and self.nearest.keeps_limits,
            }
        counts = self.log.counts
        return {
            "format": "gpu_select.replay",
            "version": 1,
            "log_file": log_file,
            "data_file": data_file,
            "encoder": encoder,
            "rows": counts.rows,
            "queries": len(self.log.domain_Q),
            "queries_in_records": counts.seen,
            "record_queries": record_queries,
            "models": list(self.log.models),
            "candidates": list(self.candidates),
            "check": asdict(self.check),
            "policies": [asdict(policy) for policy in self.policies],
            "sweeps": [
                {"against": against, "points": [asdict(point) for point in points]}
                for against, points in self.sweeps.items()
            ],
            "limits": limits,
        }


def replay(
    log: ReplayedLog,
    check: SelfCheck,
    *,
    candidates: Sequence[str],
    speed_scale: tuple[float, float] | None,
    limits: Limits | None = None,
) -> Replay:
    """Let all policies choose for all rows.

    Args:
        log: Q rows, M models.
        check: of the expectations.
        candidates: names of the models that policies choose from.
        speed_scale: of the records; None where their response times tell nothing.
        limits: for the policy of the user's own.

    Raises:
        ConfigError, DataError: as `keep_limits`.
    """
    known = {name: place for place, name in enumerate(log.models)}
    limited = None if limits is None else keep_limits(log, candidates, limits, speed_scale)
    places = torch.tensor([known[name] for name in candidates], device=log.domain_Q.device)
    policies = []
    if bool((log.logged_Q >= 0).any()):
        policies.append(play_policy(log, "as logged", "logged", log.logged_Q))
    policies += [play_policy(log, name, "selector", choice_Q) for name, choice_Q in log.choices.items()]
    singles = [
        play_policy(log, f"always:{name}", "single", torch.full_like(log.logged_Q, known[name])) for name in candidates
    ]
    policies += sorted(singles, key=lambda policy: -(policy.quality or 0))
    best_Q = places[log.figures["quality"][:, places].argmax(dim=1)]
    policies.append(play_policy(log, _BEST, "best", best_Q))
    if limits is not None and limited is not None:
        policies.append(play_policy(log, limits.name, "limits", limited.choice_Q))
    sweeps = {}
    if speed_scale is not None:
        sweeps["time"] = sweep(log, places, "time", speed_scale[1] - speed_scale[0])
    cost_QC = log.figures["cost_usd"][:, places]
    span = float(cost_QC.max() - cost_QC.min())
    if span > 0:
        sweeps["cost"] = sweep(log, places, "cost", span)
    sweeps = {against: points for against, points in sweeps.items() if len(points) > 1}
    nearest = None
    if limits is not None and limits.any and "time" in sweeps:
        nearest = _nearest(sweeps["time"], policies[-1], limits, len(log.domain_Q))
    return Replay(log, tuple(candidates), policies, sweeps, limits, limited, nearest, check)


def _nearest(points: Sequence[SweepPoint], policy: Policy, limits: Limits, n_rows: int) -> Nearest:
    budget = limits.usd(n_rows)

    def keeps(point: SweepPoint) -> bool:
        if budget is not None and (point.cost_usd is None or point.cost_usd * n_rows > budget):
            return False
        return all(point.shares[name] <= share / 100 + 1e-12 for name, share in limits.max_share.items())

    kept = [point for point in points if keeps(point)]
    if kept:
        return Nearest(max(kept, key=lambda point: point.quality), True)
    shares = {row.model: row.queries / n_rows for row in policy.models}

    def differs(point: SweepPoint) -> float:
        return sum(abs(share - shares[name]) for name, share in point.shares.items())

    return Nearest(min(points, key=differs), False)
