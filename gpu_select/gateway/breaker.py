"""A circuit breaker: an endpoint that keeps failing is left alone, and tried again with a few requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from gpu_select.config.gateway import BreakerConfig

__all__ = ["Attempt", "CircuitBreaker", "CircuitState"]

CircuitState = Literal["closed", "open", "half-open"]


class Attempt:
    """One request to the endpoint. Says how it went; one that says nothing (its client left) counts for nothing.

    What is said first counts. As a context manager, it is dropped at the end if nothing has been said.

    Args:
        breaker: which counts it.
        opened_at: for a probe, when the circuit opened that it probes.
        place_until: for a probe, when another one may pass although this one has not said anything.
    """

    def __init__(self, breaker: CircuitBreaker, opened_at: float | None = None, place_until: float = 0.0) -> None:
        self.opened_at = opened_at
        self.place_until = place_until
        self._breaker: CircuitBreaker | None = breaker

    def succeed(self) -> None:
        """The endpoint gave a whole answer."""
        self._settle(True)

    def fail(self) -> None:
        """The endpoint is at fault."""
        self._settle(False)

    def drop(self) -> None:
        """Nobody will know."""
        self._settle(None)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop it, if nothing has been said."""
        self.drop()

    def _settle(self, worked: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.count(self, worked)


class CircuitBreaker:
    """Closed: requests pass. Open: they do not, for a while. Half-open: a few pass, and decide what comes next.

    An answer may take minutes, in which nobody can say whether the endpoint works. A probe therefore keeps others out
    only for as long as the circuit rests at first; then another one may pass, which does so for twice as long.

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
        self._probes: set[Attempt] = set()
        self._place_s = config.open_s
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
        if self._opened_at is None or self.allows():
            return 0.0
        frees_at = [self._opened_at + self._rest_s, *(probe.place_until for probe in self._probes)]
        now = self._clock()
        return min((at - now for at in frees_at if at > now), default=0.0)

    def allows(self) -> bool:
        """Whether a request may pass now; in the half-open state, while fewer probes are under way than may be."""
        state = self.state
        return state == "closed" or (state == "half-open" and self._n_places_taken < self._config.probes)

    def attempt(self) -> Attempt:
        """A request that begins."""
        if self.state != "half-open":
            return Attempt(self)
        if len(self._probes) > self._n_places_taken:
            self._place_s = min(2 * self._place_s, self._config.max_open_s)
        probe = Attempt(self, self._opened_at, self._clock() + self._place_s)
        self._probes.add(probe)
        return probe

    def count(self, attempt: Attempt, worked: bool | None) -> None:
        """Note how an attempt went; called by itself, once."""
        self._probes.discard(attempt)
        if worked is None:
            return
        if self._opened_at is None:
            self._count_in_use(worked)
        elif attempt.opened_at == self._opened_at:
            self._count_probe(worked)

    @property
    def _n_places_taken(self) -> int:
        now = self._clock()
        return sum(probe.place_until > now for probe in self._probes)

    def _count_in_use(self, worked: bool) -> None:
        self._failures = 0 if worked else self._failures + 1
        if self._failures >= self._config.failures:
            self._open()

    def _count_probe(self, worked: bool) -> None:
        if not worked:
            self._rest_s = min(2 * self._rest_s, self._config.max_open_s)
            self._open()
            return
        self._probes_worked += 1
        if self._probes_worked >= self._config.probes:
            self._opened_at = None
            self._failures = 0
            self._rest_s = self._config.open_s

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._probes_worked = 0
        self._probes.clear()
        self._place_s = self._config.open_s
