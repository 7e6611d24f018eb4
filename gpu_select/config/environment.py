"""`${VAR}` in the values of a configuration, replaced by environment variables whose contents are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from gpu_select.config.paths import at_index, at_key
from gpu_select.errors import brief

__all__ = ["expand", "is_expanded", "shown"]

_REFERENCE = re.compile(r"\$?\$\{[^{}]*\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class _Expanded(str):
    """A text in which variables were replaced; remembers what stood in the file, which is no secret."""

    __slots__ = ("written",)
    written: str


def expand(
    value: Any, missing: Callable[[str, str], object], *, where: str = "", environment: Mapping[str, str] = os.environ
) -> Any:
    """The same tree of mappings, lists and scalars, each `${NAME}` inside its texts replaced. Keys stay as they are.

    What a variable holds is taken as it is, without looking for further ones in it. `$${` stands for `${`.

    Args:
        value: as `load_yaml` gives it.
        missing: called with the path and what is wrong, for a variable that is not set and for a bad name.
        where: the path of `value`.
        environment: the variables.
    """
    if isinstance(value, dict):
        return {
            key: expand(item, missing, where=at_key(where, key), environment=environment) for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            expand(item, missing, where=at_index(where, i), environment=environment) for i, item in enumerate(value)
        ]
    if not isinstance(value, str) or not _REFERENCE.search(value):
        return value

    def replacement(match: re.Match[str]) -> str:
        reference = match[0]
        if reference.startswith("$$"):
            return reference[1:]
        name = reference[2:-1]
        if not _NAME.match(name):
            missing(where, f"expected ${{NAME}} with the name of an environment variable, got {brief(reference)}")
        elif name not in environment:
            missing(where, f"the environment variable {name} is not set")
        return environment.get(name, "")

    expanded = _Expanded(_REFERENCE.sub(replacement, value))
    expanded.written = value
    return expanded


def is_expanded(value: Any) -> bool:
    """Whether it is a text in which variables were replaced; such a text may stand for a number, too."""
    return isinstance(value, _Expanded)


def shown(value: Any) -> str:
    """A value on one short line, with `${VAR}` where variables were replaced."""
    return brief(_as_written(value))


def _as_written(value: Any) -> Any:
    if isinstance(value, _Expanded):
        return value.written
    if isinstance(value, dict):
        return {key: _as_written(item) for key, item in value.items()}
    return [_as_written(item) for item in value] if isinstance(value, list) else value
