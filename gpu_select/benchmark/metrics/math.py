"""MATH: the final formula, by value or by its LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from gpu_select.benchmark.metrics.final_answer import last_boxed, last_stated
from gpu_select.benchmark.metrics.latex import normal_latex, unwrapped
from gpu_select.benchmark.metrics.numbers import number_of

__all__ = ["final_formula", "math"]

_MAX_FORMULA = 1000
_MAX_WHOLE = 300
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d{1,300})\}\{(-?\d{1,300})\}")
_NO_UNIT = r"(?!(?:and|or|to|plus|minus|times|over|theta)\b|sin|cos|tan|log)"
_UNIT = rf"(?:{_NO_UNIT}[a-zA-Z]{{3,12}}|[ckm]?m|[km]g|m?l|ft|in|mi|hr|oz|lb)(?:\s[a-zA-Z]{{2,12}}){{0,3}}"
_QUANTITY = re.compile(
    r"(?P<number>.*\d)(?:(?:\\[,;:! ]|~|\s)*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}"
    rf"|(?:\\?\s)+{_UNIT})(?:\s*\^\s*\{{?[23]\}}?)?"
)
_NAME = re.compile(r"\(?([A-Za-z][A-Za-z'-]*)\)?")
_LONGEST_SYMBOL = 2


def math(response: str, truths: list[str], is_equal: Callable[[str, str], bool]) -> float:
    """1 where the answer's final formula equals an accepted answer's, else 0.

    Args:
        response: the answer; its final formula is what `final_formula` finds.
        truths: formulas, or solutions with theirs in a `\\boxed{}`.
        is_equal: of the truth's LaTeX and the answer's, whether they have the same value; asked last.
    Source:
        MATH (Hendrycks et al., 2021, arXiv:2103.03874) for `\\boxed{}` and the normalisation; Minerva for "answer is".
    """
    found = final_formula(response)
    if found is None or len(found) > _MAX_FORMULA:
        return 0.0
    return float(any(_equals(last_boxed(truth) or unwrapped(truth), found, is_equal) for truth in truths))


def final_formula(response: str) -> str | None:
    """What the last `\\boxed{}` holds, else what follows the last "answer is", else all of an answer of one line."""
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed
    stated = last_stated(response)
    if stated is None and len(response) <= _MAX_WHOLE and "\n" not in response.strip():
        stated = response.strip()
    return unwrapped(stated) if stated else None


def _equals(truth: str, found: str, is_equal: Callable[[str, str], bool]) -> bool:
    expected, got = normal_latex(truth), normal_latex(found)
    if not expected or not got:
        return False
    if expected == got:
        return True
    expected_value, got_value = _value(truth), _value(found)
    if expected_value is not None and got_value is not None:
        return _same_number(expected_value, got_value, "%" in truth, "%" in found)
    expected_name, got_name = _name(expected), _name(got)
    if expected_name and expected_name == got_name:
        return True
    if max(len(expected_name), len(got_name)) > _LONGEST_SYMBOL:  # a word is no formula, and not a product of letters
        return False
    return len(truth) <= _MAX_FORMULA and is_equal(truth, found)


def _name(formula: str) -> str:
    """A word, or a choice's letter, in small letters and without parentheses; empty for anything else."""
    match = _NAME.fullmatch(formula)
    return match[1].lower() if match else ""


def _same_number(expected: Fraction, got: Fraction, expected_percent: bool, got_percent: bool) -> bool:
    """By exact value; 50% is 50 as well as 0.5."""
    if expected == got:
        return True
    return expected_percent != got_percent and (expected / 100 == got if expected_percent else expected == got / 100)


def _value(formula: str) -> Fraction | None:
    """The exact value of a number or of a fraction of integers, perhaps with a unit; None for anything else."""
    text = normal_latex(formula)
    value = _exact(text)
    if value is None:
        match = _QUANTITY.fullmatch(formula.strip().rstrip(". ").strip("$ "))
        value = _exact(normal_latex(match["number"])) if match else None
    return value


def _exact(text: str) -> Fraction | None:
    if match := _FRACTION.fullmatch(text):
        bottom = int(match[3])
        return Fraction(int(match[1] + "1") * int(match[2]), bottom) if bottom else None
    return number_of(text)
