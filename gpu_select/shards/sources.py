"""The files that shards are made of, and what their rows were."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from gpu_select.logs import LogFile
from gpu_select.shards.job import Job
from gpu_select.shards.plan import Shard

__all__ = ["SourceFiles"]


class SourceFiles:
    """The input's files, of which the one that was read last stays open, as the next shard lies behind in it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: tuple[int, LogFile] | None = None

    @contextlib.contextmanager
    def reading(self, number: int) -> Iterator[LogFile]:
        """A file, which must not change meanwhile."""
        identity = self._job.files[number]
        identity.check()
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = number, LogFile(identity.path, format=self._job.input_format)
        yield self._open[1]
        identity.check()

    def digest(self, shard: Shard) -> str:
        """`ShardRecord.source_sha256` of a shard, from the files as they are.

        Raises:
            InputError: a file is damaged or too short.
        """
        digest = hashlib.sha256()
        for span in shard.spans:
            with self.reading(span.file) as file:
                file.digest(span.start, span.end, digest)
        return digest.hexdigest()

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
