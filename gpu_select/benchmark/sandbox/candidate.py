"""The process that holds the answer's code and does with it what the examiner asks. Nothing here decides a verdict."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from gpu_select.benchmark.sandbox.codec import Handle, decode, encode, read_frame, write_frame
from gpu_select.benchmark.sandbox.source import entry_point, run_answer

__all__ = ["serve"]

_CHANGEABLE = (list, dict, set, bytearray)
_COMPARISONS = {
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def serve(read_fd: int, write_fd: int) -> None:
    """Answer requests until the examiner is gone."""
    _Candidate(read_fd, write_fd).serve()


class _Candidate:
    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._objects: list[Any] = []
        self._number_of: dict[int, int] = {}
        # a module that can be found by its name, as dataclasses and typing look for it
        self._module = types.ModuleType("answer")
        sys.modules["answer"] = self._module

    def serve(self) -> None:
        while True:
            self._send(self._respond(*self._receive()))

    def _respond(self, request: str, *values: Any) -> tuple[Any, ...]:
        try:
            return getattr(self, f"_do_{request}")(*values)  # type: ignore[no-any-return]
        except BaseException as error:  # SystemExit is no way out either
            return ("error", [kind.__name__ for kind in type(error).__mro__], self._text(error))

    def _do_load(self, blocks: list[str], prompt: str, wants_entry: bool) -> tuple[Any, ...]:
        sources = run_answer(self._module.__dict__, blocks, prompt)
        name = entry_point(sources, prompt, self._module.__dict__) if wants_entry else None
        return ("ok", None if name is None else self._handle(self._module.__dict__[name]))

    def _do_names(self, names: list[str]) -> tuple[Any, ...]:
        return ("ok", {name: self._module.__dict__[name] for name in names if name in self._module.__dict__})

    def _do_call(self, function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        before = [self._encode(arg) if type(arg) in _CHANGEABLE else b"" for arg in args]
        value = function(*args, **keywords)
        changed = {i: args[i] for i in range(len(args)) if before[i] and self._encode(args[i]) != before[i]}
        return ("ok", value, changed) if changed else ("ok", value)

    def _do_get(self, target: Any, name: str) -> tuple[Any, ...]:
        return ("ok", getattr(target, name))

    def _do_item(self, target: Any, key: Any) -> tuple[Any, ...]:
        return ("ok", target[key])

    def _do_iterate(self, target: Any) -> tuple[Any, ...]:
        return ("ok", self._handle(iter(target)))

    def _do_apply(self, function: str, target: Any) -> tuple[Any, ...]:
        functions: dict[str, Callable[[Any], Any]] = {
            "next": next, "len": len, "bool": bool, "str": str, "repr": repr, "int": int, "float": float,
        }  # fmt: skip
        return ("ok", functions[function](target))

    def _do_compare(self, comparison: str, left: Any, right: Any) -> tuple[Any, ...]:
        return ("ok", bool(_COMPARISONS[comparison](left, right)))

    def _text(self, error: BaseException) -> str:
        try:
            return str(error)[:1000]
        except BaseException:
            return ""

    def _receive(self) -> Any:
        return decode(read_frame(self._read_fd), self._object)

    def _send(self, reply: tuple[Any, ...]) -> None:
        try:
            data = self._encode(reply)
        except BaseException as error:
            data = encode(("error", ["TypeError", "Exception"], self._text(error)))
        write_frame(self._write_fd, data)

    def _encode(self, value: Any) -> bytes:
        return encode(value, self._handle)

    def _handle(self, value: Any) -> Handle:
        number = self._number_of.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)  # which keeps it, and so its id
        return Handle(number)

    def _object(self, number: int) -> Any:
        if number >= 0:
            return self._objects[number]

        def callback(*args: Any, **keywords: Any) -> Any:
            self._send(("callback", number, args, keywords))
            outcome, *values = self._receive()
            if outcome == "ok":
                return values[0]
            raise RuntimeError(values[0])

        return callback
