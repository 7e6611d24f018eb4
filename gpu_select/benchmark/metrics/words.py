"""Texts as the words that metrics compare: SQuAD's normalisation, which here leaves numbers what they are."""

from __future__ import annotations

import re
import string
import unicodedata

__all__ = ["contains_run", "words"]

_ARTICLES = frozenset(("a", "an", "the"))
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LEADING_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_TRAILING_ZEROS = re.compile(r"(?<![\d.])(\d+)(?:\.0+|(\.\d*[1-9])0+)(?![\d.]*\d)")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_SIGN = re.compile(r"(?<![^\s(\[{=:$\u20ac\u00a3\"'])[-\u2212](?=\d)")
_KEPT_POINT, _KEPT_SIGN = "\ue000", "\ue001"  # of the private use area: no punctuation, and in no text
_BACK = str.maketrans({_KEPT_POINT: ".", _KEPT_SIGN: "-"})


def words(text: str, *, articles: bool = False) -> list[str]:
    """Words in lower case, without punctuation and without a, an, the; `articles` keeps those.

    A number stays one: 1,000 is 1000, 18.00 is 18, and neither 3.5 nor -5 loses its sign to punctuation.

    Source:
        SQuAD's `normalize_answer` (Rajpurkar et al., 2016, arXiv:1606.05250), with Unicode's punctuation; what happens
        to numbers is this project's.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace(_KEPT_POINT, " ").replace(_KEPT_SIGN, " ")
    text = _LEADING_POINT.sub("0.", _GROUPED.sub("", text))
    text = _TRAILING_ZEROS.sub(lambda match: match[1] + (match[2] or ""), text)
    text = _SIGN.sub(_KEPT_SIGN, _POINT.sub(_KEPT_POINT, text))
    kept = "".join(letter for letter in text if not _is_punctuation(letter))
    return [word for word in kept.translate(_BACK).split() if articles or word not in _ARTICLES]


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or (not letter.isascii() and unicodedata.category(letter).startswith("P"))


def contains_run(words: list[str], run: list[str]) -> bool:
    """Whether `run`, which is not empty, stands in `words` as it is: whole words, in order, nothing between."""
    text, part = " ".join(words), " ".join(run)
    return f" {part} " in f" {text} "
