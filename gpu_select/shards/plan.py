"""Which rows make a shard: N after N of all files, one behind the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from gpu_select.logs import LogFile, Place, RowCounter, check_columns
from gpu_select.shards.job import Job

__all__ = ["Shard", "ShardPlan", "Span", "plan_shards"]


class Span(NamedTuple):
    """Rows of one file that lie together."""

    file: int
    """Its number in the job."""
    start: Place
    end: Place
    n_rows: int

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """From the nested lists that JSON makes of it.

        Raises:
            ValueError, TypeError: something else.
        """
        file, start, end, n_rows = values
        span = cls(file, Place(*start), Place(*end), n_rows)
        if not all(type(n) is int and n >= 0 for n in (file, *span.start, *span.end, n_rows)):
            raise ValueError("a span is made of numbers")
        return span


class Shard(NamedTuple):
    """What is routed as a unit."""

    number: int
    spans: tuple[Span, ...]
    """In order; none in the only shard of a log without rows."""

    @property
    def n_rows(self) -> int:
        """Rows of all spans."""
        return sum(span.n_rows for span in self.spans)


def plan_shards(job: Job) -> Iterator[Shard]:
    """All shards of a job.

    Raises:
        GpuSelectError: as `ShardPlan.next`.
    """
    with ShardPlan(job) as plan:
        while (shard := plan.next()) is not None:
            yield shard


class ShardPlan:
    """Goes through the files of a job shard by shard; a context manager that closes them.

    Args:
        job: what to plan.
        known: shards that were planned before, by number, which need not be searched for.

    Attributes:
        file: number of the file that it is in, also after an error.
    """

    def __init__(self, job: Job, known: Mapping[int, Shard] | None = None) -> None:
        self.file = 0
        self._job = job
        self._known = known or {}
        self._numbers = itertools.count()
        self._at_known = True
        """Whether it stands where a known shard ended, or at the start, so that the next known one follows."""
        self._open: LogFile | None = None
        self._counter: RowCounter | None = None
        self._go_to: Place | None = None
        self._ended = False

    def next(self) -> Shard | None:
        """The next shard, None after the last one.

        Raises:
            InputError: a file is damaged, or has become shorter.
            ConfigError: a file without a column that an option names.
        """
        if self._ended:
            return None
        number = next(self._numbers)
        known = self._known.get(number)
        if known is not None and known.spans and (self._at_known or self._is_at(known.spans[0])):
            last = known.spans[-1]
            self._leave()
            self.file, self._go_to, self._at_known = last.file, last.end, True
            return known
        self._at_known = False
        spans = self._take(self._job.shard_rows)
        shard = Shard(number, spans)
        self._ended = shard.n_rows < self._job.shard_rows
        return shard if spans or number == 0 else None

    def _take(self, n_rows: int) -> tuple[Span, ...]:
        spans = []
        while n_rows and self.file < len(self._job.files):
            counter = self._enter()
            start = counter.place
            n = counter.advance(n_rows)
            if n:
                spans.append(Span(self.file, start, counter.place, n))
            n_rows -= n
            if n_rows:
                self._leave()
                self.file += 1
        return tuple(spans)

    def _is_at(self, span: Span) -> bool:
        """Whether a span begins with the next row."""
        while self.file < span.file:
            counter = self._enter()
            place = counter.place
            if counter.advance(1):
                counter.go_to(place)
                return False
            self._leave()
            self.file += 1
        return self.file == span.file and self._enter().place == span.start

    def _enter(self) -> RowCounter:
        """The counter of the file that it is in."""
        if self._counter is None:
            path = self._job.files[self.file].path
            self._open = LogFile(path, format=self._job.input_format)
            check_columns(path, self._open.columns, self._job.options.needed_columns)
            self._counter = RowCounter(self._open)
            if self._go_to is not None:
                self._counter.go_to(self._go_to)
                self._go_to = None
        return self._counter

    def _leave(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = self._counter = self._go_to = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()
