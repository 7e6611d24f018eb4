"""Keyword rules on texts: whole words and phrases, on the host."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_select.config import KeywordRule

__all__ = ["KeywordMatcher"]

# Letters of scripts without spaces between words, or with endings hung on them: a keyword may stand inside their runs.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LETTER = rf"[^\W{_UNSPACED}]"

Search = Callable[[str], object]


class KeywordMatcher:
    """Which keyword rules hold for which texts.

    A keyword is plain text. Where it begins or ends with a letter or digit, it has to stand as a word of its own; any
    white space fits its spaces.

    Args:
        rules: C rules.
    """

    def __init__(self, rules: Sequence[KeywordRule]) -> None:
        self._tests = [(rule.operator, _searches(rule)) for rule in rules]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N, C) for N texts."""
        holds_NC = np.empty((len(texts), len(self._tests)), np.bool_)
        for c, (operator, searches) in enumerate(self._tests):
            join = all if operator == "AND" else any
            holds_NC[:, c] = [join(search(text) for search in searches) for text in texts]
            if operator == "NOR":
                holds_NC[:, c] = ~holds_NC[:, c]
        return holds_NC


def _searches(rule: KeywordRule) -> list[Search]:
    """One search a keyword; one for all of them where any will do."""
    patterns = [_pattern(keyword) for keyword in rule.keywords]
    if rule.operator != "AND":
        patterns = ["|".join(patterns)]
    return [re.compile(pattern, 0 if rule.case_sensitive else re.IGNORECASE).search for pattern in patterns]


def _pattern(keyword: str) -> str:
    words = r"\s+".join(map(re.escape, keyword.split()))
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, keyword[0]) else ""
    after = rf"(?!{_LETTER})" if re.match(_LETTER, keyword[-1]) else ""
    return before + words + after
