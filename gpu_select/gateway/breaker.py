"""A circuit breaker: an endpoint that keeps failing is left alone, and tried again with a few requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

from gpu_select.config.gateway import BreakerConfig

__all__ = ["Attempt", "CircuitBreaker", "CircuitState"]

CircuitState = Literal["closed", "open", "half-open"]


class Attempt:
    """One request to the endpoint. Says how it went; one that says nothing (its client left) counts for nothing."""

    def __init__(self) -> None:
        self.worked: bool | None = None

    def succeed(self) -> None:
        """The endpoint answered."""
        self.worked = True

    def fail(self) -> None:
        """The endpoint is at fault."""
        self.worked = False


class CircuitBreaker:
    """Closed: requests pass. Open: they do not, for a while. Half-open: a few pass, and decide what comes next.

    Args:
        config: how many failures in a row, and how long it then rests.
        clock: monotonic seconds.
    """

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._rest_s = config.open_s
        self._probing = 0
        self._probes_worked = 0

    @property
    def state(self) -> CircuitState:
        """What a request that came now would meet."""
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._clock() >= self._opened_at + self._rest_s else "open"

    @property
    def retry_after_s(self) -> float:
        """Seconds until it lets a request through; 0 when it does so now."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self._rest_s - self._clock())

    def allows(self) -> bool:
        """Whether a request may pass now; in the half-open state, while fewer probes are under way than may be."""
        state = self.state
        return state == "closed" or (state == "half-open" and self._probing < self._config.probes)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Count a request; its `Attempt` says how it went until the block ends."""
        is_probe = self.state == "half-open"
        self._probing += is_probe
        attempt = Attempt()
        try:
            yield attempt
        finally:
            self._probing -= is_probe
            if attempt.worked is not None:
                (self._count_success if attempt.worked else self._count_failure)(is_probe)

    def _count_success(self, is_probe: bool) -> None:
        if self._opened_at is None:
            self._failures = 0
        elif is_probe:
            self._probes_worked += 1
            if self._probes_worked >= self._config.probes:
                self._opened_at = None
                self._failures = self._probes_worked = 0
                self._rest_s = self._config.open_s

    def _count_failure(self, is_probe: bool) -> None:
        if is_probe and self._opened_at is not None:
            self._rest_s = min(2 * self._rest_s, self._config.max_open_s)
            self._open()
        elif self._opened_at is None:
            self._failures += 1
            if self._failures >= self._config.failures:
                self._open()

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._probes_worked = 0
