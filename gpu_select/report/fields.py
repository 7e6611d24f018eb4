"""Reading a JSON document field by field: whatever is not as it should be is one line with file, field and value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gpu_select import jsonio
from gpu_select.errors import FileFormatError, InputError, brief
from gpu_select.files import open_read

__all__ = ["MAX_FILE_BYTES", "Fields", "read_document"]

MAX_FILE_BYTES = 32 << 20
"""More than any table of strategies takes; a file beyond it is another kind of file."""

_WRITERS = {
    "gpu_select.validation": "gpu-select validate --json",
    "gpu_select.tuning": "gpu-select tune",
    "gpu_select.replay": "gpu-select replay --json",
}
_OPTIONS = {
    "gpu_select.validation": "--validation",
    "gpu_select.tuning": "--tuning",
    "gpu_select.replay": "--replay",
}
_VERSION = 1
_MAX_NUMBER = 1e12


class Fields:
    """An object of a document, its place in it, and strict access to its fields. Unknown fields are ignored."""

    def __init__(self, path: str, place: str, value: object) -> None:
        if not isinstance(value, dict):
            raise FileFormatError(path, place or "document", "an object", brief(value))
        self.path = path
        self._place = place
        self._value: dict[str, Any] = value

    def error(self, field: str, expected: str, got: object) -> FileFormatError:
        """The error for one field."""
        return FileFormatError(self.path, self._at(field), expected, brief(got))

    def text(self, field: str) -> str:
        """A text that is not empty."""
        value = self._get(field, "a text")
        if not isinstance(value, str) or not value:
            raise self.error(field, "a text that is not empty", value)
        return value

    def texts(self, field: str, *, distinct: bool = False) -> tuple[str, ...]:
        """A list of texts, none of them empty; with `distinct`, no two alike."""
        values = self._list(field, "a list of texts")
        for i, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise self.error(f"{field}[{i}]", "a text that is not empty", value)
            if distinct and value in values[:i]:
                raise self.error(f"{field}[{i}]", "no text twice", value)
        return tuple(values)

    def flag(self, field: str) -> bool:
        """True or false."""
        value = self._get(field, "true or false")
        if not isinstance(value, bool):
            raise self.error(field, "true or false", value)
        return value

    def count(self, field: str) -> int:
        """An integer of at least 0."""
        value = self._get(field, "an integer of at least 0")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
            raise self.error(field, "an integer of at least 0", value)
        return value

    def number(self, field: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]."""
        value = self._get(field, _range(low, high))
        return self._number(field, value, low, high)

    def maybe_number(self, field: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A finite number in [low, high], or None for null."""
        value = self._get(field, f"{_range(low, high)} or null")
        return None if value is None else self._number(field, value, low, high)

    def numbers(self, field: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = self._list(field, "a list of numbers")
        return tuple(self._number(f"{field}[{i}]", value) for i, value in enumerate(values))

    def interval(self, field: str) -> tuple[float, float]:
        """Two numbers, the lower first."""
        value = self._get(field, "two numbers, the lower first")
        if not isinstance(value, list) or len(value) != 2:
            raise self.error(field, "two numbers, the lower first", value)
        low, high = (self._number(f"{field}[{i}]", item) for i, item in enumerate(value))
        if low > high:
            raise self.error(field, "two numbers, the lower first", value)
        return low, high

    def maybe_interval(self, field: str) -> tuple[float, float] | None:
        """Two numbers, the lower first, or None for null and for a pair of nulls."""
        value = self._get(field, "two numbers, the lower first, or null")
        return None if value is None or value == [None, None] else self.interval(field)

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        """One of some texts."""
        value = self._get(field, f"one of {', '.join(choices)}")
        if value not in choices:
            raise self.error(field, f"one of {', '.join(choices)}", value)
        return str(value)

    def inner(self, field: str) -> Fields:
        """An object within."""
        return Fields(self.path, self._at(field), self._get(field, "an object"))

    def maybe_inner(self, field: str) -> Fields | None:
        """An object within, or None for null."""
        return None if self._get(field, "an object or null") is None else self.inner(field)

    def objects(self, field: str) -> Iterator[Fields]:
        """A list of objects."""
        for i, value in enumerate(self._list(field, "a list of objects")):
            yield Fields(self.path, f"{self._at(field)}[{i}]", value)

    def names(self) -> tuple[str, ...]:
        """The names of all its fields."""
        return tuple(self._value)

    def numbers_by_name(self, field: str) -> Mapping[str, float | None]:
        """An object of numbers or nulls."""
        inner = self.inner(field)
        return {name: inner.maybe_number(name) for name in inner.names()}

    def scalars_by_name(self, field: str) -> Mapping[str, str | float | bool | None]:
        """An object of texts, numbers, true, false and null; a list of numbers, such as layers' sizes, as a text."""
        inner = self.inner(field)
        out = dict(inner._value)
        for name, value in inner._value.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                inner._number(name, value)
            elif isinstance(value, list):
                out[name] = ", ".join(f"{number:g}" for number in inner.numbers(name)) or "none"
            elif value is not None and not isinstance(value, (str, bool)):
                raise inner.error(name, "a text, a number, true, false or null", value)
        return out

    def _number(self, field: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            # beyond this bound a number could not be squared or drawn
            if abs(value) < _MAX_NUMBER:
                return float(value)
            raise self.error(field, f"a number below {_MAX_NUMBER:g}", value)
        raise self.error(field, _range(low, high), value)

    def _list(self, field: str, expected: str) -> list[Any]:
        value = self._get(field, expected)
        if not isinstance(value, list):
            raise self.error(field, expected, value)
        return value

    def _get(self, field: str, expected: str) -> Any:
        if field not in self._value:
            raise FileFormatError(self.path, self._at(field), expected, "nothing: the field is missing")
        return self._value[field]

    def _at(self, field: str) -> str:
        # a name may hold anything; an error is one short line
        shown = field if len(field) <= 40 and field.isprintable() else brief(field, 40)
        return f"{self._place}.{shown}" if self._place else shown


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    return f"a number of at least {low:g}" if math.isinf(high) else f"a number in [{low:g}, {high:g}]"


def read_document(path: str, kind: str) -> Fields:
    """Read a JSON file (also .gz and .zst) that says what it is.

    Args:
        path: the file's name.
        kind: what its field `format` has to say: "gpu_select.validation", ".tuning" or ".replay".
    Raises:
        InputError: missing, unreadable, larger than `MAX_FILE_BYTES`, or not JSON.
        FileFormatError: of another format or version.
        MissingDependencyError: a .zst file without the package zstandard.
    """
    writer = _WRITERS[kind]
    with open_read(path) as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES >> 20} MiB"
        raise InputError(f"{path}: expected the JSON that {writer} writes, of at most {limit}, got more")
    try:
        value = jsonio.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: expected the JSON that {writer} writes, got something else: {error}") from error
    document = Fields(path, "", value)
    found = document.text("format")
    if found != kind:
        cure = f"; give this file as {_OPTIONS[found]}" if found in _OPTIONS else ""
        raise FileFormatError(path, "format", f"{kind!r}, the JSON that {writer} writes", f"{brief(found)}{cure}")
    version = document.count("version")
    if version != _VERSION:
        cure = f"; write it again with {writer}, or use the gpu-select that wrote it"
        raise FileFormatError(path, "version", str(_VERSION), f"{version}{cure}")
    return document
