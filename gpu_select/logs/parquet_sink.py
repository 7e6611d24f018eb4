"""Writing Parquet, through pyarrow, which is imported only when such a file is opened."""

from __future__ import annotations

import bisect
import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from gpu_select.errors import OutputError, brief
from gpu_select.logs.columns import Columns
from gpu_select.logs.parquet import import_pyarrow
from gpu_select.logs.rows import NUMBER_FIELDS, RESULT_FIELDS

__all__ = ["Layout", "ParquetSink", "layout_of"]

_ROW_GROUP_ROWS = 1 << 16
_ROW_GROUP_BYTES = 64 << 20
_CURE = "leave the column out with --keep, or write JSON lines"


@dataclass(frozen=True)
class Layout:
    """The columns of a Parquet file."""

    schema: Any
    """Their names and types."""
    inferred: frozenset[str]
    """Those whose types come from values, so that later values have to be compared with them."""


class ParquetSink:
    """Writes rows as a Parquet file. The input's schema and the first window decide the columns and their types,
    unless there is a layout already.
    """

    def __init__(
        self,
        stream: IO[bytes],
        path: str,
        columns: Sequence[str] | None,
        schema: Any,
        stack: contextlib.ExitStack,
        result_fields: Sequence[str] = RESULT_FIELDS,
        layout: Layout | None = None,
    ) -> None:
        self._pa = pa = import_pyarrow()
        self._stream = stream
        self._path = path
        self._columns = Columns(path, columns, result_fields, None if layout is None else layout.schema.names)
        self._types = {} if schema is None else {field.name: field.type for field in schema}
        self._types |= {name: pa.float64() if name in NUMBER_FIELDS else pa.string() for name in result_fields}
        self._inferred: set[str] = set()  # columns whose types come from values
        self._schema: Any = None
        if layout is not None:
            self._schema, self._inferred = layout.schema, set(layout.inferred)
            self._types = {field.name: field.type for field in layout.schema}
        self._writer: Any = None
        self._pending: list[Any] = []  # record batches, until they make a row group
        stack.push(self._abandon)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            OutputError: a value does not fit the type of its column, or a row has a field too many.
        """
        n_before = self._columns.n_rows
        names = self._columns.of(rows)
        arrays = [self._array(name, [row.get(name) for row in rows], n_before) for name in names]
        if self._schema is None:
            self._schema = self._pa.schema([(name, self._types[name]) for name in names])
        self._append(arrays)

    def write_columns(self, columns: Mapping[str, Any], n_rows: int) -> None:
        """Append rows that come as columns.

        Args:
            columns: by name, Arrow arrays, or NumPy arrays of numbers that are NaN where there is none.
            n_rows: how many rows.
        Raises:
            OutputError: a value does not fit the type of its column, or there is a column too many.
        """
        schema = self.layout.schema
        for name in columns.keys() - set(schema.names):
            raise OutputError(
                f"cannot write {self._path}: there is a column {brief(name)}, which the first file of the log does not "
                f"have; name the columns with --keep, or write JSON lines"
            )
        self._append([self._fitted(columns.get(field.name), field, n_rows) for field in schema])
        self._columns.n_rows += n_rows

    def _fitted(self, column: Any, field: Any, n_rows: int) -> Any:
        pa = self._pa
        if column is None:
            return pa.nulls(n_rows, field.type)
        if isinstance(column, np.ndarray):
            return pa.array(column, field.type, from_pandas=True)
        try:
            return column if column.type == field.type else column.cast(field.type)
        except _MISFITS as error:
            first = self._columns.n_rows + 1
            raise OutputError(
                f"cannot write {self._path}: rows {first} to {first + n_rows - 1}, column {brief(field.name)}: "
                f"expected {field.type}, got {column.type} ({brief(str(error), 200)}); {_CURE}"
            ) from error

    def _append(self, arrays: list[Any]) -> None:
        self._pending.append(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if (
            sum(batch.num_rows for batch in self._pending) >= _ROW_GROUP_ROWS
            or sum(batch.nbytes for batch in self._pending) >= _ROW_GROUP_BYTES
        ):
            self._write_row_group()

    @property
    def layout(self) -> Layout:
        """The columns; those of a file without rows, where none were written yet."""
        if self._schema is None:
            self.write([])
        return Layout(self._schema, frozenset(self._inferred))

    def finish(self) -> None:
        """Write what is pending and the index. A file without rows has its columns all the same."""
        if self._schema is None:
            self.write([])
        self._write_row_group()
        try:
            self._writer.close()
        except self._pa.ArrowException as error:
            raise self._failure(error) from error

    def _write_row_group(self) -> None:
        try:
            if self._writer is None:
                self._writer = self._pa.parquet.ParquetWriter(self._stream, self._schema)
            table = self._pa.Table.from_batches(self._pending, self._schema)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        except self._pa.ArrowException as error:
            raise self._failure(error) from error
        self._pending.clear()

    def _failure(self, error: Exception) -> OutputError:
        return OutputError(f"cannot write {self._path}: {brief(str(error), 200)}")

    def _abandon(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self._writer is not None:  # closed now, while there is a stream, and not when it is collected
            with contextlib.suppress(OSError, ValueError, self._pa.ArrowException):
                self._writer.close()

    def _array(self, name: str, values: list[Any], n_before: int) -> Any:
        """The values as an Arrow array of the column's type, which those of the first window decide."""
        pa = self._pa
        kind = self._types.get(name)
        try:
            array = pa.array(values, kind)
            if kind is None:
                self._types[name] = kind = self._storable(name, array.type)
                self._inferred.add(name)
                array = array.cast(kind)
        except _MISFITS as error:
            i = bisect.bisect_left(range(1, len(values)), True, key=lambda n: not self._converts(values[:n], kind))
            expected = kind or self._storable(name, pa.array(values[:i]).type)
            raise self._misfit(name, n_before + i + 1, expected, values[i]) from error
        if name in self._inferred and not pa.types.is_string(kind):
            for i, value in enumerate(values):
                if not _fits(pa, value, kind):
                    raise self._misfit(name, n_before + i + 1, kind, value)
        return array

    def _converts(self, values: list[Any], kind: Any) -> bool:
        try:
            self._pa.array(values, kind)
        except _MISFITS:
            return False
        return True

    def _misfit(self, name: str, row: int, kind: object, value: object) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: row {row}, column {brief(name)}: expected {kind}, got {brief(value)}; {_CURE}"
        )

    def _storable(self, name: str, kind: Any) -> Any:
        """A type that was inferred, with text where no value said what it is."""
        pa = self._pa
        if pa.types.is_null(kind):
            return pa.string()
        if pa.types.is_list(kind):
            return pa.list_(self._storable(name, kind.value_type))
        if pa.types.is_struct(kind):
            if kind.num_fields == 0:
                raise OutputError(
                    f"cannot write {self._path}: column {brief(name)}: Parquet has no objects without fields; {_CURE}"
                )
            return pa.struct([(field.name, self._storable(name, field.type)) for field in kind])
        return kind


def layout_of(
    path: str,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str] | None,
    schema: Any,
    result_fields: Sequence[str] = RESULT_FIELDS,
) -> Layout:
    """The columns that a file gets whose first window these rows are; the rest as for `ParquetSink`.

    Raises:
        OutputError: a value does not fit the type of its column.
    """
    with contextlib.ExitStack() as stack:
        sink = ParquetSink(io.BytesIO(), path, columns, schema, stack, result_fields)
        sink.write(rows)
        return sink.layout


# pyarrow's own exceptions derive from these
_MISFITS = (ValueError, TypeError, OverflowError, NotImplementedError)


def _fits(pa: Any, value: Any, kind: Any) -> bool:
    """Whether a value that Arrow converts stays the same: it cuts fractions and leaves out unknown keys silently."""
    if pa.types.is_integer(kind):
        return not isinstance(value, float) or value.is_integer()
    if pa.types.is_floating(kind):
        return not isinstance(value, bool)
    if isinstance(value, dict) and pa.types.is_struct(kind):
        types = {field.name: field.type for field in kind}
        return value.keys() <= types.keys() and all(_fits(pa, item, types[key]) for key, item in value.items())
    if isinstance(value, list) and pa.types.is_list(kind):
        return all(_fits(pa, item, kind.value_type) for item in value)
    return True
