"""One file of a log: all of its rows, or those between two places."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

from gpu_select.errors import InputError
from gpu_select.files import open_read, skip, strip_compression
from gpu_select.lines import Lines
from gpu_select.logs.delimited import DELIMITERS, Records, read_header, read_records
from gpu_select.logs.formats import log_format
from gpu_select.logs.jsonl import is_jsonl_row, read_jsonl
from gpu_select.logs.parquet import ParquetRows, packed, rows_of
from gpu_select.logs.rows import START, Chunks, Place
from gpu_select.logs.txt import TXT_COLUMNS, read_txt

__all__ = ["LogFile", "RowCounter"]


_BLOCK_BYTES = 1 << 18


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: Any, /) -> object: ...


class LogFile:
    """An open file; a context manager that closes it. `open_log` describes what is read and what is refused.

    Parts of it are read cheapest in rising order: a compressed file has to be unpacked from its start, a row group of
    Parquet from the group's.

    Attributes:
        path: its name.
        columns: the fields of every row where the format fixes them (CSV, TSV, TXT, Parquet), None for JSON lines.
        schema: the pyarrow schema of a Parquet file; None for other formats.
        n_rows: of a Parquet file; None for other formats, which do not tell.
        first: the place before the first row.
    """

    def __init__(self, path: str, *, format: str | None = None, stop: threading.Event | None = None) -> None:
        self.path = path
        self.columns: list[str] | None = None
        self.schema: Any = None
        self.n_rows: int | None = None
        self.first = START
        self._log = log_format(path, format, InputError)
        self._stop = stop
        self._stack = contextlib.ExitStack()
        self._stream: IO[bytes]
        self._at: int | None = 0  # unpacked bytes that were read of the stream; None: it cannot be read on
        with self._stack:
            if self._log == "parquet":
                self._parquet = ParquetRows(path, self._stack)
                self.schema, self.n_rows = self._parquet.schema, self._parquet.n_rows
                self.columns = list(self.schema.names)
            else:
                self._stream = self._stack.enter_context(open_read(path, stop=stop))
                if self._log == "txt":
                    self.columns = TXT_COLUMNS.copy()
                elif self._log in DELIMITERS:
                    self._records = Records(self._stream, DELIMITERS[self._log])
                    self.columns = read_header(self._records, path)
                    self.first, self._at = self._records.end, None
            self._stack = self._stack.pop_all()

    def chunks(self) -> Chunks:
        """All rows, once. The file may be a pipe."""
        if self._log == "parquet":
            return self.part(START, Place(self._parquet.n_rows, self._parquet.n_rows))
        if self._log in DELIMITERS:
            return read_records(self._records, self.columns or [])
        return self._parse(self._stream, START)

    def batches(self) -> Iterator[Any] | None:
        """All rows of a Parquet file as record batches; None for other formats."""
        return self._parquet.batches(0, self._parquet.n_rows) if self._log == "parquet" else None

    def part(self, start: Place, end: Place, digest: Digest | None = None) -> Chunks:
        """The rows between two places.

        Args:
            start, end: from `RowCounter`.
            digest: gets the bytes that the rows are made of.
        Raises:
            InputError: damaged, or it ends before `end`.
        """
        if self._log == "parquet":
            first = start.offset
            for batch in self.part_batches(start, end, digest):
                yield rows_of(batch, first), batch.nbytes
                first += batch.num_rows
        else:
            self._go_to(start.offset)
            part = cast(IO[bytes], _Part(self, end.offset - start.offset, digest))
            yield from self._parse(part, start)

    def part_batches(self, start: Place, end: Place, digest: Digest | None = None) -> Iterator[Any]:
        """`part` of a Parquet file as record batches."""
        for batch in self._parquet.batches(start.offset, end.offset):
            if digest is not None:
                digest.update(packed(batch))
            yield batch

    def digest(self, start: Place, end: Place, digest: Digest) -> None:
        """Give `digest` what `part` would give it.

        Raises:
            InputError: damaged, or it ends before `end`.
        """
        if self._log == "parquet":
            for _ in self.part_batches(start, end, digest):
                pass
        else:
            self._go_to(start.offset)
            part = _Part(self, end.offset - start.offset, digest)
            while part.read(_BLOCK_BYTES):
                pass

    def row_ends(self, start: Place) -> Iterator[list[Place]]:
        """The place behind each row from `start` to the end of a file other than Parquet, some at a time."""
        self._go_to(start.offset)
        self._at = None  # it is read in blocks
        if self._log in DELIMITERS:
            records = Records(self._stream, DELIMITERS[self._log], start)
            for _ in records.each():
                yield [records.end]
            return
        is_row: Callable[[bytes | None], bool] = is_jsonl_row if self._log == "jsonl" else lambda line: True
        lines, number = Lines(self._stream, offset=start.offset), start.lines
        for block in lines:
            ends = enumerate(zip(block, lines.ends(block), strict=True), number + 1)
            yield [Place(end, i) for i, (line, end) in ends if is_row(line)]
            number += len(block)

    def read(self, n_bytes: int) -> bytes:
        """Unpacked bytes of the stream as it stands."""
        block = self._stream.read(n_bytes)
        if self._at is not None:
            self._at += len(block)
        return block

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _go_to(self, offset: int) -> None:
        packed = strip_compression(self.path)[1]
        if packed and self._at is not None and self._at <= offset:
            skip(self._stream, offset - self._at)
        else:
            self._stack.close()
            self._stream = self._stack.enter_context(open_read(self.path, offset=offset, stop=self._stop))
        self._at = offset

    def _parse(self, stream: IO[bytes], start: Place) -> Chunks:
        if self._log == "jsonl":
            return read_jsonl(stream, start)
        if self._log == "txt":
            return read_txt(stream, start)
        return read_records(Records(stream, DELIMITERS[self._log], start), self.columns or [])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Part:
    """So many bytes of a file as a stream."""

    def __init__(self, file: LogFile, n_bytes: int, digest: Digest | None) -> None:
        self._file = file
        self._n_left = n_bytes
        self._digest = digest

    def read(self, n_bytes: int) -> bytes:
        wanted = min(n_bytes, self._n_left)
        block = self._file.read(wanted)
        if len(block) < wanted:
            raise InputError(f"cannot read {self._file.path}: it has become shorter since its rows were counted")
        self._n_left -= wanted
        if self._digest is not None:
            self._digest.update(block)
        return block


class RowCounter:
    """Goes through a file row by row without parsing what need not be parsed.

    Attributes:
        place: where it is, between two rows.
    """

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self.place = file.first
        self._ends: Iterator[list[Place]] | None = None
        self._ahead: list[Place] = []
        """The places behind the next rows, the next one last."""

    def go_to(self, place: Place) -> None:
        """Go to a place where it was before, or another counter of the same file."""
        self.place = place
        self._ends, self._ahead = None, []

    def advance(self, n_rows: int) -> int:
        """Pass so many rows, or those that are left; how many it were.

        Raises:
            InputError: the file is damaged.
        """
        total = self._file.n_rows
        if total is not None:
            passed = min(n_rows, total - self.place.offset)
            self.place = Place(self.place.offset + passed, self.place.lines + passed)
            return passed
        if self._ends is None:
            self._ends = self._file.row_ends(self.place)
        passed = 0
        while passed < n_rows:
            if not self._ahead:
                block = next(self._ends, None)
                if block is None:
                    break
                self._ahead = block[::-1]
            n = min(n_rows - passed, len(self._ahead))
            if n:
                self.place = self._ahead[-n]
                del self._ahead[-n:]
                passed += n
        return passed
