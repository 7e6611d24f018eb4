"""Requests that arrive together share one call: a bounded queue, one worker thread, and no knowledge of HTTP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BatchLimits", "Batcher", "QueueFullError"]

T = TypeVar("T")
R = TypeVar("R")

_SPEED_SHARE = 0.2  # of the newest batch in the running mean


class QueueFullError(Exception):
    """Too much is waiting already.

    Attributes:
        retry_after_s: how long the queue will need, going by the last batches.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class BatchLimits:
    """How large batches become, and how long they take to."""

    max_batch: int
    """Items of a run."""
    max_wait_s: float
    """The longest time that an item waits for others while nothing runs."""
    max_queue: int
    """Items that may wait."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[T, R]):
    item: T
    result: asyncio.Future[R]
    arrived_at: float


class Batcher(Generic[T, R]):
    """Collects items of concurrent callers, and runs them together, one batch at a time.

    A batch starts when it is full, or when its first item has waited long enough; while a batch runs, the next one
    collects. Items whose caller was cancelled are dropped before the run.

    Args:
        run: takes up to `max_batch` items and gives a result for each, in their order; called in the executor, once
            at a time. When it raises for several items, each of them is run alone, so that it fails alone.
        executor: a single thread, where whoever shares it must not run at the same time.
        limits: of batch, wait and queue.
        observe: called after each run with the number of its items and its seconds.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Sequence[R]],
        executor: Executor,
        limits: BatchLimits,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._executor = executor
        self._observe = observe
        self._queue: deque[_Waiting[T, R]] = deque()
        self._arrival = asyncio.Event()
        self._seconds_an_item = 0.0
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        self._limits = limits

    @property
    def n_waiting(self) -> int:
        """Items in the queue."""
        return len(self._queue)

    def swap(self, run: Callable[[list[T]], Sequence[R]], limits: BatchLimits) -> None:
        """Let all later batches take another function and other limits; a batch that runs is not disturbed."""
        self._run = run
        self._limits = limits
        self._arrival.set()

    async def submit(self, items: Sequence[T]) -> list[R]:
        """The results of some items, in their order, once all are there.

        Many items are queued a batch at a time, each when the one before is done, so that others get their turn in
        between. The queue refuses the first of them or none; a batch larger than the queue is taken while nothing else
        waits.

        Raises:
            QueueFullError: there is no room.
            RuntimeError: after `close`.
            Exception: whatever the run raised for one of the items.
        """
        results: list[R] = []
        while len(results) < len(items):
            start = len(results)
            # one that has begun is not refused: at most the batch that ran just now comes back into a full queue
            results += await self._submit(items[start : start + self._limits.max_batch], admitted=start > 0)
        return results

    async def _submit(self, items: Sequence[T], *, admitted: bool) -> list[R]:
        if self._closed:
            raise RuntimeError("the batcher is closed")
        max_queue = self._limits.max_queue
        if not admitted and len(self._queue) + len(items) > max_queue:
            self._queue = deque(one for one in self._queue if not one.result.done())  # those whose caller has left
            if self._queue and len(self._queue) + len(items) > max_queue:
                raise QueueFullError(len(self._queue) * self._seconds_an_item)
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = loop.create_task(self._work(), name="batcher")
        now = loop.time()
        waiting: list[_Waiting[T, R]] = [_Waiting(item, loop.create_future(), now) for item in items]
        was_empty = not self._queue
        self._queue.extend(waiting)
        if was_empty or len(self._queue) >= self._limits.max_batch:  # between the two, the worker has a timer
            self._arrival.set()
        try:
            return [await one.result for one in waiting]
        finally:
            for one in waiting:
                if not one.result.done():
                    one.result.cancel()
                elif not one.result.cancelled():
                    one.result.exception()  # looked at, so that nobody warns of the second failure of a request

    async def close(self) -> None:
        """Wait for the batch that runs; what still waits is cancelled."""
        self._closed = True
        for one in self._queue:
            one.result.cancel()
        self._queue.clear()
        self._arrival.set()
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed:
            await self._collect(loop)
            batch = self._take()
            if not batch:
                continue
            start = loop.time()
            await self._run_batch(loop, batch)
            seconds = loop.time() - start
            self._seconds_an_item += _SPEED_SHARE * (seconds / len(batch) - self._seconds_an_item)
            if self._observe is not None:
                self._observe(len(batch), seconds)

    async def _collect(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when there is a batch to run, or when closed."""
        while not self._closed:
            limits = self._limits
            self._arrival.clear()
            if not self._queue:
                await self._arrival.wait()
                continue
            left_s = self._queue[0].arrived_at + limits.max_wait_s - loop.time()
            if left_s <= 0 or len(self._queue) >= limits.max_batch:
                return
            timer = loop.call_later(left_s, self._arrival.set)
            try:
                await self._arrival.wait()
            finally:
                timer.cancel()

    def _take(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        while self._queue and len(batch) < self._limits.max_batch:
            one = self._queue.popleft()
            if not one.result.done():
                batch.append(one)
        return batch

    async def _run_batch(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting[T, R]]) -> None:
        run = self._run
        try:
            results = await loop.run_in_executor(self._executor, _run_checked, run, [one.item for one in batch])
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].result.done():
                    batch[0].result.set_exception(error)
                return
            for one in batch:
                if not one.result.done():
                    await self._run_batch(loop, [one])
            return
        for one, result in zip(batch, results, strict=True):
            if not one.result.done():
                one.result.set_result(result)


def _run_checked(run: Callable[[list[T]], Sequence[R]], items: list[T]) -> Sequence[R]:
    results = run(items)
    if len(results) != len(items):
        raise RuntimeError(f"expected {len(items)} results, got {len(results)}")
    return results
