from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics.f1_score import f1_score


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        ("The cat sat", "cat sat down", 2 * 2 / 5),
        ("the answer", "answer", 1.0),
        ("red red", "red", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("a", "the", 1.0),
        ("yes", "yes", 1.0),
        ("yes indeed", "yes", 0.0),
        ("no", "yes", 0.0),
        ("the year 1,000", "1000", 2 / 3),
        ("35", "3.5", 0.0),
        ("18.00", "18", 1.0),
        ("I know", "no", 0.0),
    ],
)
def test_f1(response, truth, expected):
    assert f1_score(response, [truth]) == pytest.approx(expected)


def test_the_best_of_several_truths_counts():
    assert f1_score("Sammy Davis", ["Davis", "Sammy Davis, Jr"]) == pytest.approx(0.8)
