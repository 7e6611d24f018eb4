"""Multiple choice: the letter that the answer chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gpu_select.benchmark.metrics.choices import LETTERS, Choices, letter_of_truth, parse_choices
from gpu_select.benchmark.metrics.final_answer import last_boxed
from gpu_select.benchmark.metrics.letters import LetterPatterns, letter_patterns
from gpu_select.benchmark.metrics.truths import accepted_answers
from gpu_select.benchmark.metrics.words import contains_run, words

__all__ = ["chosen_letter", "em_mc"]

_DECORATION = re.compile(r"[*`$]|\\(?:text(?:bf|rm|it)?|math(?:bf|rm|it))\s*\{([^{}]*)\}")
_UNKNOWN = Choices()
_DIGITS = Choices(labels=tuple("123456789"))


def em_mc(response: str, ground_truth: Any, choices: Any) -> float:
    """1 where the answer chooses the right letter, or gives the right choice's text, else 0.

    Source:
        LLMRouter's `em_mc`, which takes the last letter in parentheses; the other places to find a letter are those of
        MMLU-Pro's and of lm-evaluation-harness's extraction, made stricter.
    """
    parsed = parse_choices(choices)
    truths = ground_truth if isinstance(ground_truth, (list, tuple)) else [ground_truth]
    right = {letter_of_truth(truth, parsed) for truth in truths} - {None}
    if right:
        chosen = chosen_letter(response, parsed)
        if chosen is None and not parsed.labels and any(str(truth).strip().isdigit() for truth in truths):
            chosen = chosen_letter(response, _DIGITS)
        return float(chosen in right)
    # the truth is a text, and the choices are not known: there is no letter to compare
    runs = [words(text) for text in accepted_answers(truths)]
    return float(any(run and contains_run(words(response), run) for run in runs))


def chosen_letter(response: str, choices: Choices = _UNKNOWN) -> str | None:
    """The letter, A to J, that the answer chooses; None where it names none.

    In this order: the last `\\boxed{B}`; the last "answer is B", "option B is correct", "so B" or the like; a last or
    first line that is a letter; the last "(B)"; a first line such as "B) text", unless other lines start so with other
    letters; the one choice whose text the answer has. A small letter counts only where it stands in parentheses or
    where a clause ends behind it, and "A" and "I" do not count where they go on as an article or a pronoun do.
    """
    names: Sequence[str] = LETTERS[: len(choices.texts) or len(LETTERS)]
    if choices.labels and all(label.isdigit() for label in choices.labels):
        names = choices.labels
    patterns = letter_patterns("1-9" if names[0].isdigit() else f"A-{names[-1]}")
    name = _named(_plain(response), last_boxed(response), patterns)
    if name is not None and name.upper() in names:
        return LETTERS[names.index(name.upper())]
    return _letter_of_text(response, choices)


def _plain(text: str) -> str:
    """Without emphasis and formula signs, with single blanks and line ends: patterns need not expect more."""
    text = _DECORATION.sub(lambda match: match[1] or "", text)
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))


def _named(plain: str, boxed: str | None, patterns: LetterPatterns) -> str | None:
    if boxed is not None:
        boxed = _plain(boxed)
        if match := patterns.alone.fullmatch(boxed) or patterns.leading.match(boxed):
            return match[1]
    stated = [match for pattern in patterns.stated for match in pattern.finditer(plain)]
    if stated:
        last = max(stated, key=lambda match: match.end())
        return last[1] or last[2]
    lines = plain.splitlines()
    for line in lines[-1:] + lines[:1]:
        if match := patterns.alone.fullmatch(line):
            return match[1]
    if bracketed := patterns.bracketed.findall(plain):
        return str(bracketed[-1])
    leading = {match[1] for line in lines if (match := patterns.leading.match(line))}
    return leading.pop() if len(leading) == 1 and patterns.leading.match(lines[0]) else None


def _letter_of_text(response: str, choices: Choices) -> str | None:
    """The letter of the only choice whose text the answer has; one that is part of another such choice is no other."""
    said = words(response, articles=True)
    runs = [(letter, words(text, articles=True)) for letter, text in zip(LETTERS, choices.texts, strict=False)]
    found = [(letter, run) for letter, run in runs if run and contains_run(said, run)]
    whole = [
        letter for letter, run in found if not any(run != other and contains_run(other, run) for _, other in found)
    ]
    return whole[0] if len(whole) == 1 else None
