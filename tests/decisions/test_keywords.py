"""Keyword rules: whole words and phrases, in scripts with and without spaces."""

from __future__ import annotations

import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.config import KeywordRule
from gpu_select.decisions import KeywordMatcher, keywords


def holds(text, *keywords, operator="OR", case_sensitive=False):
    return bool(KeywordMatcher([KeywordRule("r", operator, keywords, case_sensitive)])([text])[0, 0])


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("urgent", "This is URGENT!", True),
        ("urgent", "urgently", False),
        ("urgent", "non-urgent", True),
        ("urgent", "un_urgent", False),
        ("credit card", "my credit\n  card", True),
        ("credit card", "creditcard", False),
        ("c++", "a C++ program", True),
        ("c++", "c++11", True),
        ("c++", "abc++", False),
        (".net", "asp.net core", True),
        (".net", ".network", False),
        ("a.b", "axb", False),
        ("(x|y)", "x", False),
        ("(x|y)", "f(x|y)", True),
        ("café", "Le CAFÉ ferme", True),
        ("café", "cafés", False),
        ("42", "is 42?", True),
        ("42", "1420", False),
        ("python", "请用Python编程", True),
        ("紧急", "这是紧急请求", True),
        ("急ぎ", "大急ぎです", True),
        ("긴급", "긴급합니다", True),
        ("ด่วน", "ขอด่วนมาก", True),
    ],
)
def test_what_a_keyword_finds(keyword, text, found):
    assert holds(text, keyword) is found


def test_case_sensitive():
    assert holds("ask IT", "IT", case_sensitive=True)
    assert not holds("ask it", "IT", case_sensitive=True)


@pytest.mark.parametrize(("operator", "results"), [("OR", "0111"), ("AND", "0001"), ("NOR", "1000")])
def test_operators(operator, results):
    texts = ["none", "a red one", "a blue one", "red and blue"]
    assert "".join(str(int(holds(text, "red", "blue", operator=operator))) for text in texts) == results


def test_many_rules_on_many_texts():
    rules = [KeywordRule(word, "OR", (word,)) for word in ("a", "b", "c")]
    assert KeywordMatcher(rules)(["a b", "", "c a"]).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert KeywordMatcher(rules)([]).shape == (0, 3)
    assert KeywordMatcher([])(["x"]).shape == (1, 0)


@given(st.text(min_size=1).filter(lambda t: t.strip() and t.isprintable()), st.text())
def test_any_keyword_finds_itself_between_spaces(keyword, text):
    keyword = keyword.strip()
    assert holds(f"{text} {keyword} {text}", keyword, case_sensitive=True)


def holds_in_one_search(text, keyword, case_sensitive):
    """The definition, without slices."""
    words = r"\s+".join(map(re.escape, keyword.split()))
    before = rf"(?<!{keywords._LETTER})" if re.match(keywords._LETTER, keyword[0]) else ""
    after = rf"(?!{keywords._LETTER})" if re.match(keywords._LETTER, keyword[-1]) else ""
    return re.search(before + words + after, text, 0 if case_sensitive else re.IGNORECASE) is not None


LETTERS = [*"abABkK\u212a\u0130i\u0131s\u017f.", " ", "  \n", "\t", "\x1c", "ab", "ab ba"]
PIECES = st.lists(st.sampled_from(LETTERS), max_size=40)


@given(PIECES.map("".join), PIECES.map("".join), st.booleans(), st.integers(1, 9))
def test_slices_make_no_difference(text, keyword, case_sensitive, slice_size):
    keyword = keyword.strip()[:8].strip() or "ab"
    expected = holds_in_one_search(text, keyword, case_sensitive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keywords, "_SLICE", slice_size)
        assert holds(text, keyword, "a" * 12, case_sensitive=case_sensitive) is expected


def test_what_the_pattern_takes_for_equal_the_plain_search_finds():
    lower_of = {}
    for character in map(chr, range(0x20000)):
        for other in {character.lower(), character.upper(), character.casefold(), *"is\u03bc\u03b9"}:
            if len(other) == 1 and other != character:
                lower_of.setdefault(other, []).append(character)
    for other, characters in lower_of.items():
        equal = re.findall(re.escape(other), "".join(characters), re.IGNORECASE)
        assert {keywords._fold(one) for one in equal} <= {keywords._fold(other)}


@pytest.mark.parametrize("gap", [1, 8191, 8192, 8193, 30_000])
def test_any_white_space_fits_however_long(gap):
    assert holds("x" * 100 + " credit" + " " * gap + "card", "credit card")
    assert holds("x" * (8192 + gap) + " credit\n card ", "credit card")


def test_other_threads_go_on_while_a_long_text_is_searched():
    turns, done = 0, threading.Event()

    def take_turns():
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(1e-4)

    thread = threading.Thread(target=take_turns)
    matcher = KeywordMatcher([KeywordRule("r", "OR", ("urgent",))])
    text = "urgently " * 500_000
    thread.start()
    before = turns
    assert not matcher([text])[0, 0]
    after = turns
    done.set()
    thread.join()
    assert after - before > 10
