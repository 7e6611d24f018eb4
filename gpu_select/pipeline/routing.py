"""Reading, tokenising, deciding and writing at the same time, so that the device need not wait for the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_select.logs import RESULT_FIELDS, Row
from gpu_select.pipeline.overlap import Overlap
from gpu_select.pipeline.report import RouteReport
from gpu_select.pipeline.windows import DOMAIN_FIELDS, Find, Keeper, Window, check_window, failed, text_in
from gpu_select.stages import StageTimes
from gpu_select.wire import MAX_MAGNITUDE

__all__ = ["WINDOW_ROWS", "route_rows", "route_vectors"]

WINDOW_ROWS = 8192
"""Rows that are read, deduplicated, sorted by length and written together."""

_IN_FLIGHT = 2
"""Windows that are decided and not yet written: the device works on one while the other is written."""

_P = TypeVar("_P")
_P_contra = TypeVar("_P_contra", contravariant=True)


class Routes(Protocol):
    """Decisions for some queries, in their order: `router.Routes` or `decisions.DecisionRoutes`."""

    @property
    def n_tokens(self) -> int:
        """Tokens that went through the encoder."""
        ...

    @property
    def n_truncated(self) -> int:
        """Distinct texts longer than the encoder takes."""
        ...

    @property
    def n_cached(self) -> int:
        """Distinct texts whose embedding came from the cache."""
        ...

    def rows(self) -> Iterator[dict[str, Any]]:
        """What each query's row gets: the result fields, with `error` set for a query that cannot be routed."""
        ...


class Pending(Protocol):
    """Decisions that the device may still be working on."""

    def routes(self) -> Routes:
        """Wait for them."""
        ...


class Decide(Protocol[_P_contra]):
    """The device's part, `Router.decide` or `DecisionRouter.decide_prepared` with its options bound."""

    def __call__(self, prepared: _P_contra, /, *, times: StageTimes) -> Pending: ...


def route_rows(
    windows: Iterable[list[Row]],
    write: Callable[[list[dict[str, Any]]], object],
    prepare: Callable[[list[Any], list[str | None]], _P],
    decide: Decide[_P],
    *,
    find: Find = text_in("query"),  # noqa: B008 - a function without state
    domain_fields: Sequence[str] = DOMAIN_FIELDS,
    keep: Sequence[str] | None = None,
    result_fields: Sequence[str] = RESULT_FIELDS,
    progress: Callable[[RouteReport], object] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> RouteReport:
    """Route every row of a log. A row that cannot be routed keeps its place, with `error` set.

    Each of the four callables runs in a thread of its own, `decide` in the caller's, and about eight windows are held
    in memory. What is written and raised is what would be if they took turns (`Overlap`).

    Args:
        windows: the log, some thousand rows at a time.
        write: takes a window's output rows: the kept fields, then the result fields.
        prepare: `prepare` of a router. Each window's equal queries are embedded once.
        decide: `Router.decide` or `DecisionRouter.decide_prepared` with its options bound.
        find: what is routed of a row; by default the text in `query`.
        domain_fields: the first of these that a row has, and that is not empty, is its domain.
        keep: the input fields to keep; by default all.
        result_fields: what the router's rows hold, in the order of the output's columns; `error` is one of them.
        progress: called after each window, in the thread that writes.
        on_stop: called when nothing more will be read or written, for what may otherwise wait for ever.

    Raises:
        GpuSelectError: what the callables raise for reasons that are not a row's own.
    """
    keeper = Keeper(keep, result_fields)
    report = RouteReport(renamed=keeper.renamed)
    times = StageTimes()
    start = time.perf_counter()

    def read() -> Iterator[Window]:
        remaining = iter(windows)
        while True:
            with times.host("read"):
                rows = next(remaining, None)
                if rows is None:
                    return
                window = check_window(rows, find, domain_fields)
            del rows
            yield window
            del window  # it may be written and gone before the next one has been read

    def tokenise(window: Window) -> tuple[Window, _P]:
        with times.host("tokenise"):
            return window, prepare(window.queries, window.domains)

    def finish(decided: tuple[Window, Pending]) -> None:
        window, pending = decided
        routes = pending.routes()
        with times.host("write"):
            done, errors = routes.rows(), window.errors
            results = [failed(errors[i], result_fields) if i in errors else next(done) for i in range(len(window.rows))]
            write([keeper.row(row.fields, result) for row, result in zip(window.rows, results, strict=True)])
        report.without_domain += window.domains.count(None)
        _count(report, routes, results, 1, start)
        if progress is not None:
            progress(report)

    with Overlap(on_stop) as overlap:
        writing = overlap.behind(finish, in_flight=_IN_FLIGHT, name="write")
        for window, prepared in overlap.ahead(map(tokenise, overlap.ahead(read(), name="read")), name="tokenise"):
            writing.wait_for_room()
            writing.put((window, decide(prepared, times=times)))
            del window, prepared  # while waiting for the next one
    report.seconds = time.perf_counter() - start
    report.stage_seconds = times.seconds()
    return report


def route_vectors(
    features_BD: NDArray[np.floating],
    write: Callable[[list[dict[str, Any]]], object],
    route: Callable[[NDArray[np.floating]], Routes],
    *,
    window_rows: int = WINDOW_ROWS,
    progress: Callable[[RouteReport], object] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> RouteReport:
    """Route ready feature vectors; output rows hold the vector's number as `row`, then model, score, margin, error.

    Args:
        features_BD: (B, D), may be memory-mapped; a row whose numbers are not finite or too large becomes an error row.
        write, progress, on_stop: as in `route_rows`.
        route: decides on (b, D) finite vectors.
        window_rows: vectors that are decided and written together.
    """
    report = RouteReport()
    times = StageTimes()
    start = time.perf_counter()
    bad = f"features: expected numbers of at most {MAX_MAGNITUDE:g} in magnitude, got NaN, infinity or a larger one"

    def read() -> Iterator[tuple[NDArray[np.bool_], NDArray[np.floating]]]:
        for first in range(0, len(features_BD), window_rows):
            with times.host("read"):
                block = np.asarray(features_BD[first : first + window_rows])
                # a plain float would become an infinity beside float16
                usable = np.asarray((np.abs(block) <= np.float64(MAX_MAGNITUDE)).all(axis=1))
                block = block[usable]  # a copy, so that what is mapped is read here
            yield usable, block
            del block

    def finish(decided: tuple[NDArray[np.bool_], Routes]) -> None:
        usable, routes = decided
        first = report.rows
        with times.host("write"):
            done = routes.rows()
            results = [next(done) if ok else failed(bad) for ok in usable.tolist()]
            write([{"row": first + i} | result for i, result in enumerate(results)])
        _count(report, routes, results, 0, start)
        if progress is not None:
            progress(report)

    with Overlap(on_stop) as overlap:
        writing = overlap.behind(finish, in_flight=_IN_FLIGHT, name="write")
        for usable, block in overlap.ahead(read(), name="read"):
            writing.wait_for_room()
            with times.host("select"):
                routes = route(block)
            writing.put((usable, routes))
            del usable, block, routes
    report.seconds = time.perf_counter() - start
    report.stage_seconds = times.seconds()
    return report


def _count(report: RouteReport, routes: Routes, results: list[dict[str, Any]], first_number: int, start: float) -> None:
    errors = [(place, result["error"]) for place, result in enumerate(results) if result["error"] is not None]
    if errors and not report.first_error:
        place, error = errors[0]
        report.first_error = f"row {first_number + report.rows + place}: {error}"
    report.rows += len(results)
    report.errors += len(errors)
    report.tokens += routes.n_tokens
    report.truncated += routes.n_truncated
    report.cached += routes.n_cached
    report.share.update(result["model"] for result in results if result["error"] is None)
    report.decisions.update(result["decision"] for result in results if result.get("decision") is not None)
    report.seconds = time.perf_counter() - start
