"""Reading a log: windows of rows, whatever the format."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from gpu_select.errors import ConfigError, InputError
from gpu_select.lines import MAX_LINE_BYTES
from gpu_select.logs.file import LogFile
from gpu_select.logs.formats import log_format
from gpu_select.logs.parquet import joined
from gpu_select.logs.rows import Chunks, Row

__all__ = ["LogReader", "check_columns", "named", "open_log", "open_logs"]


class LogReader:
    """An open log; a context manager that closes it. Its rows can be read once, in one of two ways."""

    columns: list[str] | None
    """The fields of every row where the format fixes them (CSV, TSV, TXT, Parquet), None for JSON lines."""
    schema: Any
    """The pyarrow schema of a Parquet file, for `open_writer`; None for other formats. With several files, the first
    one's, as `columns`."""
    has_batches: bool
    """Whether all of it is Parquet, so that there are `batches`."""

    def __init__(
        self,
        chunks: Chunks,
        batches: Iterator[Any] | None,
        columns: list[str] | None,
        schema: Any,
        stack: contextlib.ExitStack,
    ) -> None:
        self._chunks = chunks
        self._batches = batches
        self._stack = stack
        self.columns = columns
        self.schema = schema
        self.has_batches = batches is not None

    def windows(self, n_rows: int) -> Iterator[list[Row]]:
        """The rows in order, at most `n_rows` (1 or more) at a time; fewer where they take more than 64 MiB.

        Raises:
            InputError: the file is damaged.
        """
        window: list[Row] = []
        window_bytes = 0
        for rows, n_bytes in self._chunks:
            window += rows
            window_bytes += n_bytes
            while len(window) >= n_rows or (window and window_bytes >= MAX_LINE_BYTES):
                yield window[:n_rows]
                del window[:n_rows]
                window_bytes = 0
        if window:
            yield window

    def batches(self, n_rows: int) -> Iterator[Any]:
        """The same as record batches, about `n_rows` at a time; those of different files are not put together.

        Raises:
            InputError: the file is damaged.
        """
        window: list[Any] = []
        for batch in self._batches or ():
            if window and not batch.schema.equals(window[0].schema):
                yield from joined(window)
                window = []
            window.append(batch)
            if sum(b.num_rows for b in window) >= n_rows or sum(b.nbytes for b in window) >= MAX_LINE_BYTES:
                yield from joined(window)
                window = []
        if window:
            yield from joined(window)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def open_log(path: str, *, format: str | None = None, stop: threading.Event | None = None) -> LogReader:
    """Open a log by its name (.jsonl, .ndjson, .csv, .tsv, .txt, .parquet; all but the last also .gz and .zst).

    A row that cannot be read keeps its place as a `Row` with an error. Lines are bounded at 64 MiB.

    Args:
        path: a file name, or `-` for standard input.
        format: `jsonl`, `csv`, `tsv`, `txt` or `parquet`, whatever the name says; `-` is JSON lines without it.
        stop: set by another thread, it ends waiting for rows that may never come.
    Raises:
        InputError: missing, unreadable, damaged, of an unknown kind, or a CSV file without a usable header.
        MissingDependencyError: a package for the file's kind is not installed.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(LogFile(path, format=format, stop=stop))
        return LogReader(file.chunks(), file.batches(), file.columns, file.schema, stack.pop_all())


def open_logs(
    paths: Sequence[str],
    *,
    format: str | None = None,
    needed: Sequence[tuple[str, str]] = (),
    stop: threading.Event | None = None,
) -> LogReader:
    """Open several files as one log. What is wrong with a row then also names its file.

    Args:
        paths: at least one file name; `-` only alone.
        format, stop: as in `open_log`.
        needed: as in `check_columns`; a file is checked when it is its turn, the first one at once.
    Raises:
        InputError, MissingDependencyError: as `open_log`.
        ConfigError: a file without a needed column.
    """
    if len(paths) == 1:
        log = open_log(paths[0], format=format, stop=stop)
        with contextlib.ExitStack() as stack:
            stack.enter_context(log)
            check_columns(paths[0], log.columns, needed)
            stack.pop_all()
        return log
    with LogFile(paths[0], format=format, stop=stop) as first:
        check_columns(paths[0], first.columns, needed)

    def files() -> Iterator[LogFile]:
        for path in paths:
            with LogFile(path, format=format, stop=stop) as file:
                check_columns(path, file.columns, needed)
                yield file

    def batches() -> Iterator[Any]:
        for file in files():
            yield from file.batches() or ()

    chunks = (named(chunk, file.path) for file in files() for chunk in file.chunks())
    all_parquet = all(log_format(path, format, InputError) == "parquet" for path in paths)
    return LogReader(chunks, batches() if all_parquet else None, first.columns, first.schema, contextlib.ExitStack())


def named(chunk: tuple[list[Row], int], path: str) -> tuple[list[Row], int]:
    """The same rows, with their file's name before what is wrong with them."""
    for row in chunk[0]:
        if row.error is not None:
            row.error = f"{path}: {row.error}"
    return chunk


def check_columns(path: str, columns: Sequence[str] | None, needed: Sequence[tuple[str, str]]) -> None:
    """Refuse a file that lacks columns which options name.

    Args:
        path: the file.
        columns: `LogReader.columns` of it.
        needed: names of options, each with that of a column.
    Raises:
        ConfigError: there is no such column.
    """
    for option, name in needed:
        if columns is not None and name not in columns:
            raise ConfigError(option, name, f"one of the columns of {path}: {', '.join(columns)}")
