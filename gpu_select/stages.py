"""How long each stage of routing takes, on the host and on the device, while the stages overlap."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["STAGES", "StageTimes"]

STAGES = ("read", "tokenise", "transfer", "encode", "select", "write")
"""The stages of routing a log, in the order in which a row passes them."""


class StageTimes:
    """Seconds by stage, added up from any thread. Stages that overlap add up to more than the time that passes."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()
        self._events: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def host(self, stage: str) -> Iterator[None]:
        """Time a block on the host's clock."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - start)

    @contextlib.contextmanager
    def on_device(self, stage: str, device: Any) -> Iterator[None]:
        """Time what a block enqueues on the current stream of a `torch.device`; off CUDA, the block itself."""
        if device.type != "cuda":
            with self.host(stage):
                yield
            return
        import torch

        new_event: Any = torch.cuda.Event
        start, end = new_event(enable_timing=True), new_event(enable_timing=True)
        start.record()
        yield
        end.record()
        with self._lock:
            self._events.append((stage, start, end))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits for what the device still has to do."""
        with self._lock:
            events, self._events = self._events, []
        for stage, start, end in events:
            end.synchronize()
            self._add(stage, start.elapsed_time(end) / 1000)
        with self._lock:
            return self._seconds.copy()

    def _add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds
