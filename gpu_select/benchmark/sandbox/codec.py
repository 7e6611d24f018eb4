"""Values between the two processes, as bytes: what is read is one of the types below, whoever wrote it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_FRAME_BYTES", "CodecError", "Handle", "decode", "encode", "read_frame", "write_frame"]

MAX_FRAME_BYTES = 8 << 20
MAX_DEPTH = 60

_SEQUENCES: dict[bytes, type] = {b"l": list, b"t": tuple, b"s": set, b"z": frozenset}
_TEXT_TYPES = {b"D": ("decimal", "Decimal"), b"F": ("fractions", "Fraction")}
_NUMBER_TYPES = {
    b"1": ("datetime", "date", ("year", "month", "day")),
    b"2": ("datetime", "datetime", ("year", "month", "day", "hour", "minute", "second", "microsecond")),
    b"3": ("datetime", "time", ("hour", "minute", "second", "microsecond")),
    b"4": ("datetime", "timedelta", ("days", "seconds", "microseconds")),
}


class CodecError(Exception):
    """A value that cannot be sent, or bytes that are none."""


class Handle:
    """A number for an object that stays where it is."""

    def __init__(self, number: int) -> None:
        self.number = number


def encode(value: Any, handle_of: Callable[[Any], Handle] | None = None) -> bytes:
    """Bytes of a value; of another type than those here, those of the handle that `handle_of` gives it.

    A subclass goes as the built-in type that it derives from.

    Raises:
        CodecError: too deep or too large, or another type and no `handle_of`.
    """
    parts: list[bytes] = []
    _put(value, parts, handle_of, 0)
    data = b"".join(parts)
    if len(data) > MAX_FRAME_BYTES:
        raise CodecError("too large")
    return data


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _put(value: Any, parts: list[bytes], handle_of: Callable[[Any], Handle] | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CodecError("nested too deep")
    if value is None or value is True or value is False:
        parts.append(b"N" if value is None else b"T" if value else b"O")
    elif isinstance(value, int):
        parts += (b"i", _sized(int.__format__(value, "x").encode()))
    elif isinstance(value, float):
        parts += (b"f", _sized(float.__repr__(value).encode()))
    elif isinstance(value, str):
        parts += (b"u", _sized(str.encode(value, "utf-8", "surrogatepass")))
    elif isinstance(value, (bytes, bytearray)):
        parts += (b"b" if isinstance(value, bytes) else b"a", _sized(bytes(value)))
    elif isinstance(value, (list, tuple, set, frozenset)):
        tag = next(tag for tag, kind in _SEQUENCES.items() if isinstance(value, kind))
        items = list(value)
        parts += (tag, len(items).to_bytes(4, "big"))
        for item in items:
            _put(item, parts, handle_of, depth + 1)
    elif isinstance(value, dict):
        pairs = list(dict.items(value))
        parts += (b"d", len(pairs).to_bytes(4, "big"))
        for pair in pairs:
            _put(pair[0], parts, handle_of, depth + 1)
            _put(pair[1], parts, handle_of, depth + 1)
    elif isinstance(value, Handle):
        parts += (b"h", _sized(b"%x" % value.number))
    elif isinstance(value, complex):
        parts += (b"c", _sized(complex.__repr__(value).encode()))
    elif isinstance(value, range):
        parts.append(b"r")
        _put((value.start, value.stop, value.step), parts, handle_of, depth + 1)
    else:
        _put_library_type(value, parts, handle_of, depth)


def _put_library_type(value: Any, parts: list[bytes], handle_of: Callable[[Any], Handle] | None, depth: int) -> None:
    for tag, (module, name) in _TEXT_TYPES.items():
        if _is(value, module, name):
            parts += (tag, _sized(str(value).encode()))
            return
    for tag, (module, name, fields) in _NUMBER_TYPES.items():
        if _is(value, module, name) and getattr(value, "tzinfo", None) is None:
            parts.append(tag)
            _put(tuple(getattr(value, field) for field in fields), parts, handle_of, depth + 1)
            return
    if _is(value, "collections", "deque"):
        parts.append(b"q")
        _put((list(value), value.maxlen), parts, handle_of, depth + 1)
    elif handle_of is not None:
        _put(handle_of(value), parts, None, depth)
    else:
        raise CodecError(f"a {type(value).__name__} cannot be sent")


def _is(value: Any, module: str, name: str) -> bool:
    """Whether the type is that one; a module that nobody has imported has no values."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and type(value) is kind


def decode(data: bytes, object_of: Callable[[int], Any] | None = None) -> Any:
    """The value of some bytes; `object_of` gives the object of a handle.

    Raises:
        CodecError: no value, or a handle without `object_of`.
    """
    try:
        value, end = _get(data, 0, object_of, 0)
    except CodecError:
        raise
    except Exception as error:  # of the many ways to be no number, date or key
        raise CodecError(type(error).__name__) from None
    if end != len(data):
        raise CodecError("bytes after the value")
    return value


def _get(data: bytes, at: int, object_of: Callable[[int], Any] | None, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise CodecError("nested too deep")
    tag, at = data[at : at + 1], at + 1
    if tag in (b"N", b"T", b"O"):
        return {b"N": None, b"T": True, b"O": False}[tag], at
    if tag in _SEQUENCES or tag == b"d":
        size = _size(data, at)
        at += 4
        items = []
        for _ in range(size * 2 if tag == b"d" else size):
            item, at = _get(data, at, object_of, depth + 1)
            items.append(item)
        if tag == b"d":
            return dict(zip(items[::2], items[1::2], strict=True)), at
        return (items if tag == b"l" else _SEQUENCES[tag](items)), at
    if tag == b"r" or tag == b"q" or tag in _NUMBER_TYPES:
        values, at = _get(data, at, object_of, depth + 1)
        if tag == b"r":
            return range(*values), at
        if tag == b"q":
            return _library("collections", "deque")(*values), at
        module, name, fields = _NUMBER_TYPES[tag]
        return _library(module, name)(**dict(zip(fields, values, strict=True))), at
    size = _size(data, at)
    raw, end = data[at + 4 : at + 4 + size], at + 4 + size
    if len(raw) != size:
        raise CodecError("cut off")
    return _scalar(tag, raw, object_of), end


def _size(data: bytes, at: int) -> int:
    size = int.from_bytes(data[at : at + 4], "big")
    if size > len(data) - at:
        raise CodecError("cut off")
    return size


def _scalar(tag: bytes, raw: bytes, object_of: Callable[[int], Any] | None) -> Any:
    if tag == b"i":
        return int(raw, 16)
    if tag == b"f":
        return float(raw)
    if tag == b"u":
        return raw.decode("utf-8", "surrogatepass")
    if tag == b"b":
        return raw
    if tag == b"a":
        return bytearray(raw)
    if tag == b"c":
        return complex(raw.decode())
    if tag in _TEXT_TYPES:
        return _library(*_TEXT_TYPES[tag])(raw.decode())
    if tag == b"h" and object_of is not None:
        return object_of(int(raw, 16))
    raise CodecError("no value")


def _library(module: str, name: str) -> Any:
    return getattr(__import__(module), name)


def write_frame(fd: int, data: bytes) -> None:
    """Send one value's bytes."""
    view = memoryview(_sized(data))
    while view:
        view = view[os.write(fd, view) :]


def read_frame(fd: int) -> bytes:
    """One value's bytes.

    Raises:
        CodecError: the other end is gone, or sends more than a frame holds.
    """
    size = int.from_bytes(_read(fd, 4), "big")
    if size > MAX_FRAME_BYTES:
        raise CodecError("too large")
    return _read(fd, size)


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise CodecError("the other end is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
