"""Planning beside routing: a thread that goes through the input and looks at what is there already."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import Any, NamedTuple

from gpu_select.errors import ConfigError
from gpu_select.shards.folder import RunFolder
from gpu_select.shards.job import Job
from gpu_select.shards.manifest import ShardRecord
from gpu_select.shards.plan import Shard, ShardPlan
from gpu_select.shards.sources import SourceFiles

__all__ = ["Planned", "Planner"]

_log = logging.getLogger("gpu_select")

_LOOK_AHEAD = 100_000
"""Shards that are planned in advance where that costs nothing. Files that have to be read are best read by the planning
and by the process that routes at about the same time, while they are in memory.
"""


class Planned(NamedTuple):
    """What the planning says; without anything, that it is done."""

    shard: Shard | None = None
    record: ShardRecord | None = None
    """Where the shard is there already."""
    error: BaseException | None = None
    damaged: str | None = None
    """The input file that the error comes from, if it comes from one."""


class Planner:
    """Puts every shard of a job into a queue, in order, as `Planned`; at the end `Planned()`, or an error.

    Args:
        job: what is planned.
        folder: of the job; its finished shards are checked.
        planned: the queue.
        look_ahead: shards that may be in the queue, and not taken, where the input has to be read to plan them.
    """

    def __init__(self, job: Job, folder: RunFolder, planned: queue.SimpleQueue[Any], look_ahead: int) -> None:
        self._job = job
        self._folder = folder
        self._planned = planned
        self._room = threading.Semaphore(_LOOK_AHEAD if job.is_parquet else look_ahead)
        self._stopped = threading.Event()
        threading.Thread(target=self._plan, name="gpu_select plan", daemon=True).start()

    def take(self) -> None:
        """Say that one of the shards has been taken."""
        self._room.release()

    def stop(self) -> None:
        """Plan no more."""
        self._stopped.set()
        self._room.release()

    def _plan(self) -> None:
        # of a file that changed, rows are counted anew: there may be more behind those of the last shard in it
        changed = self._folder.changed
        records = self._folder.records
        known = {n: record.shard for n, record in records.items() if not changed & _files_of(record)}
        damaged: str | None = None
        n_shards = 0
        try:
            with ShardPlan(self._job, known) as plan, contextlib.closing(SourceFiles(self._job)) as sources:
                while not self._stopped.is_set():
                    damaged = self._job.files[min(plan.file, len(self._job.files) - 1)].path
                    shard = plan.next()
                    damaged = None
                    if shard is None:
                        gone = [record for number, record in records.items() if number >= n_shards]
                        if gone and changed:
                            raise self._changed(gone[0], changed)
                        break
                    n_shards += 1
                    self._room.acquire()
                    self._planned.put(Planned(shard, self._finished(shard, sources)))
            self._planned.put(Planned())
        except BaseException as error:  # one that nobody took would have the run wait for ever
            self._planned.put(Planned(error=error, damaged=damaged))

    def _finished(self, shard: Shard, sources: SourceFiles) -> ShardRecord | None:
        """The record of a shard that is there and still what it would be."""
        record = self._folder.records.get(shard.number)
        if record is None:
            return None
        changed = self._folder.changed & (_files_of(record) | _files_of(shard))
        if record.spans != shard.spans and not changed:
            return None
        if not self._folder.has_file_of(record):
            name = self._job.part_path(shard.number).name
            _log.warning("%s is not what was written: it is made anew", self._folder.path / name)
            return None
        if changed and (record.spans != shard.spans or sources.digest(shard) != record.source_sha256):
            raise self._changed(record, changed)
        return record

    def _changed(self, record: ShardRecord, files: frozenset[int]) -> ConfigError:
        name, path = self._job.part_path(record.number).name, self._job.files[min(files)].path
        problem = f"{path} has changed since {self._folder.path} was begun: {name} was made of other rows"
        return ConfigError.joined([f"{problem}; bring the file back, or give another --output"])


def _files_of(rows: Shard | ShardRecord) -> frozenset[int]:
    return frozenset(span.file for span in rows.spans)
