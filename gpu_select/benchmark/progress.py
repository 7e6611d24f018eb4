"""How far a benchmark is: counts by model, rate, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ModelProgress", "Observer", "Progress"]

_SAMPLE_S = 1.0
_WINDOW_SAMPLES = 60


@dataclass
class ModelProgress:
    """Calls of one model in this run."""

    name: str
    total: int
    """That were to be made."""
    answered: int = 0
    failed: int = 0
    retries: int = 0
    """Tries beyond the first of a call."""
    skipped: int = 0
    """Not made, as the model has been given up."""

    @property
    def made(self) -> int:
        """Answered or failed."""
        return self.answered + self.failed


class Progress:
    """Of all models.

    Args:
        models: their counts, which whoever makes the calls keeps up to date.
        clock: seconds.
    """

    def __init__(self, models: Iterable[ModelProgress], clock: Callable[[], float] = time.monotonic) -> None:
        self.models = list(models)
        self._clock = clock
        self._samples = deque([(clock(), 0)], maxlen=_WINDOW_SAMPLES)

    @property
    def total(self) -> int:
        """Calls that were to be made."""
        return sum(model.total for model in self.models)

    @property
    def made(self) -> int:
        """Those that are over."""
        return sum(model.made for model in self.models)

    def rate(self) -> float:
        """Calls a second, over about the last minute; 0 before the first is over."""
        now, made = self._clock(), self.made
        if now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, made))
        start, before = self._samples[0]
        return (made - before) / (now - start) if now > start else 0.0

    def errors(self) -> str:
        """Errors by model on one line, empty without any."""
        named = [f"{model.name} {_errors(model)}" for model in self.models if model.failed or model.retries]
        return ", ".join(named)

    def line(self) -> str:
        """All of it on one line."""
        total, made, rate = self.total, self.made, self.rate()
        share = made / total if total else 1.0
        n_left = total - made - sum(model.skipped for model in self.models)
        left = f", {_duration(n_left / rate)} left" if rate and n_left else ""
        errors = self.errors()
        return f"{made} of {total} calls ({share:.1%}), {rate:.1f}/s{left}" + (f"; {errors}" if errors else "")


class Observer(Protocol):
    """Who is told what happens."""

    def begin(self, progress: Progress, answered: int) -> None:
        """Calls are about to be made; so many pairs had been answered before."""

    def change(self) -> None:
        """Progress has changed."""

    def say(self, text: str) -> None:
        """Something that a user should know, on one line."""


def _errors(model: ModelProgress) -> str:
    parts = [f"{n} {what}" for n, what in ((model.failed, "failed"), (model.retries, "retried")) if n]
    return " and ".join(parts)


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h {m:02}m" if hours else f"{m}m {s:02}s" if m else f"{s}s"
