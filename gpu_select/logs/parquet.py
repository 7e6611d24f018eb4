"""Reading Parquet, through pyarrow, which is imported only when such a file is opened."""

from __future__ import annotations

import bisect
import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any

from gpu_select.errors import InputError, MissingDependencyError, brief
from gpu_select.files import STDIO
from gpu_select.logs.rows import CHUNK_ROWS, Row

__all__ = ["ParquetRows", "import_pyarrow", "joined", "kept_type", "packed", "release_memory", "rows_of"]

_READ_BUFFER_BYTES = 1 << 20  # without it, or with `pre_buffer`, a row group's whole columns are held


def import_pyarrow() -> Any:
    """The module pyarrow, with pyarrow.parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "a Parquet file", "'gpu-select[parquet]'") from error
    return pyarrow


def release_memory() -> None:
    """Give back what the allocator of tables keeps for later; nothing where no table was read or written."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pyarrow.default_memory_pool().release_unused()


class ParquetRows:
    """The rows of a Parquet file, any part of them, cheapest where each part lies behind the one before.

    Row groups are read one by one: what a batch holds hangs on the part that was asked for, not on those before.

    Args:
        path: the file.
        stack: closes it.

    Attributes:
        n_rows: how many there are.
        schema: names and types alone. Of an extension it is what the type is stored as.

    Raises:
        InputError: missing, unreadable, damaged, no columns, or one name twice.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: str, stack: contextlib.ExitStack) -> None:
        if path == STDIO:
            raise InputError("cannot read Parquet from standard input, as its index is at the end: name a file")
        self._pa = pa = import_pyarrow()
        self._path = path
        with self._reading():
            self._file = stack.enter_context(
                pa.parquet.ParquetFile(path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False)
            )
            about = self._file.metadata
            self.schema: Any = pa.schema([(field.name, kept_type(pa, field.type)) for field in self._file.schema_arrow])
            sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        if not self.schema.names:
            raise InputError(f"cannot read {path}: it has no columns")
        for name in self.schema.names:
            if self.schema.names.count(name) > 1:
                raise InputError(f"cannot read {path}: it has the column {brief(name)} twice")
        self.n_rows: int = sum(sizes)
        self._group_starts = list(itertools.accumulate(sizes, initial=0))[:-1]
        self._pieces: Iterator[Any] = iter(())
        self._piece: Any = None  # the one that is being taken apart
        self._first: int | None = None  # number of its first row, or of that of the next one

    def batches(self, start: int, end: int, n_rows: int = CHUNK_ROWS) -> Iterator[Any]:
        """The rows from `start` up to `end` as record batches of `n_rows`, the last one smaller.

        Raises:
            InputError: damaged data.
        """
        while start < end:
            parts: list[Any] = []
            n_wanted = min(n_rows, end - start)
            while n_wanted:
                part = self._take(start, n_wanted)
                parts.append(part)
                start += part.num_rows
                n_wanted -= part.num_rows
            yield from joined(parts)

    def _take(self, row: int, n_rows: int) -> Any:
        """Rows from `row`: at least one, at most `n_rows`."""
        group = bisect.bisect(self._group_starts, row) - 1
        if self._first is None or not self._group_starts[group] <= self._first <= row:
            self._first, self._piece, self._pieces = self._group_starts[group], None, self._read(group)
        while self._piece is None or self._first + self._piece.num_rows <= row:
            self._first += 0 if self._piece is None else self._piece.num_rows
            self._piece = next(self._pieces, None)
            if self._piece is None:
                raise InputError(f"cannot read {self._path}: fewer rows than its index says")
        return self._piece.slice(row - self._first, n_rows)

    def _read(self, group: int) -> Iterator[Any]:
        for i in range(group, len(self._group_starts)):
            with self._reading():
                batches = self._file.iter_batches(batch_size=CHUNK_ROWS, row_groups=[i])
            while True:
                with self._reading():
                    batch = next(batches, None)
                if batch is None:
                    break
                if not batch.schema.equals(self.schema):
                    with self._reading():
                        columns = [column.cast(kind) for column, kind in zip(batch, self.schema.types, strict=True)]
                        batch = self._pa.RecordBatch.from_arrays(columns, schema=self.schema)
                yield batch

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(f"cannot read {self._path}: {os.strerror(errno.ENOENT)}") from error
        except (self._pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"cannot read {self._path}: {_first_line(error)}") from error


def joined(batches: list[Any]) -> list[Any]:
    """The same rows in as few record batches as can hold them, mostly one. At least one comes in."""
    if len(batches) == 1:
        return batches
    return import_pyarrow().Table.from_batches(batches).combine_chunks().to_batches()  # type: ignore[no-any-return]


def packed(batch: Any) -> Any:
    """A record batch as bytes, the same ones for the same rows."""
    pa = import_pyarrow()
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return stream.getvalue()


def rows_of(batch: Any, first: int = 0) -> list[Row]:
    """The rows of a record batch.

    A value is what `to_pylist` makes of it, except in columns with points in time or durations: there it is the
    pyarrow scalar itself, as `datetime` has neither nanoseconds nor all the years that a column may hold.

    Args:
        batch: from `ParquetRows`.
        first: the number of the first row in its file, from 0.
    """
    pa = import_pyarrow()
    faults: dict[int, str] = {}
    columns = [_values(pa, batch.column(i), field, faults) for i, field in enumerate(batch.schema)]
    rows = [Row(dict(zip(batch.schema.names, values, strict=True))) for values in zip(*columns, strict=True)]
    for i, fault in faults.items():
        rows[i] = Row({}, f"row {first + i + 1}: {fault}")
    return rows


def _values(pa: Any, column: Any, field: Any, faults: dict[int, str]) -> list[Any]:
    if _has_time(pa, field.type):
        return [scalar if scalar.is_valid else None for scalar in column]
    with contextlib.suppress(ValueError):
        return column.to_pylist()  # type: ignore[no-any-return]
    values = []  # one of them is not UTF-8
    for i, scalar in enumerate(column):
        try:
            values.append(scalar.as_py())
        except ValueError as error:
            faults[i] = f"column {brief(field.name)}: {_first_line(error)}"
            values.append(None)
    return values


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def kept_type(pa: Any, kind: Any) -> Any:
    """The type that a column has in rows and in the output: of an extension, what it is stored as."""
    if pa.types.is_float16(kind):
        return pa.float32()  # older versions neither give nor take these as Python floats
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    if pa.types.is_dictionary(kind) and _has_time(pa, kind.value_type):
        return kind.value_type
    return kind


def _has_time(pa: Any, kind: Any) -> bool:
    if pa.types.is_temporal(kind):
        return True
    return pa.types.is_nested(kind) and any(_has_time(pa, kind.field(i).type) for i in range(kind.num_fields))
