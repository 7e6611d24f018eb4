"""Writing a routed log, whatever the format."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Protocol, Self, runtime_checkable

from gpu_select.errors import OutputError
from gpu_select.files import atomic_write
from gpu_select.logs.delimited import DELIMITERS, DelimitedSink
from gpu_select.logs.formats import log_format
from gpu_select.logs.jsonl import JsonlSink
from gpu_select.logs.parquet_sink import Layout, ParquetSink
from gpu_select.logs.rows import RESULT_FIELDS
from gpu_select.logs.txt import TxtSink

__all__ = ["LogWriter", "open_writer"]


class _Sink(Protocol):
    def write(self, rows: Sequence[dict[str, Any]]) -> None: ...

    def finish(self) -> None: ...


@runtime_checkable
class _ColumnSink(_Sink, Protocol):
    def write_columns(self, columns: Mapping[str, Any], n_rows: int) -> None: ...


class LogWriter:
    """An open output; a context manager. The file gets its name at the end, and only when nothing was raised.

    Args:
        sink: takes what is written.
        stack: closed at the end.
    """

    def __init__(self, sink: _Sink, stack: contextlib.ExitStack) -> None:
        self._sink = sink
        self._stack = stack
        stack.push(self._finish)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows: kept input fields, `score` and `margin` (numbers), other result fields (texts); or None each.

        Raises:
            OutputError: the file cannot be written, or a row does not fit the table's columns.
        """
        if rows:
            self._sink.write(rows)

    @property
    def takes_columns(self) -> bool:
        """Whether the format has columns of its own, so that there is `write_columns`."""
        return isinstance(self._sink, _ColumnSink)

    def write_columns(self, columns: Mapping[str, Any], n_rows: int) -> None:
        """Append rows that come as columns.

        Args:
            columns: by name, Arrow arrays, or NumPy arrays of numbers that are NaN where there is none.
            n_rows: how many rows.
        Raises:
            OutputError: the file cannot be written, or a column does not fit.
        """
        assert isinstance(self._sink, _ColumnSink)
        if n_rows:
            self._sink.write_columns(columns, n_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _finish(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._sink.finish()


def open_writer(
    path: str,
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    schema: Any = None,
    result_fields: Sequence[str] = RESULT_FIELDS,
    layout: Layout | None = None,
    stop: threading.Event | None = None,
) -> LogWriter:
    """Open an output by its name (.jsonl, .ndjson, .csv, .tsv, .txt, .parquet; all but the last also .gz and .zst).

    Args:
        path: a file name, or `-` for standard output. A temporary file is written, and renamed at the end.
        format: `jsonl`, `csv`, `tsv`, `txt` or `parquet`, whatever the name says; `-` is JSON lines without it.
        columns: the kept input fields where they are known; for tables (CSV, TSV, Parquet). Those of the first window
            are added to them; a later row cannot bring new ones.
        schema: of the input, its columns called as in the output: a Parquet output keeps their types.
        result_fields: what routing adds, in the order of a table's last columns.
        layout: the columns of a Parquet output, whatever its first window holds; with it, `columns` and `schema` say
            nothing.
        stop: set by another thread, it ends waiting for a reader of standard output.
    Raises:
        OutputError: the file cannot be written, or its name says nothing.
        MissingDependencyError: a package for the file's kind is not installed.
    """
    log = log_format(path, format, OutputError)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(atomic_write(path, stop=stop))
        return LogWriter(_sink(log, stream, path, columns, schema, stack, result_fields, layout), stack.pop_all())


def _sink(
    log: str,
    stream: IO[bytes],
    path: str,
    columns: Sequence[str] | None,
    schema: Any,
    stack: contextlib.ExitStack,
    result_fields: Sequence[str],
    layout: Layout | None,
) -> _Sink:
    if log == "jsonl":
        return JsonlSink(stream)
    if log == "txt":
        return TxtSink(stream)
    if log == "parquet":
        return ParquetSink(stream, path, columns, schema, stack, result_fields, layout)
    return DelimitedSink(stream, DELIMITERS[log], path, columns, result_fields)
