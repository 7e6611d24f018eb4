from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics.gsm8k import gsm8k

SOLUTION = "John took 16+5 = <<16+5=21>>21 chickens\nJohn took 21-10 = <<21-10=11>>11 more.\n#### 11"


@pytest.mark.parametrize(
    "response",
    [
        "11",
        "#### 11",
        "#### 11\nI checked it 3 times.",
        "So he took 11 more chickens than Ray.",
        r"\boxed{11} chickens, with 3 left",
        "The answer is 11. It took 2 steps.",
        "**Answer:** 11\n\n(21 - 10)",
        "The answer is 21 - 10 = 11. I am 99% sure.",
        "11.00",
        "$11.",
        "He has 21, and 10 go: 11",
    ],
)
def test_the_final_number_is_the_solution_s(response):
    assert gsm8k(response, [SOLUTION]) == 1.0


@pytest.mark.parametrize(
    "response",
    ["", "none", "1.1", "110", "-11", "11 or 12", "#### 12 (not 11)", r"11, so \boxed{12}", "The answer is 12, not 11"],
)
def test_another_final_number_is_wrong(response):
    assert gsm8k(response, [SOLUTION]) == 0.0


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        ("3.5", "35", 0.0),
        ("35", "3.5", 0.0),
        ("18.00", "18", 1.0),
        ("1,000", "1000", 1.0),
        ("1000", "#### 1,000", 1.0),
        ("$20,000", "#### 20,000", 1.0),
        ("1/2", "0.5", 1.0),
        ("50%", "50", 1.0),
        ("x = -3", "-3", 1.0),
        ("3", "-3", 0.0),
        ("seven", "seven", 1.0),
        ("eight", "seven", 0.0),
    ],
)
def test_numbers_count_by_value(response, truth, expected):
    assert gsm8k(response, [truth]) == expected
