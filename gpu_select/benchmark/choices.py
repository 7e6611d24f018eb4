"""How the choices of a question are shown: the labels that its answer is scored by, each with its text."""

from __future__ import annotations

from gpu_select.benchmark.metrics.choices import LETTERS, parse_choices
from gpu_select.errors import brief

__all__ = ["check_choices", "labelled_choices"]


def labelled_choices(choices: object) -> list[tuple[str, str]]:
    """Label and text of each choice; empty where there are none, or as one text that nobody can take apart.

    Labels are the letters from A, and numbers where the data set numbers its choices.
    """
    parsed = parse_choices(choices)
    is_numbered = bool(parsed.labels) and all(label.isdigit() for label in parsed.labels)
    return list(zip(parsed.labels if is_numbered else LETTERS, parsed.texts, strict=False))


def check_choices(choices: object) -> None:
    """Refuse choices that cannot be shown.

    Raises:
        ValueError: they are of no known form, or too many.
    """
    if choices is None or isinstance(choices, str):
        return
    columns = [choices, *choices.values()] if isinstance(choices, dict) else [choices]
    if not labelled_choices(choices) or any(len(c) > len(LETTERS) for c in columns if isinstance(c, (list, dict))):
        raise ValueError(
            f"choices: expected a text, a list of at most {len(LETTERS)} texts, a mapping from letter to text, or "
            f"{{'label': [...], 'text': [...]}}, got {brief(choices)}"
        )
