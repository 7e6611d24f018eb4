from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics.cem import cem


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("Karyn Parsons", "karyn parsons"),
        ("It was the Karyn Parsons.", "Karyn Parsons"),
        ("costs 18.00 dollars", "18"),
        ("1,000", "1000"),
        ("No, never.", "no"),
        ("The answer is A.", "A"),
        ("(A)", "A"),
        ("a", "A"),
        ("The", "the"),
        ("The The", "The The"),
        ("+", "+"),
    ],
)
def test_the_truth_is_in_the_answer(response, truth):
    assert cem(response, [truth]) == 1.0


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("I know", "no"),
        ("35", "3.5"),
        ("3.5", "35"),
        ("13.5", "3.5"),
        ("5", "-5"),
        ("It is a dog", "A"),
        ("A dog", "A"),
        ("B", "A"),
        ("", "A"),
        ("The dog", "the"),
        ("anything", "?"),
        ("1 - 2", "+"),
        ("Parsons Karyn", "Karyn Parsons"),
        ("", "x"),
    ],
)
def test_the_truth_is_not_in_the_answer(response, truth):
    assert cem(response, [truth]) == 0.0


def test_one_of_several_truths_is_enough():
    assert cem("It is Leningrad", ["St. Petersburg", "Leningrad"]) == 1.0
    assert cem("It is Moscow", ["St. Petersburg", "Leningrad"]) == 0.0
