"""Server-sent events (WHATWG HTML, section 9.2), as far as chat completions use them: the data of each event."""

from __future__ import annotations

__all__ = ["EventData"]


class EventData:
    r"""Takes a stream apart as it comes, whatever pieces it comes in. Lines end with \n or \r\n.

    Comments, names and ids of events are left out.
    """

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # the pieces of a line whose end is still to come
        self._lines: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes."""
        *ends, rest = piece.split(b"\n")
        out = []
        for end in ends:
            self._begun.append(end)
            out += self._line(b"".join(self._begun).removesuffix(b"\r"))
            self._begun.clear()
        if rest:
            self._begun.append(rest)
        return out

    def end(self) -> list[bytes]:
        """The data of an event that the stream's end left without an empty line."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> list[bytes]:
        if not line:
            event = b"\n".join(self._lines)
            self._lines.clear()
            return [event] if event else []
        name, _, value = line.partition(b":")
        if name == b"data":
            self._lines.append(value.removeprefix(b" "))
        return []
