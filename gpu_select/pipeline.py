"""A query log through the router: rows in, the same rows with their model out, in the same order, in flat memory."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_select.domains import domain_index
from gpu_select.errors import DataError, GpuSelectError, brief
from gpu_select.logs import RESULT_FIELDS, Row
from gpu_select.router import Routes
from gpu_select.wire import MAX_MAGNITUDE

__all__ = ["DOMAIN_FIELDS", "RouteReport", "input_name", "route_rows", "route_vectors"]

DOMAIN_FIELDS = ("domain", "category")
"""Where a row's domain is looked for when nobody names a field."""

WINDOW_ROWS = 8192
"""Rows that are read, deduplicated, sorted by length and written together."""

_RESERVED = re.compile(rf"(?:input_)*(?:{'|'.join(RESULT_FIELDS)})")


@dataclass
class RouteReport:
    """What happened to a log."""

    rows: int = 0
    errors: int = 0
    first_error: str = ""
    without_domain: int = 0
    renamed: set[str] = field(default_factory=set)
    """Input fields that carry the name of an output field, and are kept as input_NAME."""
    tokens: int = 0
    truncated: int = 0
    cached: int = 0
    seconds: float = 0.0
    share: Counter[str] = field(default_factory=Counter)
    """Rows by model."""


class Route(Protocol):
    """Decides on (texts, domain names)."""

    def __call__(self, texts: list[str], domains: list[str | None], /) -> Routes: ...


@functools.lru_cache(maxsize=1024)
def input_name(name: str) -> str:
    """The name under which an input field is kept; no two fields share one, however often a log has been routed."""
    return f"input_{name}" if _RESERVED.fullmatch(name) else name


def route_rows(
    windows: Iterable[list[Row]],
    write: Callable[[list[dict[str, Any]]], None],
    route: Route,
    *,
    query_field: str = "query",
    domain_fields: Sequence[str] = DOMAIN_FIELDS,
    keep: Sequence[str] | None = None,
    progress: Callable[[RouteReport], None] | None = None,
) -> RouteReport:
    """Route every row of a log. A row that cannot be routed keeps its place, with `error` set.

    Args:
        windows: the log, some thousand rows at a time.
        write: takes a window's output rows: the kept fields, then model, score, margin and error.
        route: `Router.route` with its options bound. Each window's equal queries are embedded once.
        query_field: the field that holds the query.
        domain_fields: the first of these that a row has, and that is not empty, is its domain.
        keep: the input fields to keep; by default all.
        progress: called after each window.

    Raises:
        GpuSelectError: what `route` and `write` raise for reasons that are not a row's own.
    """
    report = RouteReport()
    start = time.perf_counter()
    for window in windows:
        texts: list[str] = []
        domains: list[str | None] = []
        errors: list[str | None] = []
        for number, row in enumerate(window, start=report.rows + 1):
            error = row.error
            if error is None:
                try:
                    query = _query(row.fields, query_field)
                    domain = _domain(row.fields, domain_fields)
                    texts.append(query)
                    domains.append(domain)
                    report.without_domain += domain is None
                except GpuSelectError as problem:
                    error = str(problem)
            if error is not None and not report.first_error:
                report.first_error = f"row {number}: {error}"
            errors.append(error)
        routes = route(texts, domains)
        decided = _results(routes)
        write(
            [
                _kept(row.fields, keep, report) | (next(decided) if error is None else _failed(error))
                for row, error in zip(window, errors, strict=True)
            ]
        )
        _count(report, routes, len(window), sum(error is not None for error in errors), start)
        if progress is not None:
            progress(report)
    report.seconds = time.perf_counter() - start
    return report


def route_vectors(
    features_BD: NDArray[np.floating],
    write: Callable[[list[dict[str, Any]]], None],
    route: Callable[[NDArray[np.floating]], Routes],
    *,
    progress: Callable[[RouteReport], None] | None = None,
) -> RouteReport:
    """Route ready feature vectors; output rows hold the vector's number as `row`, then model, score, margin, error.

    Args:
        features_BD: (B, D), may be memory-mapped; a row whose numbers are not finite or too large becomes an error row.
        write, progress: as in `route_rows`.
        route: decides on (b, D) finite vectors.
    """
    report = RouteReport()
    start = time.perf_counter()
    for first in range(0, len(features_BD), WINDOW_ROWS):
        block = np.asarray(features_BD[first : first + WINDOW_ROWS])
        # a plain float would become an infinity beside float16
        finite = np.asarray((np.abs(block) <= np.float64(MAX_MAGNITUDE)).all(axis=1))
        routes = route(block[finite])
        decided = _results(routes)
        bad = f"features: expected numbers of at most {MAX_MAGNITUDE:g} in magnitude, got NaN, infinity or a larger one"
        write([{"row": first + i, **(next(decided) if ok else _failed(bad))} for i, ok in enumerate(finite.tolist())])
        if not finite.all() and not report.first_error:
            report.first_error = f"row {first + int(np.argmin(finite))}: {bad}"
        _count(report, routes, len(block), int((~finite).sum()), start)
        if progress is not None:
            progress(report)
    report.seconds = time.perf_counter() - start
    return report


def _query(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{name}: expected a text that is not empty, got {brief(value) if name in fields else 'no such field'}"
        )
    return value


def _domain(fields: dict[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        value = fields.get(name)
        if value is not None and value != "":
            domain_index(value)
            return str(value)
    return None


def _kept(fields: dict[str, Any], keep: Sequence[str] | None, report: RouteReport) -> dict[str, Any]:
    names = fields if keep is None else [name for name in keep if name in fields]
    report.renamed.update(name for name in names if input_name(name) != name)
    return {input_name(name): fields[name] for name in names}


def _results(routes: Routes) -> Iterator[dict[str, Any]]:
    margins = [None if margin == np.inf else margin for margin in routes.margins.tolist()]
    for model, score, margin in zip(routes.models, routes.scores.tolist(), margins, strict=True):
        yield {"model": model, "score": score, "margin": margin, "error": None}


def _failed(error: str) -> dict[str, Any]:
    return {"model": None, "score": None, "margin": None, "error": error}


def _count(report: RouteReport, routes: Routes, n_rows: int, n_errors: int, start: float) -> None:
    report.rows += n_rows
    report.errors += n_errors
    report.tokens += routes.n_tokens
    report.truncated += routes.n_truncated
    report.cached += routes.n_cached
    report.share.update(routes.models)
    report.seconds = time.perf_counter() - start
