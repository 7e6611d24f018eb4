"""F1 over words, as SQuAD and HotpotQA score answers."""

from __future__ import annotations

from collections import Counter

from gpu_select.benchmark.metrics.words import words

__all__ = ["f1_score"]

_CLOSED = (["yes"], ["no"], ["noanswer"])


def f1_score(response: str, truths: list[str]) -> float:
    """The best F1 between the answer's words and those of an accepted answer.

    A yes, no or noanswer on either side counts only where the other side is the same.

    Source:
        SQuAD (arXiv:1606.05250) and HotpotQA (arXiv:1809.09600), whose rule for yes and no it has.
    """
    return max(_f1(words(response), words(truth)) for truth in truths)


def _f1(answer: list[str], truth: list[str]) -> float:
    if answer == truth:
        return 1.0
    if answer in _CLOSED or truth in _CLOSED:
        return 0.0
    shared = sum((Counter(answer) & Counter(truth)).values())
    return 2.0 * shared / (len(answer) + len(truth)) if shared else 0.0
