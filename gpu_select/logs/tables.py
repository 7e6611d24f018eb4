"""Arrow tables in memory: the rows that they hold, and routing's results beside their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_select.errors import InputError, brief
from gpu_select.logs.parquet import import_pyarrow, kept_type, rows_of
from gpu_select.logs.rows import NUMBER_FIELDS, Row

__all__ = ["ArrowColumns", "is_arrow"]


def is_arrow(batch: object) -> bool:
    """Whether it is a table or a record batch of pyarrow, which is not imported for anything else."""
    if not type(batch).__module__.startswith("pyarrow."):
        return False
    pa = import_pyarrow()
    return isinstance(batch, (pa.Table, pa.RecordBatch))


class ArrowColumns:
    """A pyarrow table or record batch.

    Raises:
        InputError: two columns have one name.
    """

    def __init__(self, table: Any) -> None:
        self.names: list[str] = list(table.schema.names)
        self.n_rows: int = table.num_rows
        self._table = table
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"batch: it has the column {brief(name)} twice")

    def rows(self, names: Sequence[str]) -> list[Row]:
        """The rows, with some of their columns; one that holds what is no text keeps its place, with an error."""
        if not names:
            return [Row({}) for _ in range(self.n_rows)]
        rows: list[Row] = []
        for batch in self.batches(names):
            rows += rows_of(batch, len(rows))
        return rows

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Some of the columns, at least one, as record batches with the types that a Parquet file's would have."""
        pa = import_pyarrow()
        kinds = [kept_type(pa, self._table.schema.field(name).type) for name in names]
        columns = [self._table.column(name).cast(kind) for name, kind in zip(names, kinds, strict=True)]
        yield from pa.Table.from_arrays(columns, list(names)).to_batches()

    def with_results(self, kept: Sequence[tuple[str, str]], results: Mapping[str, list[Any]]) -> Any:
        """The same kind of table: columns under (old name, new name), as they are, then results.

        The types of results do not hang on their values: a batch without errors has the schema of all others.
        """
        pa = import_pyarrow()
        fields = [self._table.schema.field(old).with_name(new) for old, new in kept]
        arrays = [self._table.column(old) for old, _ in kept]
        for name, values in results.items():
            kind = pa.float64() if name in NUMBER_FIELDS else pa.string()
            fields.append(pa.field(name, kind))
            arrays.append(pa.array(values, kind))
        return type(self._table).from_arrays(arrays, schema=pa.schema(fields))
