"""How the place of a value in a configuration file is written, such as `models[0].pricing`."""

from __future__ import annotations

from gpu_select.errors import brief

__all__ = ["at_index", "at_key"]


def at_key(where: str, key: str) -> str:
    """The path of a key in the mapping at `where`; a file's keys may be of any length, and have line ends."""
    name = key if len(key) <= 60 and key.isprintable() else brief(key)
    return f"{where}.{name}" if where else name


def at_index(where: str, index: int) -> str:
    """The path of an item in the list at `where`."""
    return f"{where}[{index}]"
