"""GSM8K: the answer's final number."""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction

from gpu_select.benchmark.metrics.final_answer import last_boxed, last_stated
from gpu_select.benchmark.metrics.numbers import number_of, numbers_in
from gpu_select.benchmark.metrics.words import words

__all__ = ["gsm8k"]

_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")


def gsm8k(response: str, truths: list[str]) -> float:
    """1 where the answer's final number has the truth's value, else 0.

    The final number stands after `####`, else in the last `\\boxed{}`, else after the last "answer is", else it is the
    last number of all. The truth is what stands after its `####`, or all of it.

    Source:
        GSM8K (Cobbe et al., 2021, arXiv:2110.14168) for `####`; lm-evaluation-harness, whose flexible-extract takes the
        last number.
    """
    return float(any(_is_right(response, truth.rpartition("####")[2]) for truth in truths))


def _is_right(response: str, truth: str) -> bool:
    expected = number_of(truth)
    if expected is None:
        expected = next(numbers_in(truth), None)
    if expected is None:
        return words(response) == words(truth)
    return final_number(response) == expected


def final_number(response: str) -> Fraction | None:
    """The number that the answer ends in; None where it has none."""
    _, mark, tail = response.rpartition("####")
    places = (tail if mark else None, last_boxed(response), _sentence(last_stated(response)))
    for place in places:
        # "5 + 3 = 8" ends in its result; before the sign there are only parts of it
        number = next(numbers_in(place.rpartition("=")[2]), None) if place else None
        if number is not None:
            return number
    return next(iter(deque(numbers_in(response), maxlen=1)), None)


def _sentence(text: str | None) -> str | None:
    return _SENTENCE_END.split(text, maxsplit=1)[0] if text else None
