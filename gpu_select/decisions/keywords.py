"""Keyword rules on texts: whole words and phrases, on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_select.config import KeywordRule

__all__ = ["KeywordMatcher"]

# Letters of scripts without spaces between words, or with endings hung on them: a keyword may stand inside their runs.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LETTER = rf"[^\W{_UNSPACED}]"

_SLICE = 8192
"""Characters that are searched at once. A search keeps the interpreter to itself; between two, other threads get it."""


class KeywordMatcher:
    """Which keyword rules hold for which texts.

    A keyword is plain text. Where it begins or ends with a letter or digit, it has to stand as a word of its own; any
    white space fits its spaces.

    Args:
        rules: C rules.
    """

    def __init__(self, rules: Sequence[KeywordRule]) -> None:
        numbers: dict[tuple[str, bool], int] = {}
        self._tests = [
            (rule.operator, {numbers.setdefault((k, rule.case_sensitive), len(numbers)) for k in rule.keywords})
            for rule in rules
        ]
        self._keywords = [_Keyword(*key) for key in numbers]
        self._overlap = max((len(keyword.text) for keyword in self._keywords), default=0) + 1

    def __call__(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N, C) for N texts."""
        holds_NC = np.empty((len(texts), len(self._tests)), np.bool_)
        for n, text in enumerate(texts):
            found = self._find(text)
            for c, (operator, wanted) in enumerate(self._tests):
                if operator == "AND":
                    holds_NC[n, c] = wanted <= found
                else:
                    holds_NC[n, c] = wanted.isdisjoint(found) == (operator == "NOR")
        return holds_NC

    def _find(self, text: str) -> set[int]:
        """The keywords that a text has."""
        text = "".join(_with_single_spaces(text))
        found: set[int] = set()
        for start in range(0, len(text), _SLICE):
            # Wherever a keyword begins in the slice, the character that follows it is there, too.
            end = start + _SLICE + self._overlap
            piece = text[start:end]
            folded = _fold(piece)
            for i, keyword in enumerate(self._keywords):
                if i not in found and keyword.is_in(text, start, end, piece, folded):
                    found.add(i)
        return found


class _Keyword:
    def __init__(self, text: str, case_sensitive: bool) -> None:
        words = text.split()
        self.text = " ".join(words)
        self._case_sensitive = case_sensitive
        self._plain = self.text if case_sensitive else _fold(self.text)
        before = rf"(?<!{_LETTER})" if re.match(_LETTER, self.text[0]) else ""
        after = rf"(?!{_LETTER})" if re.match(_LETTER, self.text[-1]) else ""
        flags = 0 if case_sensitive else re.IGNORECASE
        self._search = re.compile(before + re.escape(self.text) + after, flags).search

    def is_in(self, text: str, start: int, end: int, piece: str, folded: str) -> bool:
        """Whether it stands in a slice of a text, `piece`, and does not end where the slice does but the text does not.

        What ends there begins in the next slice, too, where the letter that may follow it is seen.
        """
        # a plain search is some fifty times as fast as one by pattern, and mostly all that is needed
        if self._plain not in (piece if self._case_sensitive else folded):
            return False
        match = self._search(text, start, end)
        return match is not None and (match.end() < end or end >= len(text))


def _fold(text: str) -> str:
    """Equal for texts that are equal to `re.IGNORECASE`, and for some others."""
    return text.replace("\u0130", "i").replace("\u0131", "i").casefold()


def _with_single_spaces(text: str) -> Iterator[str]:
    """The pieces of a text with a single space for each run of white space."""
    after_space = False
    for start in range(0, len(text), _SLICE):
        piece = text[start : start + _SLICE]
        words = piece.split()
        if piece[0].isspace() and not after_space:
            yield " "
        yield " ".join(words)
        after_space = piece[-1].isspace()
        if after_space and words:
            yield " "
