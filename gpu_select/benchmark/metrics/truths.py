"""Ground truths as they come in records: a text, a number, or a list of accepted answers."""

from __future__ import annotations

from typing import Any

__all__ = ["accepted_answers"]


def accepted_answers(ground_truth: Any) -> list[str]:
    """The texts of which any is right; none where there is no ground truth."""
    if ground_truth is None:
        return []
    if isinstance(ground_truth, (list, tuple)):
        return [text for item in ground_truth for text in accepted_answers(item)]
    if isinstance(ground_truth, dict):
        return [text for item in ground_truth.values() for text in accepted_answers(item)]
    text = str(ground_truth)
    return [text] if text.strip() else []
