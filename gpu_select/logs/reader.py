"""Reading a log: windows of rows, whatever the format."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from gpu_select.errors import InputError
from gpu_select.files import open_read
from gpu_select.lines import MAX_LINE_BYTES
from gpu_select.logs.delimited import DELIMITERS, read_delimited
from gpu_select.logs.formats import log_format
from gpu_select.logs.jsonl import read_jsonl
from gpu_select.logs.parquet import open_parquet
from gpu_select.logs.rows import Chunks, Row
from gpu_select.logs.txt import TXT_COLUMNS, read_txt

__all__ = ["LogReader", "open_log"]


class LogReader:
    """An open log; a context manager that closes it."""

    columns: list[str] | None
    """The fields of every row where the format fixes them (CSV, TSV, TXT, Parquet), None for JSON lines."""
    schema: Any
    """The pyarrow schema of a Parquet file, for `open_writer`; None for other formats."""

    def __init__(self, chunks: Chunks, columns: list[str] | None, schema: Any, stack: contextlib.ExitStack) -> None:
        self._chunks = chunks
        self._stack = stack
        self.columns = columns
        self.schema = schema

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
    log = log_format(path, format, InputError)
    with contextlib.ExitStack() as stack:
        columns: list[str] | None = None
        schema: Any = None
        if log == "parquet":
            schema, chunks = open_parquet(path, stack)
            columns = list(schema.names)
        else:
            stream = stack.enter_context(open_read(path, stop=stop))
            if log == "jsonl":
                chunks = read_jsonl(stream)
            elif log == "txt":
                columns, chunks = TXT_COLUMNS.copy(), read_txt(stream)
            else:
                columns, chunks = read_delimited(stream, DELIMITERS[log], path)
        return LogReader(chunks, columns, schema, stack.pop_all())
