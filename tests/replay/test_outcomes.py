"""What rows tell of the models that answered, and means with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.replay.outcomes import MODEL_FIELDS, agreement, mean_interval, read_logged

NAN = float("nan")
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(["model", "model_name", "performance", "response_time", "cost", "usage", "input_tokens"])


def test_a_row_with_everything():
    row = {
        "model": "a",
        "performance": 0.5,
        "response_time": "1.25",
        "usage": {"prompt_tokens": 7, "completion_tokens": 9},
    }
    logged = read_logged(row, MODEL_FIELDS)
    assert logged.model == "a"
    assert logged.figures == {"quality": 0.5, "time_s": 1.25, "input_tokens": 7, "output_tokens": 9}
    assert logged.odd == ""


def test_a_row_without_anything():
    logged = read_logged({"query": "x", "model": "", "performance": None, "cost": ""}, MODEL_FIELDS)
    assert (logged.model, logged.figures, logged.odd) == (None, {}, "")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"performance": 85}, "performance: expected a number in [0, 1], got 85"),
        ({"response_time": -1.0}, "response_time: expected a number in [0, 1e+09], got -1.0"),
        ({"cost": "cheap"}, "cost: expected a number in [0, 1e+09], got 'cheap'"),
        ({"performance": "nan"}, "performance: expected a number in [0, 1], got 'nan'"),
        ({"performance": True}, "performance: expected a number in [0, 1], got True"),
        ({"usage": {"prompt_tokens": []}}, "prompt_tokens: expected a number in [0, 1e+09], got []"),
        ({"input_tokens": 10**400}, f"input_tokens: expected a number in [0, 1e+09], got 1{76 * '0'}..."),
    ],
)
def test_nonsense_counts_as_unknown_and_is_named(row, text):
    logged = read_logged(row, MODEL_FIELDS)
    assert logged.figures == {}
    assert logged.odd == text


@given(st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES)))
def test_any_row_can_be_read(row):
    logged = read_logged(row, MODEL_FIELDS)
    assert logged.model is None or isinstance(logged.model, str)
    assert all(0 <= value <= 1e9 for value in logged.figures.values())


def test_the_interval_of_a_mean_is_the_textbooks():
    values = np.random.default_rng(0).normal(3, 2, 5000)
    low, high = mean_interval(values, np.arange(5000))
    arm = 1.96 * values.std(ddof=1) / 5000**0.5
    assert (low, high) == pytest.approx((values.mean() - arm, values.mean() + arm))


def test_rows_of_one_query_are_one_draw():
    values = np.random.default_rng(1).normal(0, 1, 400)
    assert mean_interval(values[:2], np.arange(2))[1] - values[:2].mean() == pytest.approx(
        1.96 * values[:2].std(ddof=1) / 2**0.5
    )
    once = mean_interval(values, np.arange(400))
    six_times = mean_interval(np.repeat(values, 6), np.repeat(np.arange(400), 6))
    assert six_times == pytest.approx(once)


def test_agreement_is_over_rows_that_have_both():
    found = agreement("quality", np.array([0.5, 0.6, NAN, 0.1]), np.array([1.0, NAN, 1.0, 0.0]), np.arange(4))
    assert (found.figure, found.rows) == ("quality", 2)
    assert (found.expected, found.realised) == pytest.approx((0.3, 0.5))
    assert found.ci95[0] < 0.2 < found.ci95[1]
    assert agreement("quality", np.array([NAN]), np.array([1.0]), np.arange(1)) is None


def test_rows_of_one_query_alone_are_not_compared():
    expected, logged = np.array([0.5, 0.5, 0.4]), np.array([0.0, 0.0, 1.0])
    assert agreement("quality", expected[:1], logged[:1], np.arange(1)) is None
    assert agreement("quality", expected[:2], logged[:2], np.array([7, 7])) is None
    assert agreement("quality", expected, logged, np.array([7, 7, 8])).rows == 3
