"""What a log is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["BATCH_ROWS", "CHUNK_ROWS", "NUMBER_FIELDS", "RESULT_FIELDS", "START", "Chunks", "Place", "Row"]

RESULT_FIELDS = ("model", "score", "margin", "error")
"""What routing adds to a row, in the order of the output's columns; routing by decisions adds more."""

NUMBER_FIELDS = ("score", "margin")
"""Those of them that are numbers; the others are texts."""

BATCH_ROWS = 256
"""Rows that are turned into text at once: so few that the allocator keeps their memory, which is twice as fast."""


CHUNK_ROWS = 1024
"""Rows of a table that are turned into `Row`s at once."""


class Place(NamedTuple):
    """Somewhere between two rows of a file."""

    offset: int
    """Bytes of the unpacked file before it; in Parquet, rows."""
    lines: int
    """Lines before it; in Parquet, rows."""


START = Place(0, 0)


@dataclass(slots=True)
class Row:
    """One row of a log. One that cannot be read keeps its place: no fields, and an error that names its line."""

    fields: dict[str, Any]
    error: str | None = None


Chunks = Iterator[tuple[list[Row], int]]
"""A few rows at a time, with the bytes they took in the file."""
