"""A whole run: planning, handing shards out, taking what comes back, and what to do about who does not come back."""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_select.errors import ConfigError, DeviceError, GpuSelectError
from gpu_select.pipeline import RouteReport
from gpu_select.shards.folder import RunFolder
from gpu_select.shards.job import Job
from gpu_select.shards.manifest import ShardRecord
from gpu_select.shards.plan import Shard
from gpu_select.shards.planner import Planned, Planner
from gpu_select.shards.pool import AnyWorker, Seat, Worker
from gpu_select.signals import signals_held

__all__ = ["Outcome", "Progress", "run_shards"]

_log = logging.getLogger("gpu_select")

_ATTEMPTS = 2
"""So often a shard may fail."""
_MOST_DEATHS = 3
"""So many processes of one seat may die one after the other, without finishing a shard."""


class Progress(NamedTuple):
    """How far a run is."""

    report: RouteReport
    """Of the rows that are routed, those of earlier runs included; tokens and seconds are of this run."""
    rows_before: int
    """Rows that earlier runs had routed."""
    total: int | None
    """Rows of the log, once they are counted."""


@dataclass
class Outcome:
    """What a run came to."""

    report: RouteReport
    """Of all shards that are there; tokens, seconds and the like are of this run."""
    n_shards: int = 0
    rows_before: int = 0
    """Rows that earlier runs had routed."""
    failed: dict[int, str] = field(default_factory=dict)
    """Why shards are missing."""
    without_domain: str = "other"
    """`LogRouter.without_domain`."""
    result_fields: tuple[str, ...] = ()


def run_shards(
    job: Job,
    folder: RunFolder,
    seats: Sequence[Seat],
    *,
    progress: Callable[[Progress], object] | None = None,
    start: Callable[..., AnyWorker] = Worker,
) -> Outcome:
    """Make the shards that a folder lacks.

    Args:
        job: what is done.
        folder: of this job.
        seats: where processes compute; one each.
        progress: called now and then.
        start: makes a process; takes the arguments of `Worker`.

    Raises:
        GpuSelectError: the run cannot go on, or must not; what was finished is kept.
    """
    run = _Run(job, folder, seats, progress, start)
    try:
        return run.run()
    finally:
        run.stop()


@dataclass(eq=False)
class _Task:
    shard: Shard
    failures: list[str] = field(default_factory=list)
    failed_at: Seat | None = None


@dataclass(eq=False)
class _Chair:
    """A seat and who sits on it."""

    seat: Seat
    worker: AnyWorker | None = None
    is_ready: bool = False
    task: _Task | None = None
    rows: int = 0
    """Of the task's shard, so far."""
    tokens: int = 0
    n_deaths: int = 0


class _Run:
    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        seats: Sequence[Seat],
        progress: Callable[[Progress], object] | None,
        start: Callable[..., AnyWorker],
    ) -> None:
        self._job = job
        self._folder = folder
        self._progress = progress
        self._start_worker = start
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._chairs = [_Chair(seat) for seat in seats]
        self._tasks: deque[_Task] = deque()
        self._records: dict[int, ShardRecord] = {}
        self._failed: dict[int, str] = {}
        self._report = RouteReport()
        self._rows_before = self._n_rows = 0
        self._total: int | None = None
        self._n_planned_rows = 0
        self._facts: dict[str, Any] | None = None
        self._planning_error: BaseException | None = None
        self._error: GpuSelectError | None = None
        self._planner = Planner(job, folder, self._events, len(seats) + 1)
        self._began = time.perf_counter()

    def run(self) -> Outcome:
        """Work until nothing is left to do."""
        for chair in self._chairs:
            self._seat_worker(chair)
        while not self._is_over():
            event = self._events.get()
            if isinstance(event, Planned):
                self._take_planned(event)
            else:
                worker, reply = event
                for chair in self._chairs:
                    if chair.worker is worker:
                        self._take_reply(chair, reply)
            self._hand_out()
            self._show()
        error = self._error or self._planning_error
        if error is not None:
            raise error
        self._folder.finish(self._records, self._failed)
        assert self._facts is not None
        return Outcome(
            self._whole_report(),
            len(self._records) + len(self._failed),
            self._rows_before,
            self._failed,
            self._facts["without_domain"],
            tuple(self._facts["result_fields"]),
        )

    def stop(self) -> None:
        """End the processes and what they have begun."""
        self._planner.stop()
        for chair in self._chairs:
            if chair.worker is not None:
                chair.worker.kill()
        self._folder.remove_leftovers()

    def _is_over(self) -> bool:
        if any(chair.task for chair in self._chairs):
            return False
        if self._error is not None:
            return True
        is_planned = self._total is not None or self._planning_error is not None
        # a router that nobody compared could be another one
        return is_planned and not self._tasks and (self._facts is not None or self._planning_error is not None)

    def _take_planned(self, planned: Planned) -> None:
        if planned.error is not None:
            self._planning_error = planned.error
            if planned.damaged is not None:
                self._folder.note_damage(planned.damaged)
        elif planned.shard is None:
            self._total = self._n_planned_rows
        else:
            self._n_planned_rows += planned.shard.n_rows
            if planned.record is None:
                self._tasks.append(_Task(planned.shard))
            else:
                self._planner.take()
                self._rows_before += planned.record.rows
                self._keep(planned.record)

    # ---------------------------------------------------------------- processes

    def _seat_worker(self, chair: _Chair) -> None:
        chair.is_ready = False
        with signals_held():  # an interrupt between a process's start and its being known would leave it behind
            chair.worker = self._start_worker(self._job, chair.seat, self._events, self._folder.lock)

    def _hand_out(self) -> None:
        if self._error is not None:
            return
        for chair in self._chairs:
            if chair.worker is None or not chair.is_ready or chair.task is not None:
                continue
            n_alive = sum(other.worker is not None for other in self._chairs)
            fit = (task for task in self._tasks if task.failed_at is not chair.seat or n_alive == 1)
            task = next(fit, None)
            if task is not None:
                self._tasks.remove(task)
                if not task.failures:
                    self._planner.take()
                chair.task, chair.rows, chair.tokens = task, 0, 0
                chair.worker.route(task.shard)

    def _take_reply(self, chair: _Chair, reply: dict[str, Any] | None) -> None:
        if reply is None:
            self._take_death(chair)
        elif "rows" in reply:
            chair.rows, chair.tokens = reply["rows"], reply["tokens"]
        elif "warning" in reply:
            _log.warning("%s", reply["warning"])
        elif "ready" in reply:
            self._take_ready(chair, reply["ready"])
        elif "done" in reply:
            self._take_done(chair, reply["done"])
        elif "failed" in reply:
            self._fail(chair, reply["failed"])
        else:
            self._error = self._error or GpuSelectError(reply["stop"])
            chair.task = None
            if reply["file"] is not None:
                self._folder.note_damage(self._job.files[reply["file"]].path)

    def _take_ready(self, chair: _Chair, facts: dict[str, Any]) -> None:
        try:
            self._folder.begin(facts["router"], facts["versions"])
        except ConfigError as error:
            if self._facts is None:
                raise
            # nodes of a cluster may differ, and so may files when a process begins anew
            raise ConfigError.joined([f"{chair.seat.name} is not like those before it: {error}"]) from error
        if self._facts is None:
            self._facts = facts
            self._began = time.perf_counter()
        chair.is_ready = True

    def _take_done(self, chair: _Chair, done: dict[str, Any]) -> None:
        record = ShardRecord.from_json(done["record"])
        self._folder.add(record)
        self._keep(record)
        self._report.tokens += done["tokens"]
        self._report.truncated += done["truncated"]
        self._report.cached += done["cached"]
        for stage, seconds in done["stage_seconds"].items():
            self._report.stage_seconds[stage] = self._report.stage_seconds.get(stage, 0.0) + seconds
        chair.task, chair.rows, chair.tokens, chair.n_deaths = None, 0, 0, 0

    def _fail(self, chair: _Chair, reason: str) -> None:
        task, chair.task, chair.rows, chair.tokens = chair.task, None, 0, 0
        assert task is not None
        task.failures.append(f"{chair.seat.name}: {reason}")
        task.failed_at = chair.seat
        if len(task.failures) < _ATTEMPTS:
            self._tasks.appendleft(task)
            return
        self._failed[task.shard.number] = reason
        name = self._job.part_path(task.shard.number).name
        _log.warning("%s failed twice (%s): going on without it", name, "; ".join(task.failures))

    def _take_death(self, chair: _Chair) -> None:
        assert chair.worker is not None
        ending = chair.worker.ending
        chair.worker.kill()
        chair.worker = None
        chair.n_deaths += 1
        if chair.task is not None:
            self._fail(chair, ending)
        if self._error is not None:
            return
        if chair.n_deaths < _MOST_DEATHS:
            self._seat_worker(chair)
        elif any(other.worker for other in self._chairs):
            _log.warning("%s %s, as did those before it: going on without it", chair.seat.name, ending)
        else:
            self._error = DeviceError(
                f"{chair.seat.name} {ending}, as did those before it, and no other is left; what they wrote before "
                f"says why, or memory has run out (fewer --workers, a smaller --token-budget)"
            )

    # ---------------------------------------------------------------- what has come out

    def _keep(self, record: ShardRecord) -> None:
        self._records[record.number] = record
        self._n_rows += record.rows

    def _whole_report(self) -> RouteReport:
        """Of all shards, in their order."""
        report = self._report
        report.rows = report.errors = report.without_domain = 0
        report.share, report.decisions, report.first_error = Counter(), Counter(), ""
        for number in sorted(self._records):
            record = self._records[number]
            if record.first_error and not report.first_error:
                report.first_error = f"{self._job.part_path(number).name}, {record.first_error}"
            report.rows += record.rows
            report.errors += record.errors
            report.without_domain += record.without_domain
            report.renamed.update(record.renamed)
            report.share.update(record.share)
            report.decisions.update(record.decisions)
        report.seconds = time.perf_counter() - self._began
        return report

    def _show(self) -> None:
        if self._progress is None:
            return
        rows = self._n_rows + sum(chair.rows for chair in self._chairs)
        tokens = self._report.tokens + sum(chair.tokens for chair in self._chairs)
        so_far = RouteReport(rows=rows, tokens=tokens, seconds=time.perf_counter() - self._began)
        self._progress(Progress(so_far, self._rows_before, self._total))
