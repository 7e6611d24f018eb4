"""How long each stage of routing takes, on the host and on the device, while the stages overlap."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
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
        self._events: deque[tuple[str, Any, Any]] = deque()  # CUDA events before and after what was enqueued

    @contextlib.contextmanager
    def host(self, stage: str) -> Iterator[None]:
        """Time a block on the host's clock."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += seconds

    @contextlib.contextmanager
    def on_device(self, stage: str, device: Any) -> Iterator[None]:
        """Time what a block enqueues on the current stream of a `torch.device`; off CUDA, the block itself.

        On CUDA, a block that raises counts nothing.
        """
        if device.type != "cuda":
            with self.host(stage):
                yield
            return
        import torch

        new_event: Any = torch.cuda.Event
        start, end = new_event(enable_timing=True), new_event(enable_timing=True)
        stream = torch.cuda.current_stream(device)
        start.record(stream)
        yield
        end.record(stream)
        with self._lock:
            self._events.append((stage, start, end))
            # a log may have millions of blocks: those that are over need not wait for `seconds`
            while self._events and self._events[0][2].query():
                self._count_first()

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits for what the device still has to do."""
        with self._lock:
            while self._events:
                self._events[0][2].synchronize()
                self._count_first()
            return self._seconds.copy()

    def _count_first(self) -> None:
        stage, start, end = self._events.popleft()
        self._seconds[stage] += start.elapsed_time(end) / 1000
