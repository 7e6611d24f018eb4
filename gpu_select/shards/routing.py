"""Routing one shard after the other in one process."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from importlib import metadata
from types import TracebackType
from typing import Any, Self, cast

import torch

from gpu_select import __version__
from gpu_select.errors import InputError
from gpu_select.files import open_read
from gpu_select.logs import Chunks, LogFile, LogReader, log_format, named, open_logs, open_writer
from gpu_select.logs.parquet import release_memory
from gpu_select.logs.parquet_sink import Layout, layout_of
from gpu_select.pipeline import WINDOW_ROWS, RouteReport
from gpu_select.pipeline.log_router import LogRouter
from gpu_select.pipeline.windows import Keeper, failed
from gpu_select.shards.job import Job
from gpu_select.shards.manifest import ShardRecord
from gpu_select.shards.plan import Shard, Span
from gpu_select.shards.sources import SourceFiles

__all__ = ["ShardRouter"]

_PACKAGES = ("numpy", "orjson", "pyarrow", "tokenizers", "torch", "transformers")


class ShardRouter:
    """A router with the files of a job; a context manager that closes them.

    Args:
        job: what is routed, and how.
        device: from `resolve_device`.

    Attributes:
        router: what decides.
        file: number of the file that was read last, also after an error.

    Raises:
        GpuSelectError: the router cannot be loaded, or the log not be opened.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self.router = LogRouter(job.options, device)
        self.file = 0
        self._job = job
        self._files = SourceFiles(job)
        with open_logs(job.paths, format=job.input_format) as log:
            self._columns, self._schema = log.columns, log.schema
            self._layout = self._layout_of(log) if job.output_format == "parquet" else None

    def _layout_of(self, log: LogReader) -> Layout:
        """All shards have the same columns: those of the input's schema, else of the log's first window."""
        keeper = Keeper(self._job.options.keep, self.router.result_fields)
        rows = [] if log.schema is not None else next(log.windows(WINDOW_ROWS), [])
        nothing = failed("", self.router.result_fields)
        return layout_of(
            self._job.folder,
            [keeper.row(row.fields, nothing) for row in rows],
            self.router.kept_columns(log.columns),
            self.router.kept_schema(log.schema),
            self.router.result_fields,
        )

    def versions(self) -> dict[str, str | None]:
        """Of what computes and writes; None for what is not installed."""
        out: dict[str, str | None] = {"gpu_select": __version__}
        for name in _PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                out[name] = metadata.version(name)
            out.setdefault(name, None)
        return out

    def route(
        self, shard: Shard, progress: Callable[[RouteReport], object] | None = None
    ) -> tuple[ShardRecord, RouteReport]:
        """Route one shard into its file, which gets its name when it is complete and synced.

        Args:
            shard: of the job's plan; those of a process are read cheapest in rising order.
            progress: called after each window.

        Raises:
            InputError: a file is damaged, or not what it was when it was planned.
            OutputError: the shard's file cannot be written.
            GpuSelectError: what routing raises.
        """
        path = self._job.part_path(shard.number)
        digest = hashlib.sha256()
        try:
            with open_writer(
                str(path),
                format=self._job.output_format,
                result_fields=self.router.result_fields,
                layout=self._layout,
            ) as out:
                report = self.router.route(self._reader(shard, digest), out, progress=progress)
        except BaseException:
            self._files.close()  # what has failed cannot be read on
            raise
        self.router.flush()
        release_memory()  # or the next shard's would come on top of this one's
        with open_read(path) as stream:
            sha256 = hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
        record = ShardRecord(
            number=shard.number,
            rows=report.rows,
            n_bytes=path.stat().st_size,
            sha256=sha256,
            source_sha256=digest.hexdigest(),
            spans=shard.spans,
            errors=report.errors,
            first_error=report.first_error,
            without_domain=report.without_domain,
            renamed=tuple(sorted(report.renamed)),
            share=dict(sorted(report.share.items())),
            decisions=dict(sorted(report.decisions.items())),
        )
        return record, report

    def _reader(self, shard: Shard, digest: Any) -> LogReader:
        def files() -> Iterator[tuple[LogFile, Span]]:
            for span in shard.spans:
                self.file = span.file
                with self._files.reading(span.file) as file:
                    yield file, span

        def chunks() -> Chunks:
            for file, span in files():
                for chunk in file.part(span.start, span.end, digest):
                    yield named(chunk, file.path) if len(self._job.files) > 1 else chunk

        def batches() -> Iterator[Any]:
            for file, span in files():
                yield from file.part_batches(span.start, span.end, digest)

        kinds = {log_format(self._job.files[s.file].path, self._job.input_format, InputError) for s in shard.spans}
        as_batches = batches() if kinds == {"parquet"} else None
        return LogReader(chunks(), as_batches, self._columns, self._schema, contextlib.ExitStack())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
        self.router.flush()
