from __future__ import annotations

import importlib.util
from typing import NoReturn

import pytest

from gpu_select.benchmark.metrics.math import final_formula, math
from gpu_select.benchmark.metrics.math_equality import MathEquality


def never(truth: str, answer: str) -> NoReturn:
    raise AssertionError(f"asked whether {answer!r} equals {truth!r}")


@pytest.fixture(scope="module")
def is_equal():
    if importlib.util.find_spec("math_verify") is None:
        pytest.skip("needs math-verify")
    equality = MathEquality()
    yield equality
    equality.close()


EQUAL = [
    (r"\dfrac{1}{2}", "0.5"),
    ("1/2", r"\frac12"),
    (r"\frac{-1}{2}", "-0.5"),
    ("18.00", "18"),
    (r"\$18.00", "18"),
    ("1,000", "1000"),
    (r"10{,}000", "10000"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("(1,2)", r"\left(1, 2\right)"),
    (r"\text{Even}", "even"),
    (r"\text{(B)}", "B"),
    ("50", r"50\%"),
    ("0.5", r"50\%"),
    (r"50\%", "0.5"),
    (r"12\text{ cm}", "12"),
    ("12 square units", "12"),
    ("12 cm", "12"),
    ("12.5 km.", "12.5"),
    (r"12\ \mathrm{m}^3", "12"),
    (r"12\,\text{miles per hour}", "12"),
    (r"12\text{ cm}^2", "12"),
    (r"90^\circ", "90"),
    ("2.0", "2"),
]
SAME_VALUE = [
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("-2, 1", "1,-2"),
    (r"\{-2,1\}", "1,-2"),
    (r"-\infty<x<3", r"(-\infty,3)"),
    (r"\frac{\pi}{4}", r"\pi/4"),
    ("3+2i", "2i+3"),
    (r"\binom{5}{2}", "10"),
    (r"2^{10}", "1024"),
    ("ba", "ab"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
]
UNEQUAL = [
    ("35", "3.5"),
    ("3.5", "35"),
    ("-5", "5"),
    ("0.333", r"\frac13"),
    ("50", "0.5"),
    ("even", "odd"),
    ("", "5"),
    ("500", r"5\%"),
    ("even", "2k"),
    ("neve", "even"),
    ("a", "the"),
]
OTHER_VALUE = [
    ("[1,2]", "(1,2)"),
    ("(2,1)", "(1,2)"),
    ("5x", "5"),
    ("5", "5x"),
    ("7 or 8", "7"),
    (r"3\pi", "9.42"),
    ("a+b", "ab"),
    ("x", "y"),
    ("A", "B"),
    ("5 x", "5"),
    ("5 pi", "5"),
    ("5 m", "6"),
    (r"5\text{ or }7", "5"),
    ("5 sinx", "5"),
    ("11_2", "3"),
]


@pytest.mark.parametrize(("answer", "truth"), EQUAL)
def test_equal_without_the_library(answer, truth):
    assert math(rf"\boxed{{{answer}}}", [truth], never) == 1.0


@pytest.mark.parametrize(("answer", "truth"), UNEQUAL)
def test_unequal_without_the_library(answer, truth):
    assert math(rf"\boxed{{{answer}}}", [truth], never) == 0.0


@pytest.mark.parametrize(("answer", "truth"), SAME_VALUE)
def test_equal_by_value(answer, truth, is_equal):
    assert math(rf"\boxed{{{answer}}}", [truth], is_equal) == 1.0


@pytest.mark.parametrize(("answer", "truth"), OTHER_VALUE)
def test_unequal_by_value(answer, truth, is_equal):
    assert math(rf"\boxed{{{answer}}}", [truth], is_equal) == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "We need 7 chairs and 12 tables, so there are 19.",
        "7 is the number of chairs.\nIt is 8 with the stool.",
        r"\boxed{17}",
        r"The 7 is wrong: \boxed{8}",
        "The answer is 17, and not 7.",
        "",
    ],
)
def test_digits_somewhere_in_the_text_are_no_answer(response):
    assert math(response, ["7"], lambda truth, answer: False) == 0.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"\boxed{1}, no: $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("Final Answer: The final answer is $x=7$. I hope it is correct.", "x=7"),
        ("The answer is 7.", "7"),
        (r"The answer is: \[ 7 \]", "7"),
        ("7", "7"),
        ("$7$", "7"),
        ("We get 7.\nThat is all.", None),
        ("", None),
    ],
)
def test_the_final_formula(response, expected):
    assert final_formula(response) == expected


def test_the_truth_may_be_a_solution():
    assert math(r"\boxed{7}", [r"Since $4=2^2$, we have $x=4+3=\boxed{7}$."], never) == 1.0
    assert math(r"\boxed{4}", [r"Since $4=2^2$, we have $x=4+3=\boxed{7}$."], never) == 0.0


def test_one_of_several_truths_is_enough():
    assert math("7", ["8", "7"], never) == 1.0


def test_a_formula_of_unlikely_length_is_none():
    assert math(rf"\boxed{{{'x' * 1001}}}", ["y"], never) == 0.0
    assert math(r"\boxed{x+1}", ["x" * 1001 + "+1"], never) == 0.0


def test_the_real_data_s_truths_equal_themselves(shared_dir):
    import gzip
    import json

    truths = set()
    with gzip.open(shared_dir / "data" / "llmrouter_train.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            if record["metric"] == "MATH":
                truths.add(record["ground_truth"])
    assert len(truths) > 500
    assert [truth for truth in truths if math(truth, [truth], never) != 1.0] == []
