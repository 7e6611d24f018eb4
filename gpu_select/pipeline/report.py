"""What routing a log came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["RouteReport"]


@dataclass
class RouteReport:
    """What happened to a log."""

    rows: int = 0
    errors: int = 0
    first_error: str = ""
    without_domain: int = 0
    renamed: set[str] = field(default_factory=set)
    """Input fields that carry the name of an output field, and are kept as input_NAME."""
    tokens: int = 0
    truncated: int = 0
    cached: int = 0
    seconds: float = 0.0
    share: Counter[str] = field(default_factory=Counter)
    """Rows by model."""
    decisions: Counter[str] = field(default_factory=Counter)
    """Rows by decision, where decisions route."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, in the order of `stages.STAGES`; known at the end. Stages overlap."""

    def add(self, other: RouteReport) -> None:
        """Count in what happened to further rows."""
        self.first_error = self.first_error or other.first_error
        for name in ("rows", "errors", "without_domain", "tokens", "truncated", "cached", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.renamed |= other.renamed
        self.share.update(other.share)
        self.decisions.update(other.decisions)
        for stage, seconds in other.stage_seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
