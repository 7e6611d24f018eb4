"""Which columns a table has whose rows arrive window by window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpu_select.errors import OutputError, brief
from gpu_select.logs.rows import RESULT_FIELDS

__all__ = ["Columns"]


class Columns:
    """The names given and those of the first window, then what routing adds; the same for all later windows.

    Args:
        path: of the output, for errors.
        given: the names that are known.
        result_fields: what routing adds.
        names: all of them where they are settled, whatever the first window holds.
    """

    def __init__(
        self,
        path: str,
        given: Iterable[str] | None,
        result_fields: Sequence[str] = RESULT_FIELDS,
        names: Sequence[str] | None = None,
    ) -> None:
        self._path = path
        self._result_fields = tuple(result_fields)
        self._given = tuple(given or ())
        self._names = None if names is None else tuple(names)
        self._known = frozenset(names or ())
        self.n_rows = 0  # seen in earlier windows

    def of(self, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """The columns, after a check that these rows have no others. Call once a window.

        Raises:
            OutputError: a row has a field that the first window did not have.
        """
        if self._names is None:
            names = dict.fromkeys(self._given)
            for row in rows:
                names.update(dict.fromkeys(row))
            self._names = (*(name for name in names if name not in self._result_fields), *self._result_fields)
            self._known = frozenset(self._names)
        for i, row in enumerate(rows):
            if not row.keys() <= self._known:
                name = next(name for name in row if name not in self._known)
                raise OutputError(
                    f"cannot write {self._path}: row {self.n_rows + i + 1} has the field {brief(name)}, which no "
                    f"row of the first window has; name the fields with --keep, or write JSON lines"
                )
        self.n_rows += len(rows)
        return self._names
