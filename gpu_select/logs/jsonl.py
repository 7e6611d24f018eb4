"""JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

from gpu_select.jsonio import dumps, loads
from gpu_select.lines import TOO_LONG, Lines
from gpu_select.logs.rows import BATCH_ROWS, START, Chunks, Place, Row
from gpu_select.logs.values import plain_value

__all__ = ["JsonlSink", "is_jsonl_row", "read_jsonl"]

_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}


def is_jsonl_row(line: bytes | None) -> bool:
    """Whether a line is a row, be it one that cannot be read. Blank lines are none."""
    return line is None or not (not line or line.isspace())


def read_jsonl(stream: IO[bytes], start: Place = START) -> Chunks:
    """One JSON object a line, from `start` in the file. Blank lines are no rows, but they count as lines."""
    number = start.lines
    for lines in Lines(stream, offset=start.offset):
        rows = []
        n_bytes = 0
        for line in lines:
            number += 1
            if line is None:
                rows.append(Row({}, f"line {number}: {TOO_LONG}"))
                continue
            n_bytes += len(line)
            try:
                fields = loads(line)
            except ValueError as error:
                if is_jsonl_row(line):
                    rows.append(Row({}, f"line {number}: {_fault(error)}"))
            else:
                if type(fields) is dict:
                    rows.append(Row(fields))
                else:
                    rows.append(Row({}, f"line {number}: expected a JSON object, got {_KINDS[type(fields)]}"))
        yield rows, n_bytes


def _fault(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return f"not JSON: {error}"


class JsonlSink:
    """Writes each row as one JSON object; `error` only where there is one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        for start in range(0, len(rows), BATCH_ROWS):
            lines = [dumps(_without_no_error(row), plain_value) for row in rows[start : start + BATCH_ROWS]]
            lines.append(b"")
            self._stream.write(b"\n".join(lines))

    def finish(self) -> None:
        """Nothing is held back."""


def _without_no_error(row: dict[str, Any]) -> dict[str, Any]:
    if row.get("error", "") is not None:
        return row
    row = row.copy()
    del row["error"]
    return row
