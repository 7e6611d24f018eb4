"""Benchmark records -> an outcome table: one row a query, one column a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gpu_select import jsonio
from gpu_select.domains import DEFAULT_DOMAIN, domain_index
from gpu_select.errors import ConfigError, DataError, brief
from gpu_select.files import open_read

__all__ = ["OutcomeTable", "RecordCounts", "read_outcomes"]

_MAX_LINE_BYTES = 64 << 20
_MAX_MODELS = 10_000


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """What each of M models scored on each of Q queries. A model that did not answer a query has NaN there."""

    queries: list[str]
    domains: list[str]
    models: list[str]
    quality_QM: NDArray[np.float64]
    """In [0, 1]."""
    latency_s_QM: NDArray[np.float64]
    """Seconds; NaN also where a record has no response_time."""

    def domain_indices(self) -> NDArray[np.int64]:
        """Slot of each query's domain in the one-hot."""
        return np.array([domain_index(name) for name in self.domains], dtype=np.int64)


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
    repeated: int = 0
    """Records beyond the first of the same query and model; the table holds the mean."""
    holes: int = 0
    """(query, model) pairs that nobody scored."""
    without_domain: int = 0
    other_domain: int = 0
    """Records whose category differs from the one that their query had first."""

    def warnings(self, path: object) -> list[str]:
        """One line for each thing a user should know."""
        out = []
        if self.skipped:
            rest = f", and {self.skipped - 1} more" if self.skipped > 1 else ""
            out.append(f"{path}: left out {self.skipped} of {self.records} records: {self.first_skipped}{rest}")
        if self.failed_calls:
            out.append(f"{path}: left out {self.failed_calls} records of failed calls")
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
        return out


def read_outcomes(
    path: str | Path, *, strict: bool = False, limit: int | None = None
) -> tuple[OutcomeTable, RecordCounts]:
    """Read benchmark records, one JSON object a line, and group them by query.

    A record has query, category, model_name, performance in [0, 1] and response_time in seconds; other fields are
    ignored. Records that break this are left out and counted. The same (query, model) twice counts as its mean.

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
    cells: dict[tuple[int, int], tuple[float, int, float, int]] = {}
    with open_read(path) as stream:
        for number, line in _lines(stream):
            counts.records += 1
            try:
                record = _parse(line)
                if record is None:
                    counts.failed_calls += 1
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
            quality, n, latency, n_timed = cells.get((q, m), (0.0, 0, 0.0, 0))
            counts.repeated += n > 0
            timed = record.latency_s is not None
            cells[q, m] = (quality + record.quality, n + 1, latency + (record.latency_s or 0.0), n_timed + timed)
    if not cells:
        found = f" ({counts.first_skipped})" if counts.first_skipped else ""
        raise DataError(
            f"{path}: expected at least one record with query, model_name and performance, "
            f"got {counts.records} records of which none is usable{found}"
        )
    counts.queries, counts.models = len(query_of), len(model_of)
    counts.holes = counts.queries * counts.models - len(cells)
    counts.without_domain = sum(domain is None for domain in domains)
    quality_QM = np.full((counts.queries, counts.models), np.nan)
    latency_QM = quality_QM.copy()
    for (q, m), (quality, n, latency, n_timed) in cells.items():
        quality_QM[q, m] = quality / n
        if n_timed:
            latency_QM[q, m] = latency / n_timed
    names = [domain or DEFAULT_DOMAIN for domain in domains]
    return OutcomeTable(list(query_of), names, list(model_of), quality_QM, latency_QM), counts


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line that is not blank; a line beyond the bound comes as its first bytes."""
    number = 0
    while line := stream.readline(_MAX_LINE_BYTES):
        number += 1
        rest = line
        while len(rest) == _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(_MAX_LINE_BYTES)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


@dataclass(frozen=True, slots=True)
class _Record:
    query: str
    domain: str | None
    model: str
    quality: float
    latency_s: float | None


def _parse(line: bytes) -> _Record | None:
    """One record, None for a failed call; ValueError tells what is wrong."""
    if len(line) >= _MAX_LINE_BYTES:
        raise ValueError(f"expected at most {_MAX_LINE_BYTES >> 20} MiB a line, got a longer one")
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
    if record.get("error") and record.get("performance") is None:
        return None
    return _Record(
        query=_text(record, "query"),
        domain=_domain(record.get("category")),
        model=_text(record, "model_name"),
        quality=_number(record, "performance", 1.0, "a number in [0, 1]"),
        latency_s=None
        if record.get("response_time") is None
        else _number(record, "response_time", 1e9, "seconds, a number >= 0 and at most 1e9"),
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
