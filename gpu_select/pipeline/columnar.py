"""Routing Parquet to Parquet column by column, where rows bring their embedding: no Python object a row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_select.domains import DEFAULT_DOMAIN, domain_index
from gpu_select.errors import ConfigError
from gpu_select.logs.columnar import check_vectors, labels_of, text_column, vectors_of
from gpu_select.pipeline.embedded import EmbeddedRouter, Vectors
from gpu_select.pipeline.overlap import Overlap
from gpu_select.pipeline.report import RouteReport
from gpu_select.pipeline.windows import DOMAIN_FIELDS, UNUSABLE_VECTOR, VECTOR_LENGTHS, input_name
from gpu_select.selectors import Choice
from gpu_select.stages import StageTimes

__all__ = ["route_batches"]


class _Window(NamedTuple):
    """Some rows that have been checked."""

    batch: Any
    vectors: Vectors
    """Of the rows that can be routed."""
    usable_B: NDArray[np.bool_]
    """Which rows these are."""
    errors: dict[int, str]
    """What is wrong with each other row."""
    n_without_domain: int


def route_batches(
    batches: Iterable[Any],
    write: Callable[[Mapping[str, Any], int], object],
    router: EmbeddedRouter,
    *,
    embedding_field: str,
    domain_fields: Sequence[str] = DOMAIN_FIELDS,
    keep: Sequence[str] | None = None,
    progress: Callable[[RouteReport], object] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> RouteReport:
    """What `route_rows` does with `EmbeddedRouter`, for record batches; the same rows get the same decisions.

    Args:
        batches: the log, some thousand rows at a time.
        write: `LogWriter.write_columns`.
        router: decides.
        embedding_field: the column that holds the embeddings.
        domain_fields, keep, progress, on_stop: as in `route_rows`.

    Raises:
        ConfigError: a column of embeddings that can hold none.
        GpuSelectError: what reading and writing raise.
    """
    report = RouteReport()
    times = StageTimes()
    start = time.perf_counter()

    def read() -> Iterator[_Window]:
        remaining = iter(batches)
        while True:
            with times.host("read"):
                batch = next(remaining, None)
                if batch is None:
                    return
                window = _check(batch, router.dim, embedding_field, domain_fields)
            yield window
            del window, batch

    def finish(decided: tuple[_Window, Choice]) -> None:
        window, choice = decided
        with times.host("write"):
            has = window.batch.schema.names
            kept = [name for name in (has if keep is None else keep) if name in has]
            report.renamed.update(name for name in kept if input_name(name) != name)
            columns = {input_name(name): window.batch.column(name) for name in kept}
            write(columns | _results(router.models, window, choice), len(window.usable_B))
        _count(report, router.models, window, choice)
        report.seconds = time.perf_counter() - start
        if progress is not None:
            progress(report)

    with Overlap(on_stop) as overlap:
        writing = overlap.behind(finish, in_flight=1, name="write")
        for window in overlap.ahead(read(), name="read"):
            writing.wait_for_room()
            with times.host("select"):
                choice = router.choose(window.vectors)
            writing.put((window, choice))
            del window, choice
    report.seconds = time.perf_counter() - start
    report.stage_seconds = times.seconds()
    return report


def _check(batch: Any, dim: int, embedding_field: str, domain_fields: Sequence[str]) -> _Window:
    check_vectors(batch.schema, embedding_field, dim)
    vectors_Bd, length_B = vectors_of(batch, embedding_field, dim)
    errors: dict[int, str] = {}
    for row in np.flatnonzero(length_B != dim).tolist():
        n = int(length_B[row])
        wanted = f"{dim} numbers, got {n}" if n >= 0 else f"a list of {dim} numbers, got None"
        errors[row] = f"{embedding_field}: expected {wanted}"
    with np.errstate(over="ignore", invalid="ignore"):
        square_B = np.einsum("ij,ij->i", vectors_Bd, vectors_Bd)
    usable_B = (square_B >= VECTOR_LENGTHS[0] ** 2) & (square_B <= VECTOR_LENGTHS[1] ** 2)
    for row in np.flatnonzero(~usable_B & (length_B == dim)).tolist():
        errors[row] = f"{embedding_field}: {UNUSABLE_VECTOR}"
    label_B, labels = labels_of(batch, domain_fields)
    slot_L, fault_L = _slots(labels)
    for label, fault in fault_L.items():
        for row in np.flatnonzero(usable_B & (label_B == label)).tolist():
            errors[row] = fault
    if errors:
        usable_B[[*errors]] = False
        vectors_Bd = vectors_Bd[usable_B]
    label_B = label_B[usable_B]
    return _Window(batch, Vectors(vectors_Bd, slot_L[label_B]), usable_B, errors, int((label_B == 0).sum()))


def _slots(labels: Sequence[Any]) -> tuple[NDArray[np.int64], dict[int, str]]:
    """The one-hot slot of each label, and what is wrong with those that name no domain."""
    slots, faults = [], {}
    for i, label in enumerate(labels):
        try:
            slots.append(domain_index(DEFAULT_DOMAIN if label is None or label == "" else label))
        except ConfigError as error:
            slots.append(0)
            faults[i] = str(error)
    return np.array(slots, np.int64), faults


def _results(models: Sequence[str], window: _Window, choice: Choice) -> dict[str, Any]:
    """What routing adds, as columns; `error` only where there is one."""
    B = len(window.usable_B)
    place_B = np.zeros(B, np.int64)
    place_B[window.usable_B] = choice.model.numpy()
    columns: dict[str, Any] = {"model": text_column(models, place_B, window.usable_B)}
    for name, column in (("score", choice.score.numpy()), ("margin", choice.margin.numpy())):
        column_B = np.full(B, np.nan)
        column_B[window.usable_B] = np.where(np.isinf(column), np.nan, column)
        columns[name] = column_B
    if window.errors:
        place_B[[*window.errors]] = range(len(window.errors))
        columns["error"] = text_column([*window.errors.values()], place_B * ~window.usable_B, ~window.usable_B)
    return columns


def _count(report: RouteReport, models: Sequence[str], window: _Window, choice: Choice) -> None:
    if window.errors and not report.first_error:
        row = min(window.errors)
        report.first_error = f"row {report.rows + row + 1}: {window.errors[row]}"
    report.rows += len(window.usable_B)
    report.errors += len(window.errors)
    report.without_domain += window.n_without_domain
    counts = np.bincount(choice.model.numpy(), minlength=len(models)).tolist()
    report.share.update(Counter({model: n for model, n in zip(models, counts, strict=True) if n}))
