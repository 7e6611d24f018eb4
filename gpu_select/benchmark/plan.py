"""What an output file has already, and what is still to be done for it to be complete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_select.benchmark.answer_file import AnswerFile, Span
from gpu_select.benchmark.prompts import prompt
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.record import SCORED_BY, is_answer, needs_score, question_fields
from gpu_select.benchmark.recorder import Pair
from gpu_select.benchmark.targets import Target
from gpu_select.errors import DataError, GpuSelectError, brief

__all__ = ["Plan", "make_plan"]

Metric = Callable[[str | None, object], str]


@dataclass
class Plan:
    """Work for a file."""

    calls: dict[str, list[Question]]
    """By model, the questions that it has not answered."""
    failed: dict[Pair, Span] = field(default_factory=dict)
    """Where the records of earlier failures stand, for the calls that are made again."""
    again: list[tuple[Span, Question]] = field(default_factory=list)
    """Answers without a score, and those whose question has changed since."""
    answered: int = 0
    """Pairs that have their answer."""


class _Held(NamedTuple):
    """The newest line of a pair."""

    span: Span
    identity: int | None
    """Of the answer, None for a failed call: one answer may be in the file more than once, scored and not."""
    is_current: bool = True
    """Whether its fields and score are what the question asks for."""
    conflict: str = ""
    """How it was asked for, where this run would ask otherwise."""


def make_plan(
    file: AnswerFile, questions: Sequence[Question], targets: Sequence[Target], form: str, metric_of: Metric
) -> Plan:
    """Compare a file with what is wanted; superseded lines are dropped from it.

    An answer supersedes failures of its pair, and a later version of the same answer an earlier one. Lines of other
    pairs stay.

    Args:
        file: its records are read.
        questions, targets: every pair of them is wanted.
        form: how prompts are made.
        metric_of: the canonical name of a metric.

    Raises:
        DataError: a line is no record; or answers were asked for in another way, as what one file holds has to be
            comparable.
    """
    question_of = {question.query: question for question in questions}
    target_of = {target.name: target for target in targets}
    held: dict[bytes, _Held] = {}
    for number, span, record in file.records():
        question, target = question_of.get(record["query"]), target_of.get(record["model_name"])
        if not is_answer(record):
            new = _Held(span, None)
        elif question is None or target is None:
            new = _Held(span, _identity(record))
        else:
            new = _Held(
                span,
                _identity(record),
                _is_current(record, question),
                _conflict(number, record, question, target, form, metric_of),
            )
        _keep(file, held, _key(record["query"], record["model_name"]), new)

    plan = Plan({target.name: [] for target in targets})
    conflicts = []
    for target in targets:
        for question in questions:
            found = held.get(_key(question.query, target.name))
            if found is None or found.identity is None:
                plan.calls[target.name].append(question)
                if found is not None:
                    plan.failed[question.query, target.name] = found.span
                continue
            plan.answered += 1
            if found.conflict:
                conflicts.append(found.conflict)
            elif not found.is_current:
                plan.again.append((found.span, question))
    if conflicts:
        more = f", as were {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        raise DataError(
            f"{file.path}: {conflicts[0]}{more}: answers of one file have to be comparable; ask as before, "
            "give another --output, or remove these lines"
        )
    return plan


def _keep(file: AnswerFile, held: dict[bytes, _Held], key: bytes, new: _Held) -> None:
    old = held.get(key)
    if old is not None and new.identity is None and old.identity is not None:
        file.drop(new.span)
        return
    if old is not None and old.identity in (None, new.identity):
        file.drop(old.span)
    held[key] = new


def _key(query: str, model: str) -> bytes:
    """Shorter than the texts, of which there may be millions."""
    return hashlib.blake2b(f"{len(query)} {query}{model}".encode(), digest_size=16).digest()


def _identity(record: Mapping[str, Any]) -> int:
    return hash(repr((record.get("response"), record.get("response_time"))))


def _is_current(record: Mapping[str, Any], question: Question) -> bool:
    if "request" not in record or not isinstance(record.get("response"), str):
        return True  # of another tool: it stays as it is
    return question_fields(record) == question.fields and not needs_score(record, question.fields)


def _conflict(
    number: int, record: Mapping[str, Any], question: Question, target: Target, form: str, metric_of: Metric
) -> str:
    request = record.get("request")
    if not isinstance(request, dict):
        return ""
    who = f"line {number}: {brief(target.name)} was asked"
    for name, now in (("max_tokens", target.max_tokens), ("temperature", target.temperature)):
        if name in request and request[name] != now:
            return f"{who} with {name} {brief(request[name])}, and now would be with {now}"
    if request.get("prompt") != form:
        return f"{who} with a prompt that is {brief(request.get('prompt'))}, and now would be with one that is {form!r}"
    fields = question_fields(record)
    if any(fields.get(name) != question.fields.get(name) for name in SCORED_BY):
        try:
            before = prompt(fields, metric_of(fields.get("metric"), fields.get("choices")), request["prompt"])
        except (GpuSelectError, ValueError):
            before = None
        now_metric = metric_of(question.fields.get("metric"), question.fields.get("choices"))
        if before != prompt(question.fields, now_metric, request["prompt"]):
            return f"{who} for other choices, or another metric, which are part of the prompt"
    return ""
