"""Makes the calls: so many at once, and those that fail again after a while."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import partial

from gpu_select.benchmark.answer import Answer
from gpu_select.benchmark.failure import CallFailedError
from gpu_select.benchmark.lanes import Lane, Lanes, resolve
from gpu_select.benchmark.progress import Observer
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.recorder import Recorder
from gpu_select.benchmark.retry import wait_s

__all__ = ["Runner"]

_MOST_UNSCORED = 1000
"""Answers that wait for their score; beyond, no further call begins, as they are in memory."""


class Runner:
    """Makes all calls of some lanes.

    A call that waits to be made again leaves its place among all calls to another model's, but keeps the one among its
    own model's: a server that is overloaded gets no more than it had.

    Args:
        lanes: what to call.
        recorder: takes what comes.
        prompt: gives the text of a question.
        concurrency: calls at once, of all models.
        retries: tries beyond the first.
        observer: is told of progress and trouble.
        rng: the chance in the waits.
    """

    def __init__(
        self,
        lanes: Lanes,
        recorder: Recorder,
        prompt: Callable[[Question], str],
        *,
        concurrency: int,
        retries: int,
        observer: Observer,
        rng: random.Random | None = None,
    ) -> None:
        self._lanes = lanes
        self._recorder = recorder
        self._prompt = prompt
        self._concurrency = concurrency
        self._retries = retries
        self._observer = observer
        self._rng = rng or random.Random()
        self._coming_back: deque[asyncio.Future[bool]] = deque()
        self._group = asyncio.TaskGroup()
        self.n_calling = 0
        """Calls under way."""
        self.is_stopping = False

    async def run(self) -> None:
        """Make them.

        Raises:
            GpuSelectError: what the recorder raises; it ends everything.
        """
        async with self._group:
            self._fill()

    def stop(self) -> None:
        """Begin no further call, and make none again; those under way are finished."""
        self.is_stopping = True
        for lane in self._lanes.lanes:
            lane.give_up_waiting()
        for place in self._coming_back:
            place.set_result(False)
        self._coming_back.clear()

    def _fill(self) -> None:
        """Give every free place to a call, first to those that come back."""
        while self.n_calling < self._concurrency and self._coming_back:
            self.n_calling += 1
            self._coming_back.popleft().set_result(True)
        while self.n_calling < self._concurrency and self._recorder.n_unscored < _MOST_UNSCORED:
            chosen = self._lanes.next(self._concurrency)
            if chosen is None:
                return
            self.n_calling += 1
            self._group.create_task(self._job(*chosen))

    async def _job(self, lane: Lane, question: Question) -> None:
        outcome, n_tries = await self._call(lane, question)
        if isinstance(outcome, Answer):
            lane.note_answer()
            # the place is left when the answer is on disk: a kill costs no more answers than there are places
            leave = partial(self._leave, lane, n_places=1)
            await self._recorder.answered(question, lane.target, outcome, n_tries, leave)
            self._fill()
            return
        if outcome is None:
            lane.progress.skipped += 1
        else:
            self._recorder.failed(question, lane.target, str(outcome), n_tries)
            if lane.note_failure(outcome.refusal, str(outcome)):
                self._observer.say(lane.why_stopped())
        self._leave(lane)

    def _leave(self, lane: Lane, n_places: int = 0) -> None:
        self.n_calling -= n_places
        lane.n_open -= 1
        self._fill()
        self._observer.change()

    async def _call(self, lane: Lane, question: Question) -> tuple[Answer | CallFailedError | None, int]:
        """An answer, the last failure, or None for a call that is not to be made again; and the number of tries.

        With an answer, it still has its place.
        """
        text = self._prompt(question)
        n_tries = 0
        while True:
            n_tries += 1
            try:
                return await lane.client.ask(text), n_tries
            except CallFailedError as error:
                failure = error
            self.n_calling -= 1
            if n_tries > self._retries or not failure.may_retry:
                return failure, n_tries
            if not lane.progress.retries and not lane.progress.answered:
                self._observer.say(f"{lane.target.name}: {failure}; trying again")
            lane.progress.retries += 1
            self._observer.change()
            self._fill()
            await self._pause(lane, wait_s(n_tries, failure.asked_s, self._rng))
            if not await self._take_place(lane):
                return None, n_tries

    async def _pause(self, lane: Lane, seconds: float) -> None:
        """Wait, unless the model is given up."""
        if self._is_over(lane):
            return
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, resolve, pause)
        lane.pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            lane.pauses.discard(pause)

    async def _take_place(self, lane: Lane) -> bool:
        """Whether a place was to be had, and is still of use."""
        if self._is_over(lane):
            return False
        if self.n_calling < self._concurrency:
            self.n_calling += 1
            return True
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._coming_back.append(place)
        if not await place:
            return False
        if self._is_over(lane):
            self.n_calling -= 1
            self._fill()
            return False
        return True

    def _is_over(self, lane: Lane) -> bool:
        return self.is_stopping or lane.stopped is not None
