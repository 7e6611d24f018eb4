"""Lines of a byte stream, bounded, so that no input can fill the memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import IO

__all__ = ["MAX_LINE_BYTES", "TOO_LONG", "Lines", "decode_line", "read_lines"]

MAX_LINE_BYTES = 64 << 20
"""Of a query log or of benchmark records; also the bound of a CSV row and, roughly, of a window."""

TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"

_BLOCK_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"


def read_lines(stream: IO[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[list[bytes | None]]:
    """The `Lines` of a whole file."""
    return iter(Lines(stream, max_line_bytes))


class Lines:
    r"""Lines without their `\n`, a block at a time; None stands for a line that is too long.

    Lines end at `\n` alone, the last one perhaps at the end of the stream. A UTF-8 byte order mark at the start of a
    file is skipped. Holds at most one line and one block.

    Args:
        stream: read to its end.
        max_line_bytes: longer lines are too long.
        offset: where in its file the stream begins.

    Attributes:
        offset: where in the file the block that came last ends.
    """

    def __init__(self, stream: IO[bytes], max_line_bytes: int = MAX_LINE_BYTES, *, offset: int = 0) -> None:
        self._stream = stream
        self._max_line_bytes = max_line_bytes
        self.offset = offset

    def ends(self, block: Sequence[bytes | None]) -> list[int]:
        """Where in the file each line of the block that came last ends, its `\\n` included."""
        lengths = [len(line or b"") + 1 for line in block[1:]]  # only the first can be too long
        return list(itertools.accumulate(lengths, initial=self.offset - sum(lengths)))

    def __iter__(self) -> Iterator[list[bytes | None]]:
        max_line_bytes = self._max_line_bytes
        block_bytes = min(_BLOCK_BYTES, max_line_bytes)
        begun: list[bytes] = []  # the pieces of a line whose end is still to come
        n_begun = 0
        too_long = False
        at_start = self.offset == 0
        end = self.offset
        while block := self._stream.read(block_bytes):
            end += len(block)
            if at_start:
                block = block.removeprefix(_BOM)
                at_start = False
            lines: list[bytes | None] = [*block.split(b"\n")]
            last = lines.pop() or b""
            if lines:
                first = lines[0] or b""
                if too_long or n_begun + len(first) > max_line_bytes:
                    lines[0] = None
                elif begun:
                    lines[0] = b"".join((*begun, first))
                self.offset = end - len(last)
                yield lines
                begun, n_begun, too_long = [], 0, False
            n_begun += len(last)
            too_long = too_long or n_begun > max_line_bytes
            if too_long:
                begun.clear()
            elif last:
                begun.append(last)
        self.offset = end
        if too_long:
            yield [None]
        elif begun:
            yield [b"".join(begun)]


def decode_line(line: bytes | None) -> tuple[str, str | None]:
    """The text of a line, and what is wrong with it."""
    if line is None:
        return "", TOO_LONG
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), "not UTF-8"
    return text, "a NUL byte, which no text has" if "\0" in text else None
