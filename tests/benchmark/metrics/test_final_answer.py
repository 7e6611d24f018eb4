from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.final_answer import last_boxed, last_stated


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{", None),
        (r"\boxed{}", ""),
        ("none", None),
    ],
)
def test_the_last_balanced_box(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 7.", "7."),
        ("The answer is 6. No, the answer is 7", "7"),
        ("Answer: 7\nmore", "7"),
        ("**Answer:** 7", "7"),
        ("The answer to the question is $x$", "$x$"),
        ("The final answer is:\n\\[\nx\n\\]", "\\[\nx\n\\]"),
        ("answers are 7", None),
        ("none", None),
    ],
)
def test_the_last_statement(text, expected):
    assert last_stated(text) == expected


@given(st.text(alphabet=st.sampled_from("\\boxed{} answer is:*7\n"), max_size=300))
def test_any_text_is_taken(text):
    last_boxed(text)
    last_stated(text)


def test_long_texts_are_quick():
    for text in ("\\boxed{" * 20_000, "answer is " * 20_000, "answer" + " " * 100_000, "{" * 200_000):
        last_boxed(text)
        last_stated(text)
