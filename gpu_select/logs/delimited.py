"""CSV and TSV: a header row, then rows of texts; quoted fields may hold line ends."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import IO, Any

from gpu_select.errors import InputError, brief
from gpu_select.lines import MAX_LINE_BYTES, Lines, decode_line
from gpu_select.logs.columns import Columns
from gpu_select.logs.rows import BATCH_ROWS, CHUNK_ROWS, RESULT_FIELDS, START, Chunks, Place, Row
from gpu_select.logs.values import cell

__all__ = ["DELIMITERS", "DelimitedSink", "Records", "read_header", "read_records"]

DELIMITERS = {"csv": ",", "tsv": "\t"}

_CHUNK_BYTES = 1 << 20


def read_header(records: Records, path: str) -> list[str]:
    """The column names, which the first record holds.

    Raises:
        InputError: no header, one that cannot be read, or with the same name twice.
    """
    header = next(records.each(), None)
    if header is None:
        raise InputError(f"cannot read {path}: it is empty, expected a header row with column names")
    line, columns, fault = header
    if fault is not None:
        raise InputError(f"cannot read {path}: line {line}: {fault}")
    seen: set[str] = set()
    for name in columns:
        if name in seen:
            raise InputError(f"cannot read {path}: line {line}: the header has the column {brief(name)} twice")
        seen.add(name)
    return columns


def read_records(records: Records, columns: list[str]) -> Chunks:
    """The rows that are left. Blank lines are no rows."""
    rows: list[Row] = []
    n_bytes = 0
    for line, values, fault in records.each():
        n_bytes += records.n_bytes
        if fault is not None:
            rows.append(Row({}, f"line {line}: {fault}"))
        elif len(values) != len(columns):
            rows.append(Row({}, f"line {line}: expected {len(columns)} columns, got {len(values)}"))
        else:
            rows.append(Row(dict(zip(columns, values, strict=True))))
        if len(rows) == CHUNK_ROWS or n_bytes >= _CHUNK_BYTES:
            yield rows, n_bytes
            rows, n_bytes = [], 0
    yield rows, n_bytes


class Records:
    """`csv.reader`, told line by line what it may read, so that each record's place and faults are known.

    Args:
        stream: begins at `start` in its file.
        delimiter: between two values.
        start: before a record.

    Attributes:
        n_bytes: of the record that was read last.
    """

    def __init__(self, stream: IO[bytes], delimiter: str, start: Place = START) -> None:
        # the module's own bound is 128 KiB, for the whole process; records are bounded here
        csv.field_size_limit(max(csv.field_size_limit(), 3 * MAX_LINE_BYTES))
        lines = Lines(stream, offset=start.offset)
        self._lines = (pair for block in lines for pair in zip(block, lines.ends(block), strict=True))
        self._reader = csv.reader(self, delimiter=delimiter)
        self._offset, self._n_lines = start
        self._fault: str | None = None
        self._in_record = False
        self.n_bytes = 0

    @property
    def end(self) -> Place:
        """The place behind the record that was read last."""
        return Place(self._offset, self._n_lines)

    def each(self) -> Iterator[tuple[int, list[str], str | None]]:
        """First line, values and fault of each record that is left."""
        while True:
            line = self._n_lines + 1
            self._fault = None
            self._in_record = False
            self.n_bytes = 0
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._fault, values = self._fault or f"not CSV: {error}", []
            if values or self._fault:
                yield line, values, self._fault

    def __iter__(self) -> Records:
        return self

    def __next__(self) -> str:
        if self.n_bytes > MAX_LINE_BYTES:
            self._fault = f"a quote that is not closed within {MAX_LINE_BYTES >> 20} MiB, at line {self._n_lines}"
            raise StopIteration  # the reader hands back what it has, and begins anew at the next line
        try:
            line, self._offset = next(self._lines)
        except StopIteration:
            if self._in_record:
                self._fault = f"a quote that is never closed, up to the last line, {self._n_lines}"
            raise
        self._n_lines += 1
        self._in_record = True
        self.n_bytes += len(line or b"") + 1
        text, fault = decode_line(line)
        self._fault = self._fault or fault
        return text + "\n"


class DelimitedSink:
    """Writes a header and rows. The first window decides the columns."""

    def __init__(
        self,
        stream: IO[bytes],
        delimiter: str,
        path: str,
        columns: Sequence[str] | None,
        result_fields: Sequence[str] = RESULT_FIELDS,
    ) -> None:
        self._stream = stream
        self._columns = Columns(path, columns, result_fields)
        self._header_written = False
        self._lines: list[str] = []
        # each record goes to `self._lines`. The terminator makes the module quote both line end characters.
        self._writer = csv.writer(_Appender(self._lines), delimiter=delimiter, lineterminator="\r\n")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            OutputError: a row has a field that the first window did not have.
        """
        names = self._columns.of(rows)
        if not self._header_written:
            self._writer.writerow(names)
            self._flush()
            self._header_written = True
        for start in range(0, len(rows), BATCH_ROWS):
            self._writer.writerows(
                [value if type(value := row.get(name)) is str else cell(value) for name in names]
                for row in rows[start : start + BATCH_ROWS]
            )
            self._flush()

    def _flush(self) -> None:
        self._lines.append("")
        self._stream.write("\n".join(self._lines).encode("utf-8", "replace"))
        self._lines.clear()

    def finish(self) -> None:
        """A file without rows has its header all the same."""
        if not self._header_written:
            self.write([])


class _Appender:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, record: str) -> None:
        self._lines.append(record[:-2])
