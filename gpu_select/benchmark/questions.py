"""The questions of a benchmark: unique queries of a JSONL file, with what their answers are scored against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_select import jsonio
from gpu_select.benchmark.choices import check_choices
from gpu_select.benchmark.record import SCORED_BY, question_fields
from gpu_select.domains import KNOWN_DOMAINS, domain_index
from gpu_select.errors import ConfigError, DataError, GpuSelectError, MissingDependencyError, brief
from gpu_select.files import open_read
from gpu_select.lines import read_lines

__all__ = ["Question", "read_questions"]

_MAX_LINE_BYTES = 8 << 20
"""With an answer of the largest size it still makes a record that every reader takes."""
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """A query and what else its line says, except for what an earlier benchmark measured on it."""

    fields: Mapping[str, Any]
    """query, and where there are any category, ground_truth, metric, choices, task_name and others, as they came."""

    @property
    def query(self) -> str:
        """The text, which is what tells questions apart."""
        return str(self.fields["query"])


def read_questions(
    path: str | Path, *, limit: int | None = None, check_metric: Callable[[str | None, object], object]
) -> tuple[list[Question], list[str]]:
    """Read questions, one JSON object a line; each query once, the first of its lines counts.

    Benchmark records do as well: what they say of a model and its answer is left out.

    Args:
        path: a file, plain, .gz or .zst, or `-`.
        limit: take the first `limit` distinct queries only.
        check_metric: called with `metric` and `choices` of a line; raises a GpuSelectError for an unknown metric.

    Returns:
        The questions in the file's order, and warnings.

    Raises:
        InputError: the file cannot be read.
        MissingDependencyError: a metric needs a package that is not installed.
        DataError: no question, or the first bad lines with what is wrong in them.
    """
    seen: dict[str, Question] = {}
    problems: list[str] = []
    differing: list[int] = []
    number = 0
    with open_read(path) as stream:
        for lines in read_lines(stream, _MAX_LINE_BYTES):
            for line in lines:
                number += 1
                if line is not None and not line.strip():
                    continue
                try:
                    question = _question(line, check_metric)
                except ValueError as error:
                    problems.append(f"line {number}: {error}")
                    continue
                if limit is not None and len(seen) == limit and question.query not in seen:
                    continue
                first = seen.setdefault(question.query, question)
                if any(first.fields.get(name) != question.fields.get(name) for name in SCORED_BY):
                    differing.append(number)
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise DataError(f"{path}: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")
    if not seen:
        raise DataError(f"{path}: expected at least one line such as {{'query': 'What is 2 + 2?'}}, got none")
    warnings = []
    if differing:
        more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        warnings.append(
            f"{path}: line {differing[0]} repeats a query with another ground_truth, metric or choices{more}; "
            "the first line of a query counts"
        )
    return list(seen.values()), warnings


def _question(line: bytes | None, check_metric: Callable[[str | None, object], object]) -> Question:
    if line is None:
        raise ValueError(f"expected at most {_MAX_LINE_BYTES >> 20} MiB a line, got a longer one")
    try:
        values = jsonio.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is {line[error.start]:#04x}") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {brief(str(error))}") from error
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {brief(values)}")
    fields = question_fields(values)
    query = fields.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"query: expected a text that is not empty, got {brief(values.get('query'))}")
    if fields.get("category", "") != "":
        try:
            domain_index(fields["category"])
        except ConfigError as error:
            expected = ", ".join(KNOWN_DOMAINS)
            raise ValueError(f"category: expected one of {expected}, got {brief(fields['category'])}") from error
    metric = fields.get("metric")
    if metric is not None and not isinstance(metric, str):
        raise ValueError(f"metric: expected a text, got {brief(metric)}")
    check_choices(fields.get("choices"))
    try:
        check_metric(metric, fields.get("choices"))
    except MissingDependencyError:  # no fault of the line
        raise
    except GpuSelectError as error:
        raise ValueError(str(error)) from error
    return Question(fields)
