"""Conditional exact match: the answer holds the truth, word for word."""

from __future__ import annotations

from gpu_select.benchmark.metrics.em_mc import chosen_letter
from gpu_select.benchmark.metrics.words import contains_run, words

__all__ = ["cem"]


def cem(response: str, truths: list[str]) -> float:
    """1 where the answer's words hold those of an accepted answer as a run of whole words, else 0.

    Source:
        LLMRouter's `cem_score`, which looks for the letters of one text in the other.
    """
    return float(any(_holds(response, truth) for truth in truths))


def _holds(response: str, truth: str) -> bool:
    run = words(truth)
    if run:
        return contains_run(words(response), run)
    # nothing is left of a truth such as "A", "The" or "+", and nothing is in every answer
    run = words(truth, articles=True)
    if words(response, articles=True) == run and (run or response.strip() == truth.strip()):
        return True
    return run == ["a"] and chosen_letter(response) == "A"
