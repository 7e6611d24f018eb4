"""Keyword rules: whole words and phrases, in scripts with and without spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.config import KeywordRule
from gpu_select.decisions import KeywordMatcher


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
