"""The rows of a window before and after routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_select.domains import domain_index
from gpu_select.errors import ConfigError, brief
from gpu_select.logs import RESULT_FIELDS, Row

__all__ = ["DOMAIN_FIELDS", "Keeper", "Window", "check_window", "failed", "input_name"]

DOMAIN_FIELDS = ("domain", "category")
"""Where a row's domain is looked for when nobody names a field."""

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
    texts: list[str] = field(default_factory=list)
    """The queries of the rows that can be routed."""
    domains: list[str | None] = field(default_factory=list)
    """Their domains."""
    errors: dict[int, str] = field(default_factory=dict)
    """What is wrong with each other row, by its place in the window."""


def check_window(rows: list[Row], query_field: str, domain_fields: Sequence[str]) -> Window:
    """Find each row's query and domain, or what is wrong with it."""
    window = Window(rows)
    texts, domains, errors = window.texts, window.domains, window.errors
    for i, row in enumerate(rows):
        if row.error is not None:
            errors[i] = row.error
            continue
        fields = row.fields
        query = fields.get(query_field)
        if not isinstance(query, str) or not query or query.isspace():
            found = brief(query) if query_field in fields else "no such field"
            errors[i] = f"{query_field}: expected a text that is not empty, got {found}"
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
        texts.append(query)
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
