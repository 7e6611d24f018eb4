"""What a policy has to keep to: a budget, shares of single models, and the weight of quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpu_select.errors import ConfigError, DataError
from gpu_select.replay.allocation import allocate
from gpu_select.replay.log import ReplayedLog

__all__ = ["Limited", "Limits", "keep_limits"]


@dataclass(frozen=True)
class Limits:
    """Every problem is reported at once."""

    quality_weight: float = 1.0
    """w in utility = w * quality + (1 - w) * speed, which is maximised; 1 leaves times out."""
    budget_usd: float | None = None
    """For the whole log."""
    budget_per_1000_usd: float | None = None
    """For 1,000 rows; one of the two at most."""
    max_share: Mapping[str, float] = field(default_factory=dict)
    """Largest share of the rows in percent, by model."""

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.quality_weight <= 1:
            problems.append(ConfigError("quality-weight", self.quality_weight, "a number in [0, 1]"))
        for name, value in (("budget", self.budget_usd), ("budget-per-1000", self.budget_per_1000_usd)):
            if value is not None and not 0 <= value < float("inf"):
                problems.append(ConfigError(name, value, "USD, a number >= 0"))
        if self.budget_usd is not None and self.budget_per_1000_usd is not None:
            problems.append(ConfigError("budget-per-1000", self.budget_per_1000_usd, "one of the two budgets"))
        for model, share in self.max_share.items():
            if not 0 <= share <= 100:
                problems.append(ConfigError(f"max-share of {model}", share, "percent, a number in [0, 100]"))
        if problems:
            raise ConfigError.joined([str(problem) for problem in problems])

    @property
    def has_budget(self) -> bool:
        """Whether costs have to be known."""
        return self.budget_usd is not None or self.budget_per_1000_usd is not None

    @property
    def any(self) -> bool:
        """Whether anything but the weight is set."""
        return self.has_budget or bool(self.max_share)

    @property
    def name(self) -> str:
        """Of the policy."""
        return "within-limits" if self.any else f"quality-weight {self.quality_weight:g}"

    def usd(self, n_rows: int) -> float | None:
        """The budget for so many rows together."""
        if self.budget_per_1000_usd is not None:
            return self.budget_per_1000_usd * n_rows / 1000
        return self.budget_usd


@dataclass(frozen=True, eq=False)
class Limited:
    """The best choices within limits."""

    choice_Q: Tensor
    """(Q,) places of models."""
    utility: float
    """Expected mean."""
    bound: float
    """No choices within the limits have a larger one, not even such that split rows."""


def keep_limits(
    log: ReplayedLog, candidates: Sequence[str], limits: Limits, speed_scale: tuple[float, float] | None
) -> Limited:
    """Maximise the expected utility of all rows together within limits.

    Args:
        log: Q rows, M models.
        candidates: names of the models to choose from.
        limits: see there.
        speed_scale: seconds at which speed is 1 and 0, `training.utility.speed_scale` of the records.

    Raises:
        ConfigError: a limit for a model that is no candidate, or nothing keeps the limits.
        DataError: a figure that they need is not known.
    """
    n_rows = len(log.domain_Q)
    places = torch.tensor([log.models.index(name) for name in candidates], device=log.domain_Q.device)
    strangers = sorted(set(limits.max_share) - set(candidates))
    if strangers:
        raise ConfigError("max-share", strangers[0], f"one of the candidates {', '.join(candidates)}")
    value_QC = _figure(log, "quality", places).double()
    if limits.quality_weight < 1:
        if speed_scale is None:
            raise DataError("quality-weight: expected 1 where the records have no different response_time to weigh")
        _check_known(log, "time_s", candidates, "quality-weight below 1", "response_time in the records")
        least, most = speed_scale
        speed_QC = 1 - (_figure(log, "time_s", places).double() - least) / (most - least)
        value_QC = limits.quality_weight * value_QC + (1 - limits.quality_weight) * speed_QC
    cost_QC = None
    if limits.has_budget:
        _check_known(log, "cost_usd", candidates, "budget", "costs: prices in --models-config, tokens in the records")
        cost_QC = _figure(log, "cost_usd", places).double()
    cap_C = None
    if limits.max_share:
        most_rows = [int(limits.max_share.get(name, 100) * n_rows / 100 + 1e-9) for name in candidates]
        cap_C = torch.tensor(most_rows, device=places.device)
    found = allocate(value_QC, cost_QM=cost_QC, budget=limits.usd(n_rows), cap_M=cap_C)
    utility = float(value_QC.gather(1, found.choice_Q[:, None]).mean())
    return Limited(places[found.choice_Q], utility, max(found.bound / n_rows, utility))


def _figure(log: ReplayedLog, name: str, places: Tensor) -> Tensor:
    return log.figures[name][:, places]


def _check_known(log: ReplayedLog, figure: str, candidates: Sequence[str], what: str, needs: str) -> None:
    unknown = log.lacking(figure, candidates)
    if unknown:
        listed = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise DataError(f"{what}: needs {needs}, and has none for {listed}; name the others with --candidates")
