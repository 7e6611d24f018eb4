"""The wordings that name a choice's letter."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["LetterPatterns", "letter_patterns"]

# A capital letter is none of the choices at the start of a word, a formula, "B.C.", "C++" or "B-cell"; A and I are none
# where they go on as an article or a pronoun do. A small letter is one only where a clause ends behind it.
_GOING_ON = r"(?![\w'\u2019+#]|-\w|\.\w| ?[=^]| ?[<>](?!/)| [-+*/] )"
_ARTICLE = r"(?! (?!because|since|as\b|and\b|is\b|which|due|for\b|with\b|or\b)[a-z])"
_CLAUSE_END = r"(?= ?(?:[.,;:!)\]\"']|$))"

_ANSWER = (
    r"\b(?i:(?:correct|right|best|final|chosen|my) (?:answer|choice|option|one|letter|response|statement)|answer)"
    r"(?i: (?:choice|option|letter))?"
)
_LINK = r"(?:(?i:[^.\n:]{0,80}?\b(?:is|be)\b)|(?i: ?(?:->|[:=>\u2192\u2013-])))\s?(?i:is\b)? ?:?"
_CHOOSE = (
    r"\b(?i:choose|chose|pick|select|go with|going with|say|think|believe|guess)(?i: that)?(?i: it(?:['\u2019]s| is))?"
)
_IT_IS = r"\b(?i:it(?:['\u2019]s| is| must be| should be| would be))"
_SO = r"(?:^|[,;:.] )(?i:so|thus|therefore|hence)[,:]?"
_FILLER = r"(?i: ?(?:(?:(?:most )?likely|probably|therefore|thus|clearly|the|option|choice|letter)\b ?){0,4}:?)\s?"
_RIGHT = r"(?i: (?:is|must be|would be|seems)(?: the)?(?: most)? (?:correct|right|best|accurate|answer))"


class LetterPatterns:
    """Expressions that find one of some letters or digits, given as "A-J" or "1-4", in a text of single blanks."""

    def __init__(self, names: str) -> None:
        either = names + names.lower()
        capital = rf"(?:(?![AI])[{names}]|(?=[AI])[{names}]{_ARTICLE}){_GOING_ON}"
        small = rf"[{names.lower()}]{_CLAUSE_END}{_GOING_ON}"
        letter = rf"[\"'\[\u201c]?(?:\( ?([{either}]) ?\)|({capital}|{small}))"
        self.stated = tuple(
            re.compile(pattern, re.MULTILINE)
            for pattern in (
                _ANSWER + _LINK + _FILLER + letter,
                _CHOOSE + _FILLER + letter,
                _IT_IS + _FILLER + letter,
                _SO + _FILLER + letter + r"[.!]?$",
                rf"(?:\( ?([{either}]) ?\)|(?<![\w'])([{names}])\)?){_RIGHT}",
            )
        )
        """An answer that says which letter it is."""
        self.alone = re.compile(rf"(?i:(?:option|choice|answer):? )?[(\"'\u201c]? ?([{either}]) ?[)\"'\u201d]? ?[.:]?")
        """A whole line that is a letter."""
        self.leading = re.compile(rf"\(?([{names}])[.):](?: \S|$)")
        """The start of a line such as "B) text"."""
        self.bracketed = re.compile(rf"(?<![\w\\])\( ?([{either}]) ?\)(?!\w)")


letter_patterns = cache(LetterPatterns)
