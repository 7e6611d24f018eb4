"""Reading Parquet, through pyarrow, which is imported only when such a file is opened."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from gpu_select.errors import InputError, MissingDependencyError, brief
from gpu_select.files import STDIO
from gpu_select.logs.rows import Chunks, Row

__all__ = ["import_pyarrow", "open_parquet"]

_CHUNK_ROWS = 1024
_READ_BUFFER_BYTES = 1 << 20  # without it, a row group's whole columns are held


def import_pyarrow() -> Any:
    """The module pyarrow, with pyarrow.parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "a Parquet file", "'gpu-select[parquet]'") from error
    return pyarrow


def open_parquet(path: str, stack: contextlib.ExitStack) -> tuple[Any, Chunks]:
    """The schema (names and types alone) and the rows of a Parquet file, which `stack` closes.

    A value is what `to_pylist` makes of it, except in columns with points in time or durations: there it is the
    pyarrow scalar itself, as `datetime` has neither nanoseconds nor all the years that a column may hold.

    Raises:
        InputError: missing, unreadable, damaged (also while the rows are read), no columns, or one name twice.
        MissingDependencyError: pyarrow is not installed.
    """
    if path == STDIO:
        raise InputError("cannot read Parquet from standard input, as its index is at the end: name a file")
    pa = import_pyarrow()
    with _reading(pa, path):
        file = stack.enter_context(pa.parquet.ParquetFile(path, buffer_size=_READ_BUFFER_BYTES))
        schema = pa.schema([(field.name, _kept_type(pa, field.type)) for field in file.schema_arrow])
    if not schema.names:
        raise InputError(f"cannot read {path}: it has no columns")
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise InputError(f"cannot read {path}: it has the column {brief(name)} twice")
    return schema, _rows(pa, file, schema, path)


@contextlib.contextmanager
def _reading(pa: Any, path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: {os.strerror(errno.ENOENT)}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _rows(pa: Any, file: Any, schema: Any, path: str) -> Chunks:
    names = schema.names
    n_rows = 0
    batches = file.iter_batches(batch_size=_CHUNK_ROWS)
    while True:
        with _reading(pa, path):
            batch = next(batches, None)
        if batch is None:
            return
        faults: dict[int, str] = {}
        columns = [_values(pa, batch.column(i), field, faults) for i, field in enumerate(schema)]
        rows = [Row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]
        for i, fault in faults.items():
            rows[i] = Row({}, f"row {n_rows + i + 1}: {fault}")
        n_rows += len(rows)
        yield rows, batch.nbytes


def _values(pa: Any, column: Any, field: Any, faults: dict[int, str]) -> list[Any]:
    if column.type != field.type:
        column = column.cast(field.type)
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


def _kept_type(pa: Any, kind: Any) -> Any:
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
