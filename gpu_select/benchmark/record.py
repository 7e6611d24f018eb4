"""Records of a benchmark: the fields of a question, followed by what was measured on one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_select.benchmark.answer import Answer
from gpu_select.benchmark.targets import Target

__all__ = [
    "OUTCOME_FIELDS",
    "SCORED_BY",
    "answer_record",
    "failed_record",
    "is_answer",
    "needs_score",
    "question_fields",
    "scored",
]

OUTCOME_FIELDS = frozenset(
    (
        *("model_name", "response", "performance", "response_time", "time_to_first_token", "finish_reason"),
        *("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "total_tokens", "usage", "cost"),
        *("attempts", "request", "error", "unscored"),
    )
)
"""What is measured, or says how; everything else in a record belongs to its question."""

SCORED_BY = ("ground_truth", "metric", "choices")
"""The fields of a question that a score depends on."""

_DIGITS = 6  # of times in seconds


def question_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that belongs to its question."""
    return {name: value for name, value in record.items() if name not in OUTCOME_FIELDS and value is not None}


def is_answer(record: Mapping[str, Any]) -> bool:
    """Whether the model has answered, scored or not; else the call has failed."""
    return isinstance(record.get("response"), str) or record.get("performance") is not None


def needs_score(record: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether an answer is to be scored again: it has no score, or its question now asks for another one.

    Args:
        record: of the answer.
        fields: of the question as it is now.
    """
    if record.get("performance") is None:
        return fields.get("ground_truth") is not None
    return any(record.get(name) != fields.get(name) for name in SCORED_BY)


def answer_record(
    fields: Mapping[str, Any], target: Target, answer: Answer, attempts: int, request: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of an answer that is not scored yet.

    Args:
        fields: the question's.
        target: who answered.
        answer: what came.
        attempts: calls until then, the successful one included.
        request: how it was asked, for a later run to compare with.
    """
    record = {
        **fields,
        "model_name": target.name,
        "response": answer.text,
        "response_time": round(answer.seconds, _DIGITS),
    }
    if answer.first_token_s is not None:
        record["time_to_first_token"] = round(answer.first_token_s, _DIGITS)
    optional = {
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "cost": target.cost_usd(answer.input_tokens, answer.output_tokens),
        "finish_reason": answer.finish_reason,
    }
    record |= {name: value for name, value in optional.items() if value is not None}
    return record | {"attempts": attempts, "request": dict(request)}


def scored(record: Mapping[str, Any], performance: float | None, why_not: str) -> dict[str, Any]:
    """A record with its score; without one, with the reason under `unscored`."""
    score = {"unscored": why_not} if performance is None else {"performance": performance}
    out: dict[str, Any] = {}
    for name, value in record.items():
        if name not in ("performance", "unscored"):
            out[name] = value
        if name == "response":
            out |= score
    return out


def failed_record(fields: Mapping[str, Any], target: Target, error: str, attempts: int) -> dict[str, Any]:
    """The record of a call that failed: no performance and no response_time, so that nobody takes it for an outcome."""
    return {**fields, "model_name": target.name, "error": error, "attempts": attempts}
