"""Reading benchmark records: parse, check, group by query."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpu_select import jsonio
from gpu_select.domains import DEFAULT_DOMAIN, domain_index
from gpu_select.errors import ConfigError, DataError, brief
from gpu_select.files import open_read
from gpu_select.lines import MAX_LINE_BYTES, read_lines
from gpu_select.records.table import OutcomeTable

__all__ = ["RecordCounts", "read_outcomes"]

_MAX_MODELS = 10_000


@dataclass
class RecordCounts:
    """What was read, and what was noticed on the way."""

    records: int = 0
    queries: int = 0
    models: int = 0
    skipped: int = 0
    first_skipped: str = ""
    failed_calls: int = 0
    """Records of a call that failed: `error` set and no performance."""
    unscored: int = 0
    """Records of an answer that has no score: `unscored` set and no performance."""
    repeated: int = 0
    """Records beyond the first of the same query and model; the table holds the mean."""
    holes: int = 0
    """(query, model) pairs that nobody scored."""
    without_domain: int = 0
    other_domain: int = 0
    """Records whose category differs from the one that their query had first."""
    odd_costs: int = 0
    """Records with a cost or token count that is none; it counts as unknown."""
    first_odd_cost: str = ""

    def warnings(self, path: object) -> list[str]:
        """One line for each thing a user should know."""
        out = []
        if self.skipped:
            rest = f", and {self.skipped - 1} more" if self.skipped > 1 else ""
            out.append(f"{path}: left out {self.skipped} of {self.records} records: {self.first_skipped}{rest}")
        if self.failed_calls:
            out.append(f"{path}: left out {self.failed_calls} records of failed calls")
        if self.unscored:
            out.append(f"{path}: left out {self.unscored} records of answers without a score")
        if self.repeated:
            out.append(f"{path}: {self.repeated} records repeat a query and model; their mean is used")
        if self.holes:
            out.append(
                f"{path}: {self.holes} of {self.queries * self.models} (query, model) pairs have no outcome; "
                f"means are over what is there"
            )
        if self.without_domain:
            out.append(f"{path}: {self.without_domain} queries without category count as {DEFAULT_DOMAIN!r}")
        if self.other_domain:
            out.append(f"{path}: {self.other_domain} records give their query another category; the first one counts")
        if self.odd_costs:
            rest = f", and {self.odd_costs - 1} more" if self.odd_costs > 1 else ""
            out.append(f"{path}: a cost or token count counts as unknown: {self.first_odd_cost}{rest}")
        return out


def read_outcomes(
    path: str | Path, *, strict: bool = False, limit: int | None = None
) -> tuple[OutcomeTable, RecordCounts]:
    """Read benchmark records, one JSON object a line, and group them by query.

    A record has query, category, model_name, performance in [0, 1] and response_time in seconds. It may have its
    token counts (input_tokens and output_tokens, or prompt_tokens and completion_tokens, at the top or under usage)
    and its cost in USD. Other fields are ignored. Records that break this are left out and counted; without a usable
    cost they stay. The same (query, model) twice counts as its mean.

    Args:
        path: a file, plain, .gz or .zst, or `-`.
        strict: stop at the first record that would be left out.
        limit: take the first `limit` distinct queries only.

    Returns:
        The table, queries and models in order of first appearance, and the counts.

    Raises:
        InputError: the file cannot be read.
        DataError: no usable record; or with `strict` the first bad one. Names the file and the line.
    """
    if limit is not None and limit < 1:
        raise ConfigError("limit", limit, "an integer >= 1")
    counts = RecordCounts()
    query_of: dict[str, int] = {}
    model_of: dict[str, int] = {}
    domains: list[str | None] = []
    pair_of: dict[tuple[int, int], int] = {}
    pairs = array("q")
    columns: dict[str, array[float]] = {name: array("d") for name in _COLUMNS}
    with open_read(path) as stream:
        for number, line in _numbered(stream):
            counts.records += 1
            try:
                record, odd = _parse(line)
                if odd and strict:
                    raise ValueError(odd)
                if isinstance(record, str):
                    counts.failed_calls += record == "failed"
                    counts.unscored += record == "unscored"
                    continue
                if limit is not None and record.query not in query_of and len(query_of) == limit:
                    counts.records -= 1
                    continue
                if record.model not in model_of and len(model_of) == _MAX_MODELS:
                    raise ValueError(f"model_name: expected at most {_MAX_MODELS} different ones, got one more")
            except ValueError as error:
                if strict:
                    raise DataError(f"{path}: line {number}: {error}") from error
                counts.skipped += 1
                counts.first_skipped = counts.first_skipped or f"line {number}: {error}"
                continue
            q = query_of.setdefault(record.query, len(query_of))
            m = model_of.setdefault(record.model, len(model_of))
            if q == len(domains):
                domains.append(record.domain)
            elif domains[q] is None:
                domains[q] = record.domain
            elif record.domain not in (None, domains[q]):
                counts.other_domain += 1
            if odd:
                counts.odd_costs += 1
                counts.first_odd_cost = counts.first_odd_cost or f"line {number}: {odd}"
            counts.repeated += (q, m) in pair_of
            pairs.append(pair_of.setdefault((q, m), len(pair_of)))
            for name, column in columns.items():
                value = getattr(record, name)
                column.append(math.nan if value is None else value)
    if not pair_of:
        found = "".join(
            f" ({text})"
            for text, n in (
                (counts.first_skipped, counts.skipped),
                (f"{counts.failed_calls} of failed calls", counts.failed_calls),
                (f"{counts.unscored} of answers without a score", counts.unscored),
            )
            if n
        )
        raise DataError(
            f"{path}: expected at least one record with query, model_name and performance, "
            f"got {counts.records} records of which none is usable{found}"
        )
    counts.queries, counts.models = len(query_of), len(model_of)
    counts.holes = counts.queries * counts.models - len(pair_of)
    counts.without_domain = sum(domain is None for domain in domains)
    cells = np.array(list(pair_of), dtype=np.int64)
    means = {
        name: _means(cells, np.asarray(pairs), np.asarray(column), (counts.queries, counts.models))
        for name, column in columns.items()
    }
    optional: dict[str, Any] = {f"{name}_QM": means[name] for name in _COLUMNS[2:] if np.isfinite(means[name]).any()}
    if counts.without_domain:
        optional["without_category_Q"] = np.array([domain is None for domain in domains])
    names = [domain or DEFAULT_DOMAIN for domain in domains]
    table = OutcomeTable(list(query_of), names, list(model_of), means["quality"], means["latency_s"], **optional)
    return table, counts


def _means(
    cells_P2: NDArray[np.int64], pair_R: NDArray[np.int64], value_R: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """(Q, M) mean of the known values of each pair, NaN where there is none."""
    known_R = np.isfinite(value_R)
    n_P = np.bincount(pair_R[known_R], minlength=len(cells_P2))
    sum_P = np.bincount(pair_R[known_R], value_R[known_R], minlength=len(cells_P2))
    out_QM = np.full(shape, np.nan)
    some_P = n_P > 0
    out_QM[tuple(cells_P2[some_P].T)] = sum_P[some_P] / n_P[some_P]
    return out_QM


def _numbered(stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line) of every line that is not blank; None for one that is too long."""
    number = 0
    for lines in read_lines(stream):
        for line in lines:
            number += 1
            if line is None or line.strip():
                yield number, line


@dataclass(frozen=True, slots=True)
class _Record:
    query: str
    domain: str | None
    model: str
    quality: float
    latency_s: float | None
    input_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None


_COLUMNS = ("quality", "latency_s", "input_tokens", "output_tokens", "cost_usd")
"""The fields of a record that a table holds; the last three only where some record has them."""


def _parse(line: bytes | None) -> tuple[_Record | Literal["failed", "unscored"], str]:
    """One record, or what it is instead, and what is odd about its cost; ValueError tells what is wrong."""
    if line is None:
        raise ValueError(f"expected at most {MAX_LINE_BYTES >> 20} MiB a line, got a longer one")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is {line[error.start]:#04x}") from error
    try:
        record = jsonio.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {brief(str(error))}") from error
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, got a {type(record).__name__}")
    if record.get("performance") is None:
        if record.get("error"):
            return "failed", ""
        if record.get("unscored"):
            return "unscored", ""
    costs, odd = _costs(record)
    parsed = _Record(
        query=_text(record, "query"),
        domain=_domain(record.get("category")),
        model=_text(record, "model_name"),
        quality=_number(record, "performance", 1.0, "a number in [0, 1]"),
        latency_s=None
        if record.get("response_time") is None
        else _number(record, "response_time", 1e9, "seconds, a number >= 0 and at most 1e9"),
        **costs,
    )
    return parsed, odd


def _costs(record: dict[str, Any]) -> tuple[dict[str, float | None], str]:
    """Token counts and cost under their names, None where unknown, and what is odd about them.

    Nobody trains on them, so an odd one is no reason to lose the outcome.
    """
    usage = record.get("usage")
    sources = [record, usage] if isinstance(usage, dict) else [record]
    out: dict[str, float | None] = {}
    odd = ""
    for name, aliases, expected in _COSTS:
        out[name] = None
        for field, source in ((field, source) for field in aliases for source in sources):
            if source.get(field) is None:
                continue
            try:
                out[name] = _number(source, field, 1e9, expected)
            except ValueError as error:
                odd = odd or str(error)
                continue
            break
    return out, odd


_COSTS = (
    ("input_tokens", ("input_tokens", "prompt_tokens"), "tokens, a number >= 0 and at most 1e9"),
    ("output_tokens", ("output_tokens", "completion_tokens"), "tokens, a number >= 0 and at most 1e9"),
    ("cost_usd", ("cost",), "USD, a number >= 0 and at most 1e9"),
)


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a text that is not empty, got {brief(value)}")
    return value


def _domain(value: object) -> str | None:
    if value is None or value == "":
        return None
    domain_index(value)
    return str(value)


def _number(record: dict[str, Any], name: str, most: float, expected: str) -> float:
    value: Any = record.get(name)
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ValueError(f"{name}: expected {expected}, got {brief(value)}")
    return float(value)
