"""Where an answer says what its answer is: \\boxed{}, or "the answer is"."""

from __future__ import annotations

import re

__all__ = ["last_boxed", "last_stated"]

_BOXED = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+(?P<bare>[^\s{}$\\]+))")
_STATED = re.compile(
    r"\banswer\b(?: (?:to|of|for)\b[^.\n:]{0,80})? ?(?:(?:is|would be|must be)\b ?:?|[:=])", re.IGNORECASE
)
_DISPLAYED = {"$$": "$$", "\\[": "\\]"}
_MAX_BOXES = 1000


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` or `\fbox{...}` whose braces are balanced, or after a bare `\boxed 7`."""
    boxes = list(_BOXED.finditer(text))[-_MAX_BOXES:]
    for match in reversed(boxes):
        if match["bare"]:
            return match["bare"]
        content = _balanced(text, match.end())
        if content is not None:
            return content.strip()
    return None


def _balanced(text: str, start: int) -> str | None:
    """The text from `start`, just behind an opening brace, to the brace that closes it."""
    depth = 1
    for position in range(start, min(len(text), start + 10_000)):
        letter = text[position]
        if letter in "{}" and text[position - 1] != "\\":
            depth += 1 if letter == "{" else -1
            if not depth:
                return text[start:position]
    return None


def last_stated(text: str) -> str | None:
    """What follows the last "answer is" or "answer:": a display formula, or the rest of the line or the next one."""
    # single blanks and line ends: the pattern need not expect more
    text = "\n".join(filter(None, (" ".join(line.split()) for line in text.replace("**", "").splitlines())))
    stated = list(_STATED.finditer(text))
    rest = text[stated[-1].end() :].strip() if stated else ""
    end = rest.find(_DISPLAYED[rest[:2]], 2) if rest[:2] in _DISPLAYED else -1
    return (rest.partition("\n")[0] if end < 0 else rest[: end + 2]) or None
