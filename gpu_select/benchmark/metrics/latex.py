"""LaTeX as one spelling: what two writers of the same formula may have written differently."""

from __future__ import annotations

import re

__all__ = ["normal_latex", "unwrapped"]

_DELIMITED = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_TEXT = re.compile(r"\\(?:text(?:bf|rm|it|normal)?|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}")
_SENTENCE_END = re.compile(r"(?<=[^\d\s])[.!]\s|[.!]\s+(?=[A-Z])|[.!]\s*$")
_ONE_DIGIT_FRACTION = re.compile(r"\\frac\s*(?:(\d)|\{([^{}]*)\})\s*(?:([\da-z])|\{([^{}]*)\})")
_ONE_SIGN_ROOT = re.compile(r"\\sqrt\s*([\da-z])")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;: ]|,\\!)+(?=\d{3}(?!\d))")
_MAX_STATED = 2000
_ASSIGNED = re.compile(r"^[a-zA-Z](?:\([a-z]\))?\s*(?:=|\\in)\s*")
_REPLACED = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|limits)(?![a-zA-Z])[lrm]?"), ""),
    (re.compile(r"\\(?:[,;:!> ]|q?quad\b|thinspace\b|hspace\{[^{}]*\})|~"), " "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|\u00b0"), ""),
    (re.compile(r"\\\$|\$|\\(?=%)"), ""),
    (re.compile(r"\\(le|ge|ne)q\b"), r"\\\1"),
    (re.compile(r"\\[cd]?dots[bcmio]?\b|\\ldots\b|\u2026"), "..."),
    (re.compile(r"\\(?:cdot|times)\b|\u00d7|\u00b7"), r"\\cdot "),
    (re.compile(r"\\colon\b"), ":"),
    (re.compile(r"\\varnothing\b"), r"\\emptyset"),
    (re.compile(r"\u2212"), "-"),
    (re.compile(r"\u221e"), r"\\infty "),
    (re.compile(r"\u03c0"), r"\\pi "),
    (re.compile(r"\u221a\s*\(([^()]*)\)|\u221a\s*(\w+)"), r"\\sqrt{\1\2}"),
)


def unwrapped(text: str) -> str:
    """A stated answer without what surrounds it: sentence, formula signs, emphasis, full stop."""
    text = text.strip()[:_MAX_STATED].strip("*_ ").strip()
    end = _SENTENCE_END.search(_DELIMITED.sub(lambda match: "x" * len(match[0]), text))
    text = text[: end.start()] if end else text
    formulas = ["".join(group or "" for group in match).strip() for match in _DELIMITED.findall(text)]
    return ",".join(formulas) if formulas else text.strip().strip("*_ ").strip()


def normal_latex(text: str) -> str:
    r"""One spelling: `\dfrac12` is `\frac{1}{2}`, `x = 5` is `5`; no spaces, text commands, sizes, currency or degrees.

    Source:
        Hendrycks et al. (2021, arXiv:2103.03874), `strip_string`, whose list of differences it extends.
    """
    text = _GROUPED.sub("", text.strip())
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _TEXT.sub(r" \1 ", text)
    text = _ONE_SIGN_ROOT.sub(r"\\sqrt{\1}", text)
    text = _ONE_DIGIT_FRACTION.sub(
        lambda match: rf"\frac{{{match[1] or match[2] or ''}}}{{{match[3] or match[4] or ''}}}", text
    )
    text = _ASSIGNED.sub("", text.strip().rstrip(".").strip())
    return re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|\s+", lambda match: match[1] + " " if match[1] else "", text)
