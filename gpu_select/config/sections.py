"""Mappings of a configuration file, taken apart key by key, with every problem collected under its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gpu_select.config.environment import is_expanded, shown
from gpu_select.config.paths import at_index, at_key
from gpu_select.errors import ConfigError

__all__ = ["Problems", "Section", "kind"]

_MAX_PROBLEMS = 20
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


class Problems:
    """Collects what is wrong, each with its path, so that a user mends all of it in one go."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[str] = []
        self._missing: set[str] = set()

    def add(self, where: str, text: str) -> None:
        """One problem at a path such as `models[0].name`; the path is empty for the whole file."""
        if where not in self._missing:
            self._lines.append(f"{where}: {text}" if where else text)

    def add_missing(self, where: str, text: str) -> None:
        """A value that is not there, so that nothing further can be wrong with it."""
        self.add(where, text)
        self._missing.add(where)

    def raise_if_any(self) -> None:
        """Raise all of them as one.

        Raises:
            ConfigError: one line with the file and its first 20 problems.
        """
        if self._lines:
            first, *others = self._lines[:_MAX_PROBLEMS]
            if len(self._lines) > _MAX_PROBLEMS:
                others.append(f"and {len(self._lines) - _MAX_PROBLEMS} more")
            raise ConfigError.joined([f"{self._path}: {first}", *others])


class Section:
    """A mapping whose keys are taken one by one; what is left at the end is unknown.

    A value that is missing (or null) is None; one that is wrong is added to the problems, and None as well. What
    environment variables stand for is never shown.

    Args:
        value: what stands in the file; anything but a mapping is a problem.
        where: its path, empty for the whole file.
        problems: collects what is wrong.
    """

    def __init__(self, value: Any, where: str, problems: Problems) -> None:
        self.where = where
        self.problems = problems
        self._values: dict[str, Any] = {}
        self._known: list[str] = []
        self._is_mapping = isinstance(value, dict)
        if self._is_mapping:
            self._values = dict(value)
        else:
            problems.add(where, f"expected a mapping, got {kind(value)}")

    def take(self, key: str) -> Any:
        """The value of a key, None where it is missing."""
        self._known.append(key)
        return self._values.get(key)

    def names(self) -> tuple[str, ...]:
        """All keys, in the file's order."""
        return tuple(self._values)

    def path(self, key: str) -> str:
        """The full path of a key."""
        return at_key(self.where, key)

    def expected(self, key: str, what: str) -> None:
        """A problem with the value of a key, which is shown as it stands in the file."""
        self.problems.add(self.path(key), f"expected {what}, got {shown(self._values.get(key))}")

    def text(self, key: str, *, secret: bool = False, required: bool = False) -> str | None:
        """A text of one line that is not empty."""
        value = self.take(key)
        if value is None and not (required and self._is_mapping):
            return None
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            got = kind(value) if secret else shown(value)
            self.problems.add(self.path(key), f"expected a text of one line that is not empty, got {got}")
            return None
        return str(value)

    def choice(self, key: str, options: Sequence[str], *, required: bool = False) -> str | None:
        """One of some texts."""
        value = self.take(key)
        if value is None and not (required and self._is_mapping):
            return None
        if value not in options:
            self.expected(key, f"one of {', '.join(options)}" if len(options) > 1 else options[0])
            return None
        return str(value)

    def boolean(self, key: str) -> bool | None:
        """true or false."""
        value = self.take(key)
        if is_expanded(value) and value.lower() in ("true", "false"):
            return bool(value.lower() == "true")
        if value is None or isinstance(value, bool):
            return value
        self.expected(key, "true or false")
        return None

    def number(self, key: str, most: float, *, least: float = 0) -> float | None:
        """A finite number from `least` to `most`."""
        value = self.take(key)
        if value is None:
            return None
        number = float(value) if is_expanded(value) and _FLOAT.match(value) else value
        if type(number) not in (int, float) or not least <= number <= most:  # NaN fails, too
            self.expected(key, f"a number from {least:g} to {most:g}")
            return None
        return float(number)

    def integer(self, key: str, most: int, *, least: int = 1) -> int | None:
        """An integer from `least` to `most`."""
        value = self.take(key)
        if value is None:
            return None
        integer = int(value) if is_expanded(value) and _INT.match(value) else value
        if type(integer) is not int or not least <= integer <= most:
            self.expected(key, f"an integer from {least} to {most}")
            return None
        return integer

    def section(self, key: str) -> Section | None:
        """A mapping inside this one."""
        value = self.take(key)
        return None if value is None else Section(value, self.path(key), self.problems)

    def items(self, key: str, what: str, *, most: int, least: int = 0) -> list[tuple[str, Any]]:
        """Path and value of each item of a list.

        Args:
            key: where the list stands; one that is missing is empty.
            what: what the items are, in the plural, for the text of a problem.
            least, most: how many there may be.
        """
        value = self.take(key)
        if value is None and not least:
            return []
        if not isinstance(value, list) or not least <= len(value) <= most:
            got = f"{len(value)} of them" if isinstance(value, list) else kind(value)
            if self._is_mapping:
                self.problems.add(self.path(key), f"expected a list of {least} to {most} {what}, got {got}")
            return []
        return [(at_index(self.path(key), i), item) for i, item in enumerate(value)]

    def finish(self) -> None:
        """Refuse the keys that nobody took."""
        for key in self._values:
            if key in self._known:
                continue
            self.problems.add(self.path(key), f"unknown key; expected one of {', '.join(self._known)}")


def kind(value: Any) -> str:
    """What sort of value it is, in words, for where the value itself must not be shown."""
    kinds = {dict: "a mapping", list: "a list", bool: "a boolean", type(None): "nothing"}
    return "a text" if isinstance(value, str) else kinds.get(type(value), "a number")
