"""The rows of a window before and after routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu_select.domains import domain_index
from gpu_select.errors import ConfigError, brief
from gpu_select.jsonio import loads
from gpu_select.logs import RESULT_FIELDS, Row

__all__ = [
    "DOMAIN_FIELDS",
    "UNUSABLE_VECTOR",
    "VECTOR_LENGTHS",
    "Find",
    "Keeper",
    "Window",
    "check_window",
    "failed",
    "input_name",
    "text_in",
    "vector_in",
]

DOMAIN_FIELDS = ("domain", "category")
"""Where a row's domain is looked for when nobody names a field."""

VECTOR_LENGTHS = (1e-15, 1e15)
"""A vector between these Euclidean lengths can be brought to length 1 in float32."""

UNUSABLE_VECTOR = (
    f"expected finite numbers, and a vector whose length lies between {VECTOR_LENGTHS[0]:g} and {VECTOR_LENGTHS[1]:g}"
)
"""What is wrong with a vector of the right dimension."""

Find = Callable[[dict[str, Any]], tuple[Any, str | None]]
"""Gives what is to be routed of a row's fields, or what is wrong with it."""

_PREFIX = "input_"

_MOST_LAYOUTS, _LAYOUT_CHARS = 1024, 4096
"""Rows of a log have few different sets of fields. So many are remembered, so long ones, whatever the log holds."""


def input_name(name: str, result_fields: Sequence[str] = RESULT_FIELDS) -> str:
    """The name under which an input field is kept; no two fields share one, however often a log has been routed.

    Args:
        name: of the input field.
        result_fields: what routing adds.
    """
    bare = name
    while bare not in result_fields:
        if not bare.startswith(_PREFIX):
            return name
        bare = bare.removeprefix(_PREFIX)
    return _PREFIX + name


@dataclass(slots=True)
class Window:
    """Some rows of a log that have been checked."""

    rows: list[Row]
    queries: list[Any] = field(default_factory=list)
    """What is to be routed of the rows that can be: texts or vectors."""
    domains: list[str | None] = field(default_factory=list)
    """Their domains."""
    errors: dict[int, str] = field(default_factory=dict)
    """What is wrong with each other row, by its place in the window."""


def text_in(query_field: str) -> Find:
    """Finds texts that are not empty."""

    def find(fields: dict[str, Any]) -> tuple[Any, str | None]:
        query = fields.get(query_field)
        if isinstance(query, str) and query and not query.isspace():
            return query, None
        found = brief(query) if query_field in fields else "no such field"
        return None, f"{query_field}: expected a text that is not empty, got {found}"

    return find


def vector_in(embedding_field: str, dim: int) -> Find:
    """Finds vectors of `dim` numbers, as (dim,) float32. In a CSV cell they stand as JSON."""

    def find(fields: dict[str, Any]) -> tuple[Any, str | None]:
        value = fields.get(embedding_field)
        if isinstance(value, str):
            try:
                value = loads(value.encode("utf-8", "surrogatepass"))
            except ValueError:
                value = fields[embedding_field]
        if not isinstance(value, list) or not {*map(type, value)} <= {int, float, type(None)}:
            found = brief(value) if embedding_field in fields else "no such field"
            return None, f"{embedding_field}: expected a list of {dim} numbers, got {found}"
        if len(value) != dim:
            return None, f"{embedding_field}: expected {dim} numbers, got {len(value)}"
        try:
            with np.errstate(over="ignore"):
                vector = np.array(value, np.float64).astype(np.float32)
        except OverflowError:  # an integer
            return None, f"{embedding_field}: {UNUSABLE_VECTOR}"
        if not VECTOR_LENGTHS[0] ** 2 <= float(np.dot(vector, vector)) <= VECTOR_LENGTHS[1] ** 2:
            return None, f"{embedding_field}: {UNUSABLE_VECTOR}"
        return vector, None

    return find


def check_window(rows: list[Row], find: Find, domain_fields: Sequence[str]) -> Window:
    """Find each row's query and domain, or what is wrong with it."""
    window = Window(rows)
    queries, domains, errors = window.queries, window.domains, window.errors
    for i, row in enumerate(rows):
        if row.error is not None:
            errors[i] = row.error
            continue
        fields = row.fields
        query, fault = find(fields)
        if fault is not None:
            errors[i] = fault
            continue
        domain = None
        for name in domain_fields:
            value = fields.get(name)
            if value is not None and value != "":
                domain = value
                break
        if domain is not None:
            try:
                domain_index(domain)
            except ConfigError as error:
                errors[i] = str(error)
                continue
        queries.append(query)
        domains.append(domain)
    return window


class Keeper:
    """Makes output rows: the kept fields of an input row, under names that leave room for the results."""

    def __init__(self, keep: Sequence[str] | None, result_fields: Sequence[str] = RESULT_FIELDS) -> None:
        self._keep = keep
        self._result_fields = result_fields
        self._layouts: dict[tuple[str, ...], list[tuple[str, str]] | None] = {}
        self.renamed: set[str] = set()
        """Input fields that had to get another name so far."""

    def row(self, fields: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """The output row; `fields` stays as it is."""
        layout = tuple(fields)
        try:
            names = self._layouts[layout]
        except KeyError:
            names = self._names(layout)
            if len(self._layouts) < _MOST_LAYOUTS and sum(map(len, layout)) <= _LAYOUT_CHARS:
                self._layouts[layout] = names
        if names is None:
            return fields | result
        return {new: fields[old] for old, new in names} | result

    def _names(self, layout: tuple[str, ...]) -> list[tuple[str, str]] | None:
        """(input name, output name) of what is kept of such a row; None if that is all of it, as it is."""
        names = [
            (name, input_name(name, self._result_fields))
            for name in (layout if self._keep is None else self._keep)
            if name in layout
        ]
        renamed = {old for old, new in names if old != new}
        self.renamed |= renamed
        return None if self._keep is None and not renamed else names


def failed(error: str, result_fields: Sequence[str] = RESULT_FIELDS) -> dict[str, Any]:
    """What routing adds to a row that cannot be routed."""
    return {**dict.fromkeys(result_fields), "error": error}
