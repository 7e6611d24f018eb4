"""A request's JSON object, read once: its values, and its bytes again with another model and nothing else changed."""

from __future__ import annotations

import json
import re
from typing import Any

from gpu_select.gateway.errors import BadRequestError
from gpu_select.jsonio import MAX_DEPTH, STRICT_DECODER

__all__ = ["JsonBody"]

_MOST_MEMBERS = 1000
"""Of the outer object; it is read member by member."""
_MOST_VALUES = 320_000
"""In all: OpenAI takes 300,000 tokens for embeddings. Decoding keeps the interpreter, for so many some 0.1 s."""

_MARKS = "[{,"
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonBody:
    """The members of a JSON object, by key.

    Args:
        data: the body's bytes.

    Raises:
        BadRequestError: not UTF-8, not JSON (RFC 8259; NaN and infinities are none), not an object, a key twice, or
            nested too deep, or of too many values.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            self._text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequestError(f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from error
        self.values: dict[str, Any] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        if _has_more_values(self._text, _MOST_VALUES):
            raise BadRequestError(f"the body has more than {_MOST_VALUES} values")
        try:
            self._read()
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise BadRequestError(f"the body is not valid JSON: {error.msg} ({where})") from error
        except RecursionError as error:
            raise BadRequestError("the body is not valid JSON: nested too deep") from error
        except ValueError as error:  # our own two, and integers of thousands of digits
            raise BadRequestError(f"the body is not valid JSON: {error}") from error
        if _is_deeper(self.values, MAX_DEPTH):
            raise BadRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")

    def with_model(self, name: str) -> bytes:
        """The body with `name` as its `model`, every other byte as it came."""
        if self.values["model"] == name:
            return self._data
        start, end = self._spans["model"]
        return f"{self._text[:start]}{json.dumps(name)}{self._text[end:]}".encode()

    def _read(self) -> None:
        """Walk over the object's members; their values are decoded by the standard library's C code."""
        text = self._text
        at = self._skip(0)
        if text[at : at + 1] != "{":
            STRICT_DECODER.decode(text)  # says what is wrong, if it is not JSON at all
            raise BadRequestError("the body is not a JSON object")
        at = self._skip(at + 1)
        if text[at : at + 1] != "}":
            at = self._read_member(at)
            while text[at : at + 1] == ",":
                at = self._read_member(self._skip(at + 1))
            if text[at : at + 1] != "}":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = self._skip(at + 1)
        if at != len(text):
            raise json.JSONDecodeError("Extra data", text, at)

    def _read_member(self, at: int) -> int:
        """The position after a member and the space behind it."""
        text = self._text
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, at = STRICT_DECODER.raw_decode(text, at)
        at = self._skip(at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        start = self._skip(at + 1)
        value, end = STRICT_DECODER.raw_decode(text, start)
        if key in self.values:
            # readers disagree on which of the two counts: what was checked here could be another there
            raise BadRequestError("a key of the body's object occurs twice", param=key if key.isprintable() else None)
        if len(self.values) == _MOST_MEMBERS:
            raise BadRequestError(f"the body's object has more than {_MOST_MEMBERS} members")
        self.values[key] = value
        self._spans[key] = start, end
        return self._skip(end)

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()


def _has_more_values(text: str, most: int) -> bool:
    """Whether a JSON text has more containers and commas outside of its strings."""
    if sum(map(text.count, _MARKS)) <= most:
        return False  # even within its strings
    n_marks = at = 0
    while n_marks <= most:
        quote = text.find('"', at)
        end = len(text) if quote < 0 else quote
        n_marks += sum(text.count(mark, at, end) for mark in _MARKS)
        if quote < 0:
            break
        at = _after_string(text, quote + 1)
    return n_marks > most


def _after_string(text: str, at: int) -> int:
    """The position after the quote that ends a string."""
    while (quote := text.find('"', at)) >= 0:
        first = quote
        while first > at and text[first - 1] == "\\":
            first -= 1
        at = quote + 1
        if (quote - first) % 2 == 0:
            return at
    return len(text)


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner += [one for one in item.values() if isinstance(one, (dict, list))]
            elif isinstance(item, list):
                inner += [one for one in item if isinstance(one, (dict, list))]
        if not inner:
            return False
        layer = inner
    return True
