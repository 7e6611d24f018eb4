"""What is still to be called, model by model, and which call comes next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from gpu_select.benchmark.client import Client
from gpu_select.benchmark.failure import Refusal
from gpu_select.benchmark.progress import ModelProgress
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.targets import Target

__all__ = ["Lane", "Lanes", "resolve"]

_REFUSALS_TO_STOP = 3
_FAILURES_TO_STOP = 10


class Lane:
    """One model's calls.

    Args:
        target: the model.
        client: calls it.
        questions: those that it has not answered yet.
    """

    def __init__(self, target: Target, client: Client, questions: Iterable[Question]) -> None:
        self.target = target
        self.client = client
        self.waiting = deque(questions)
        self.n_open = 0
        """Calls that have begun and are not over, those included that wait to be made again."""
        self.stopped: str | None = None
        """Why the model has been given up."""
        self.pauses: set[asyncio.Future[None]] = set()
        """What those wait for that are to be made again."""
        self.progress = ModelProgress(target.name, len(self.waiting))
        self._refusals = 0
        self._failures = 0

    def has_room(self, most: int) -> bool:
        """Whether a call may begin.

        Args:
            most: calls at once where the model has no limit of its own.
        """
        return bool(self.waiting) and self.n_open < min(most, self.target.concurrency or most)

    def note_answer(self) -> None:
        """A call was answered."""
        self.progress.answered += 1
        self._refusals = self._failures = 0

    def note_failure(self, refusal: Refusal, text: str) -> bool:
        """A call failed for good; whether the model has now been given up for it.

        It is after 3 calls in a row that would be refused whatever the query, or 10 that failed after all retries.
        """
        self.progress.failed += 1
        self._refusals = self._refusals + 1 if refusal is Refusal.FOR_ALL else 0
        self._failures = self._failures + 1 if refusal is Refusal.NO else 0
        is_over = self._refusals >= _REFUSALS_TO_STOP or self._failures >= _FAILURES_TO_STOP
        if self.stopped is not None or not is_over:
            return False
        self.stopped = text
        self.give_up_waiting()
        return True

    def why_stopped(self) -> str:
        """Why the model has been given up, on one line."""
        n_in_a_row, what = (
            (_REFUSALS_TO_STOP, "refusals; check its name, endpoint and key")
            if self._refusals >= _REFUSALS_TO_STOP
            else (_FAILURES_TO_STOP, "calls that failed")
        )
        return (
            f"{self.target.name}: given up after {n_in_a_row} {what} ({self.stopped}); "
            f"{self.progress.skipped} calls are not made"
        )

    def give_up_waiting(self) -> None:
        """Begin no more calls, and let those come back at once that wait to be made again."""
        self.progress.skipped += len(self.waiting)
        self.waiting.clear()
        for pause in self.pauses:
            resolve(pause)


class Lanes:
    """All models, and whose turn it is.

    Args:
        lanes: in the order of the models.
        interleave: take turns, instead of one model after the other.
    """

    def __init__(self, lanes: Sequence[Lane], *, interleave: bool) -> None:
        self.lanes = lanes
        self._interleave = interleave
        self._turn = 0

    def next(self, most: int) -> tuple[Lane, Question] | None:
        """The next call, which then counts as begun; None where nothing waits or every model has enough to do.

        One model after the other: the first one that has room, so that no place stays empty while the last calls of a
        model are under way.
        """
        n = len(self.lanes)
        for i in range(n):
            at = (self._turn + i) % n if self._interleave else i
            lane = self.lanes[at]
            if lane.has_room(most):
                self._turn = at + 1
                lane.n_open += 1
                return lane, lane.waiting.popleft()
        return None


def resolve(pause: asyncio.Future[None]) -> None:
    """End a pause, which its timer, or whoever gives the model up, may have ended already."""
    if not pause.done():
        pause.set_result(None)
