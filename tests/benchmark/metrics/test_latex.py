from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.latex import normal_latex, unwrapped


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\dfrac{1}{2}", r"\frac12"),
        (r"\tfrac 1 2", r"\frac{1}{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"10{,}000", "10000"),
        (r"10\,000", "10000"),
        (r"\text{Even}", r"\mathrm{Even}"),
        (r"x = 5", "5"),
        (r"x \in [0,1]", "[0,1]"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        (r"\$5", "5"),
        (r"50\%", "50%"),
        (r"a \leq b", r"a \le b"),
        (r"2 \times 3", r"2 \cdot 3"),
        ("\u2212\u03c0", r"-\pi"),
        (r"\varnothing", r"\emptyset"),
        ("5.", "5"),
    ],
)
def test_one_formula_has_one_spelling(one, other):
    assert normal_latex(one) == normal_latex(other)


@pytest.mark.parametrize(
    ("one", "other"), [("(1,2)", "[1,2]"), ("3.5", "35"), (r"\pi r", r"\pir"), ("x+1", "x-1"), (r"\frac{1}{2}", "12")]
)
def test_another_formula_has_another(one, other):
    assert normal_latex(one) != normal_latex(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x=7$. I hope it is correct.", "x=7"),
        (r"\(7\).", "7"),
        (r"\[7\]", "7"),
        ("$$7$$", "7"),
        ("$1$ and $2$", "1,2"),
        ("**7**", "7"),
        ("3.5", "3.5"),
        ("3.5.", "3.5"),
        ("Paris. It is large", "Paris"),
        ("", ""),
    ],
)
def test_a_statement_is_unwrapped(text, expected):
    assert unwrapped(text) == expected


@given(st.text(alphabet=st.sampled_from("\\frac{}12$ .,()[]^_%textsqrt"), max_size=100))
def test_any_text_is_taken(text):
    normal_latex(text)
    unwrapped(text)
