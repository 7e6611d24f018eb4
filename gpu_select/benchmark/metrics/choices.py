"""The choices of a multiple-choice question, in the forms that records have them."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from gpu_select.benchmark.metrics.words import words

__all__ = ["LETTERS", "Choices", "letter_of_truth", "parse_choices"]

LETTERS = "ABCDEFGHIJ"

_MAX_TEXT = 100_000
_LINE = re.compile(r"^\s*\(?([A-J])[.):]\s*(\S.*)$", re.MULTILINE)
_ONLY_LETTER = re.compile(r"\s*\(?\s*([A-Ja-j])\s*\)?\s*[.:]?\s*")
_LEADING_LETTER = re.compile(r"\s*\(?([A-J])[.):]\s*\S")


@dataclass(frozen=True, slots=True)
class Choices:
    """What may be chosen; both are empty where the choices come as one text that cannot be taken apart."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """As the data set calls them: letters or digits."""


def parse_choices(choices: Any) -> Choices:
    """Choices from a list, from a dict with `text` and `label` or `labels`, or from a text that holds one of those.

    A text may also have one choice a line, `A) ...`. One that joins its choices by commas, as choices have commas of
    their own, stays unparsed.
    """
    if isinstance(choices, str):
        choices = _from_text(choices)
    if isinstance(choices, dict):
        labels = choices.get("labels", choices.get("label"))
        texts = choices.get("text", choices.get("texts", choices.get("choices")))
        if texts is None:  # {"A": "first", "B": "second"}
            labels, texts = list(choices), list(choices.values())
    else:
        labels, texts = None, choices
    if not isinstance(texts, (list, tuple)):
        return Choices()
    texts = tuple(str(text) for text in texts[: len(LETTERS)])
    if not isinstance(labels, (list, tuple)) or len(labels) < len(texts):
        labels = LETTERS
    return Choices(texts, tuple(str(label) for label in labels[: len(texts)]))


def _from_text(text: str) -> Any:
    text = text.strip()
    if len(text) > _MAX_TEXT:
        return None
    if text[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    lines = _LINE.findall(text)
    if len(lines) > 1 and [letter for letter, _ in lines] == list(LETTERS[: len(lines)]):
        return [choice.strip() for _, choice in lines]
    return None


def letter_of_truth(truth: Any, choices: Choices) -> str | None:
    """The letter of the right choice; None where the truth names none.

    An integer is an index from 0, as in MMLU. A text is a letter, a label of the data set, a choice's text, a letter
    with its text, or a number from 1, as in ARC.
    """
    if isinstance(truth, int) and not isinstance(truth, bool):
        return LETTERS[truth] if 0 <= truth < len(choices.texts or LETTERS) else None
    text = str(truth).strip()
    if text in choices.labels:
        return LETTERS[choices.labels.index(text)]
    if text in choices.texts:
        return LETTERS[choices.texts.index(text)]
    if match := _ONLY_LETTER.fullmatch(text):
        return match[1].upper()
    same = [letter for letter, choice in zip(LETTERS, choices.texts, strict=False) if words(choice) == words(text)]
    if len(same) == 1:
        return same[0]
    if match := _LEADING_LETTER.match(text):
        return match[1]
    if re.fullmatch(r"[1-9]|10", text):
        return LETTERS[int(text) - 1]
    return None
