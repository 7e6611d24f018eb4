from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.words import contains_run, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat, a dog; an owl!", ["cat", "dog", "owl"]),
        ("Colin Arthur O'Donoghue", ["colin", "arthur", "odonoghue"]),
        ("\u201cSammy\u201d\u2026 Davis", ["sammy", "davis"]),
        ("\uff21\uff22", ["ab"]),
        ("1,000", ["1000"]),
        ("1,000,000.50", ["1000000.5"]),
        ("1,2", ["12"]),
        ("18.00", ["18"]),
        ("3.5", ["3.5"]),
        ("3.50 m.", ["3.5", "m"]),
        (".5", ["0.5"]),
        ("-5", ["-5"]),
        ("\u22125", ["-5"]),
        ("x=-5 (-5) $-5", ["x-5", "-5", "-5"]),
        ("5-3 and 2010-2012", ["53", "and", "20102012"]),
        ("$1,234.00", ["1234"]),
        ("35%", ["35"]),
        ("version 1.10.0", ["version", "1.10.0"]),
        ("100", ["100"]),
        ("10.0", ["10"]),
        ("A.", []),
        ("", []),
        ("?!", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_articles_can_be_kept():
    assert words("A dog", articles=True) == ["a", "dog"]


@given(st.text())
def test_any_text_gives_words(text):
    found = words(text)
    assert all(word.split() == [word] and word not in ("a", "an", "the") for word in found)
    assert not found or contains_run(found, found)


@pytest.mark.parametrize(
    ("text", "run", "expected"),
    [
        ("i know", "no", False),
        ("oh no", "no", True),
        ("a b c", "b c", True),
        ("a b c", "a c", False),
        ("ab c", "b", False),
    ],
)
def test_runs_are_whole_words(text, run, expected):
    assert contains_run(text.split(), run.split()) is expected
