from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.numbers import number_of, numbers_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no number", []),
        ("18.00", [18]),
        ("18.", [18]),
        ("3.5", ["3.5"]),
        (".5", ["0.5"]),
        ("1,000 and 1,234,567.5", [1000, "1234567.5"]),
        ("1,2,3", [1, 2, 3]),
        ("$5 and $-3.50 and -$2", [5, "-3.5", -2]),
        ("x = -5", [-5]),
        ("(-5)", [-5]),
        ("-5", [-5]),
        ("\u22125", [-5]),
        ("10-3", [10, 3]),
        ("10 - 3", [10, 3]),
        ("- 3 apples", [3]),
        ("3/4 and 1 1/2", ["3/4", "3/2"]),
        ("1/0", []),
        ("1.2.3", ["1.2"]),
        (r"1{,}000 and 2\,000", [1000, 2000]),
        ("9" * 500, []),
    ],
)
def test_numbers_in_a_text(text, expected):
    assert list(numbers_in(text)) == [Fraction(value) for value in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1,000", 1000), ("$18.00", 18), (r"\$5", 5), (r"50\%", 50), ("-3", -3), ("1/2", "1/2"), ("5.", 5), (" 7 ", 7)],
)
def test_a_text_that_is_a_number(text, expected):
    assert number_of(text) == Fraction(expected)


@pytest.mark.parametrize("text", ["", "5x", "5 cm", "1,2", "(1, 2)", "x", "1e5", "5 6", "2^3"])
def test_a_text_that_is_no_number(text):
    assert number_of(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3))
def test_any_decimal_is_read_by_its_value(value):
    assert number_of(f"{value:f}") == Fraction(value)
    assert number_of(f"{value:,f}") == Fraction(value)
    assert next(numbers_in(f"it is {value:f} in all")) == Fraction(value)
