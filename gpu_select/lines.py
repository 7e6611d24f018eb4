"""Lines of a byte stream, bounded, so that no input can fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

__all__ = ["MAX_LINE_BYTES", "TOO_LONG", "decode_line", "read_lines"]

MAX_LINE_BYTES = 64 << 20
"""Of a query log or of benchmark records; also the bound of a CSV row and, roughly, of a window."""

TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"

_BLOCK_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"


def read_lines(stream: IO[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[list[bytes | None]]:
    r"""Lines without their `\n`, a block at a time; None stands for a line that is too long.

    Lines end at `\n` alone, the last one perhaps at the end of the stream. A UTF-8 byte order mark at the start is
    skipped. Holds at most one line and one block.
    """
    block_bytes = min(_BLOCK_BYTES, max_line_bytes)
    begun: list[bytes] = []  # the pieces of a line whose end is still to come
    n_begun = 0
    too_long = False
    block = stream.read(block_bytes).removeprefix(_BOM) or stream.read(block_bytes)
    while block:
        lines: list[bytes | None] = [*block.split(b"\n")]
        last = lines.pop() or b""
        if lines:
            first = lines[0] or b""
            if too_long or n_begun + len(first) > max_line_bytes:
                lines[0] = None
            elif begun:
                lines[0] = b"".join((*begun, first))
            yield lines
            begun, n_begun, too_long = [], 0, False
        n_begun += len(last)
        too_long = too_long or n_begun > max_line_bytes
        if too_long:
            begun.clear()
        elif last:
            begun.append(last)
        block = stream.read(block_bytes)
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
