"""Batches as engines hand them over: a dict of columns, or an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gpu_select.errors import InputError, brief
from gpu_select.logs import Row
from gpu_select.logs.tables import ArrowColumns, is_arrow

__all__ = ["Columns", "columns_of"]

_MISSING = ("NAType", "NaTType")
"""pandas' marks of a missing value, by the names of their types."""


class Columns(Protocol):
    """B rows as columns."""

    @property
    def names(self) -> list[str]:
        """Of the columns, each once."""
        ...

    @property
    def n_rows(self) -> int:
        """B."""
        ...

    def rows(self, names: Sequence[str]) -> list[Row]:
        """The rows, with some of their columns."""
        ...

    def batches(self, names: Sequence[str]) -> Iterator[Any] | None:
        """The same as Arrow's record batches; None where the columns are none of Arrow's."""
        ...

    def with_results(self, kept: Sequence[tuple[str, str]], results: Mapping[str, list[Any]]) -> Any:
        """A batch of the same kind: columns under (old name, new name), as they are, then results."""
        ...


def columns_of(batch: Any) -> Columns:
    """Look at a batch as columns, whatever its kind.

    Raises:
        InputError: it is none, or its columns do not make rows.
    """
    if isinstance(batch, Mapping):
        return _DictColumns(batch)
    if is_arrow(batch):
        return ArrowColumns(batch)
    raise InputError(
        f"batch: expected a dict of columns or an Arrow table, got {type(batch).__name__}; "
        f"with pandas, dict(frame.items()); with Ray Data, batch_format='numpy' or 'pyarrow'"
    )


class _DictColumns:
    """A dict of lists, NumPy arrays, pandas Series, or whatever else has a length and values."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.names = list(batch)
        self.n_rows = 0
        self._batch = batch
        for i, (name, column) in enumerate(batch.items()):
            if not isinstance(name, str):
                raise InputError(f"batch: expected columns whose names are texts, got the name {brief(name)}")
            n_rows = _length(column)
            if n_rows is None:
                raise InputError(
                    f"batch[{brief(name)}]: expected a list or an array, a value a row, got {brief(column)}"
                )
            if i and n_rows != self.n_rows:
                raise InputError(
                    f"batch[{brief(name)}]: expected {self.n_rows} values, as many as {brief(self.names[0])} has, "
                    f"got {n_rows}"
                )
            self.n_rows = n_rows

    def rows(self, names: Sequence[str]) -> list[Row]:
        columns = [_values(self._batch[name]) for name in names]
        if not columns:
            return [Row({}) for _ in range(self.n_rows)]
        return [Row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def batches(self, names: Sequence[str]) -> None:
        return None

    def with_results(self, kept: Sequence[tuple[str, str]], results: Mapping[str, list[Any]]) -> dict[str, Any]:
        return {**{new: self._batch[old] for old, new in kept}, **results}


def _length(column: Any) -> int | None:
    """How many values a column has; None for what is none."""
    if isinstance(column, (str, bytes, Mapping)):
        return None
    try:
        return len(column)
    except TypeError:
        return None


def _values(column: Any) -> list[Any]:
    """A column's values as Python's own, None for what engines put where there is none."""
    for listing in ("tolist", "to_pylist"):  # the second of a pyarrow.ChunkedArray
        if hasattr(column, listing):
            column = getattr(column, listing)()
            break
    return [_value(value) for value in column]


def _value(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    elif isinstance(value, (list, tuple)):
        return np.array(value).tolist() if value and isinstance(value[0], np.generic) else list(value)
    if (isinstance(value, float) and value != value) or type(value).__name__ in _MISSING:
        return None
    return value
