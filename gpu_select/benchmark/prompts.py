"""What a model is asked: the query as it is, with its choices, or with a request for a short answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, Literal

from gpu_select.benchmark.choices import labelled_choices
from gpu_select.benchmark.metrics.choices import LETTERS

__all__ = ["PromptForm", "prompt"]

PromptForm = Literal["plain", "concise"]

_OPTION_LINE = re.compile(rf"^[ \t]*\(?([{LETTERS}])[).:]\s", re.MULTILINE)
_CONCISE = {
    "MATH": "Give the final answer only, without the steps that lead to it.",
    "GSM8K": "Give the final number only, without the steps that lead to it.",
    "code_eval": "Reply with the code only, without any explanation.",
    "commongen_coverage": "Reply with one sentence.",
}
_CONCISE_ELSE = "Answer in a few words, without any explanation."


def prompt(fields: Mapping[str, Any], metric: str, form: PromptForm) -> str:
    """The text that is sent as the user's message.

    Plain: the query as it is; with `choices`, they follow on lines of their own (unless the query has lines that begin
    with A and B already), and a line that asks for the letter in parentheses where that is what counts. Concise: the
    query, its choices, and a line that asks for nothing but the answer.

    Args:
        fields: `query`, and perhaps `choices`.
        metric: what the answer is scored by, its canonical name.
        form: plain or concise.
    """
    query, choices = fields["query"], fields.get("choices")
    parts = [query]
    if choices and not _lists_choices(query):
        shown = "\n".join(f"{label}. {text}" for label, text in labelled_choices(choices))
        parts.append(shown or str(choices))
    if form == "concise":
        parts.append(_only_the_label(query, choices) if metric == "em_mc" else _CONCISE.get(metric, _CONCISE_ELSE))
    elif choices and metric == "em_mc":
        parts.append(f"End your answer with the {_kind(_labels(query, choices))} of the right choice in parentheses.")
    return "\n\n".join(parts)


def _lists_choices(query: str) -> bool:
    return len(_option_letters(query)) > 1


def _option_letters(text: str) -> list[str]:
    """A, B, C and so on, as far as lines of the text begin with them."""
    found = set(_OPTION_LINE.findall(text))
    return list(itertools.takewhile(found.__contains__, LETTERS))


def _labels(query: str, choices: object) -> list[str]:
    return [label for label, _ in labelled_choices(choices)] or _option_letters(query)


def _kind(labels: list[str]) -> str:
    return "number" if labels and labels[0].isdigit() else "letter"


def _only_the_label(query: str, choices: object) -> str:
    labels = _labels(query, choices)
    text = f"Answer with the {_kind(labels)} of the right choice only"
    return f"{text}: {', '.join(labels[:-1])} or {labels[-1]}." if len(labels) > 1 else f"{text}."
