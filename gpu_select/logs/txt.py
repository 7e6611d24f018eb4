"""Plain text: a query a line in, a model a line out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from gpu_select.lines import Lines, decode_line
from gpu_select.logs.rows import START, Chunks, Place, Row

__all__ = ["TXT_COLUMNS", "TxtSink", "read_txt"]

TXT_COLUMNS = ["query"]


def read_txt(stream: IO[bytes], start: Place = START) -> Chunks:
    r"""Every line from `start` is a row with the field `query`, an empty one too; `\r\n` ends a line as `\n` does."""
    number = start.lines
    for lines in Lines(stream, offset=start.offset):
        rows = []
        n_bytes = 0
        for line in lines:
            number += 1
            n_bytes += len(line or b"")
            text, fault = decode_line(line)
            if fault is None:
                rows.append(Row({"query": text.removesuffix("\r")}))
            else:
                rows.append(Row({}, f"line {number}: {fault}"))
        yield rows, n_bytes


class TxtSink:
    """Writes each row's `model` on a line of its own, an empty line where there is none."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        # a name from a hostile file must not add lines
        lines = [" ".join((row.get("model") or "").splitlines()) for row in rows]
        lines.append("")
        self._stream.write("\n".join(lines).encode("utf-8", "replace"))

    def finish(self) -> None:
        """Nothing is held back."""
