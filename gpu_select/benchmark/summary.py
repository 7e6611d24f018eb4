"""What a benchmark found out, model by model."""

from __future__ import annotations

import contextlib
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_select.benchmark.record import is_answer

__all__ = ["ModelSummary", "summarise", "summary_table"]

_COLUMNS = ("performance", "response_time", "time_to_first_token", "input_tokens", "output_tokens", "cost")


@dataclass
class ModelSummary:
    """One model, on the questions of this run; None where nothing is known."""

    model: str
    queries: int
    """Asked for."""
    answered: int = 0
    scored: int = 0
    failed: int = 0
    """Calls that failed in this run or before, and have no answer yet."""
    missing: int = 0
    """Neither answered nor failed: not called yet."""
    cut_at_max_tokens: int = 0
    mean_performance: float | None = None
    median_response_time: float | None = None
    """Seconds, as all times here."""
    p95_response_time: float | None = None
    median_time_to_first_token: float | None = None
    p95_time_to_first_token: float | None = None
    input_tokens: int | None = None
    """Of the answers whose counts are known."""
    output_tokens: int | None = None
    cost_usd: float | None = None
    """Of the answers whose cost is known."""
    usual_error: str | None = None
    """The one that most of its failed calls have."""
    stopped: str | None = None
    """Why the model was given up in this run."""


@dataclass
class _Seen:
    answered: set[str] = field(default_factory=set)
    """The queries: records of another tool may repeat one."""
    cut: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    columns: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in _COLUMNS})


def summarise(
    records: Iterable[Mapping[str, Any]], models: Sequence[str], queries: Collection[str], stopped: Mapping[str, str]
) -> list[ModelSummary]:
    """Sum up records, those of other models and queries left out.

    Args:
        records: of a file that has been compacted.
        models: in the order of the result.
        queries: their texts.
        stopped: by model, why it was given up.
    """
    seen = {model: _Seen() for model in models}
    for record in records:
        of_model = seen.get(record["model_name"])
        if of_model is None or record["query"] not in queries:
            continue
        if not is_answer(record):
            of_model.errors[str(record.get("error") or "no reason is known")] += 1
            continue
        of_model.answered.add(record["query"])
        of_model.cut += record.get("finish_reason") == "length"
        for name, column in of_model.columns.items():
            value = record.get(name)
            if isinstance(value, (int, float)):
                with contextlib.suppress(OverflowError):  # an integer beyond all floats is no measurement
                    column.append(value)
    return [_summary(model, len(queries), seen[model], stopped.get(model)) for model in models]


def _summary(model: str, n_queries: int, seen: _Seen, stopped: str | None) -> ModelSummary:
    failed = seen.errors.total()
    performance, response, first, tokens_in, tokens_out, cost = seen.columns.values()
    return ModelSummary(
        model=model,
        queries=n_queries,
        answered=len(seen.answered),
        scored=len(performance),
        failed=failed,
        missing=max(0, n_queries - len(seen.answered) - failed),
        cut_at_max_tokens=seen.cut,
        mean_performance=math.fsum(performance) / len(performance) if performance else None,
        median_response_time=_quantile(response, 0.5),
        p95_response_time=_quantile(response, 0.95),
        median_time_to_first_token=_quantile(first, 0.5),
        p95_time_to_first_token=_quantile(first, 0.95),
        input_tokens=int(sum(tokens_in)) if tokens_in else None,
        output_tokens=int(sum(tokens_out)) if tokens_out else None,
        cost_usd=math.fsum(cost) if cost else None,
        usual_error=max(seen.errors, key=seen.errors.__getitem__, default=None),
        stopped=stopped,
    )


def _quantile(values: array[float], share: float) -> float | None:
    """Linear between the two nearest values, as numpy has it."""
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    if share == 0.5:
        return statistics.median(values)
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def summary_table(summaries: Sequence[ModelSummary], most_name: int = 32) -> list[str]:
    """Lines of a table; columns without any value are left out."""
    columns: list[tuple[str, list[str]]] = [("model", [_cut(s.model, most_name) for s in summaries])]

    def add(title: str, values: Iterable[str]) -> None:
        cells = list(values)
        if any(cell not in ("", "-", "0") for cell in cells):
            columns.append((title, cells))

    columns.append(("answered", [f"{s.answered}/{s.queries}" for s in summaries]))
    columns.append(("scored", [str(s.scored) for s in summaries]))
    columns.append(("performance", [_number(s.mean_performance, ".4f") for s in summaries]))
    add("time p50", (_seconds(s.median_response_time) for s in summaries))
    add("p95", (_seconds(s.p95_response_time) for s in summaries))
    add("first token p50", (_seconds(s.median_time_to_first_token) for s in summaries))
    add("tokens in", (_number(s.input_tokens, ",") for s in summaries))
    add("out", (_number(s.output_tokens, ",") for s in summaries))
    add("cut", (str(s.cut_at_max_tokens) for s in summaries))
    add("USD", (_number(s.cost_usd, ".4g") for s in summaries))
    add("failed", (str(s.failed) for s in summaries))
    add("missing", (str(s.missing) for s in summaries))
    widths = [max(len(title), *map(len, cells)) for title, cells in columns]
    rows = [[title for title, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}" for i, (cell, width) in enumerate(row)).rstrip()
        for row in ([*zip(row, widths, strict=True)] for row in rows)
    ]


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.3g}ms" if value < 1 else f"{value:.3g}s" if value < 100 else f"{value:.0f}s"
