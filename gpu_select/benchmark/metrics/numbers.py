"""Numbers in texts, by exact value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

__all__ = ["number_of", "numbers_in"]

_MAX_DIGITS = 400  # what is longer is no answer, and slow to compare
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?<![\d.])(?:(?P<whole>\d+)\s+(?P<part>\d+/[1-9]\d*)(?![\d.]|/\d)|(?P<top>{_UNSIGNED})"
    rf"(?:\s?/\s?(?P<bottom>{_UNSIGNED}))?)"
)
_SIGN = re.compile(r"(?:^|[^\w)\]}\s]|(?:^|[^\w)\]}])\s+|(?<=[a-zA-Z:=])\s+)[-\u2212](?:\\?[$\u20ac\u00a3])?$")
_SPACED = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!|,\\!|\{,\}\\!)(?=\d{3}(?!\d))")


def numbers_in(text: str) -> Iterator[Fraction]:
    """The numbers of a text from left to right: 1,000 and $18.00, -3.5, 3/4 and 1 1/2; what follows them is no matter.

    A minus sign counts where it touches the number or its currency and no number, word or bracket stands before it.
    """
    text = _SPACED.sub("", text)
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            negative = _SIGN.search(text, max(0, match.start() - 8), match.start())
            yield -value if negative else value


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MAX_DIGITS:
        return None
    if match["whole"]:
        return Fraction(match["whole"]) + Fraction(match["part"])
    top = Fraction(match["top"].replace(",", ""))
    bottom = Fraction(match["bottom"].replace(",", "")) if match["bottom"] else Fraction(1)
    return top / bottom if bottom else None


_ONLY_NUMBER = re.compile(
    rf"\s*(?:\\?[$\u20ac\u00a3]\s?)?[-+\u2212]?\s?(?:\\?[$\u20ac\u00a3]\s?)?(?:\d+\s+\d+/\d+|{_UNSIGNED}(?:\s?/\s?{_UNSIGNED})?)"
    r"\s*(?:\\?%)?\s*\.?\s*"
)


def number_of(text: str) -> Fraction | None:
    """The value of a text that is one number, perhaps with a currency or percent sign; None for any other."""
    text = _SPACED.sub("", text)
    if not _ONLY_NUMBER.fullmatch(text):
        return None
    values = list(numbers_in(text))
    return values[0] if len(values) == 1 else None
