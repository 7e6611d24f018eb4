"""Bootstrap intervals: as wide as theory says, paired, seeded, and bounded in work."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_select import resampling
from gpu_select.resampling import intervals

NAN = float("nan")


def test_an_interval_is_as_wide_as_the_normal_one():
    values = np.random.default_rng(0).normal(size=(1, 700))
    ((low, high),) = intervals(values, 0)
    half = 1.96 * values.std() / np.sqrt(700)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_groups_of_queries_give_the_interval_of_single_ones(monkeypatch):
    values = (np.random.default_rng(0).random((2, 3000)) < [[0.7], [0.2]]).astype(float)
    values[1, ::3] = NAN
    single = intervals(values, 0)
    monkeypatch.setattr(resampling, "_MAX_GROUPS", 500)
    grouped = intervals(values, 0)
    np.testing.assert_allclose(grouped.mean(axis=1), single.mean(axis=1), atol=0.003)
    np.testing.assert_allclose(np.ptp(grouped, axis=1), np.ptp(single, axis=1), rtol=0.12)
    assert not np.array_equal(grouped, single)


def test_a_column_with_holes_is_a_column_of_its_known_values():
    values = np.random.default_rng(0).random(400)
    holes = np.concatenate([values, np.full(400, NAN)])
    ((low, high),) = intervals(holes[None], 0)
    ((few_low, few_high),) = intervals(values[None], 0)
    assert (low, high) == pytest.approx((few_low, few_high), abs=0.005)


def test_a_column_without_values_has_no_interval():
    out = intervals(np.array([[NAN, NAN], [1.0, 1.0]]), 0)
    assert np.isnan(out[0]).all()
    assert out[1].tolist() == [1.0, 1.0]


def test_one_query_and_one_value():
    assert intervals(np.array([[0.5]]), 0).tolist() == [[0.5, 0.5]]
    assert intervals(np.array([[0.5, NAN]]), 0).tolist() == [[0.5, 0.5]]  # resamples without it do not count


def test_the_resamples_are_those_of_the_seed():
    values = np.random.default_rng(0).random((3, 90))
    assert intervals(values, 3).tolist() == intervals(values, 3).tolist()
    assert intervals(values, 3).tolist() != intervals(values, 4).tolist()
    # columns share them: one alone has the interval that it has among others
    np.testing.assert_allclose(intervals(values[1:2], 3)[0], intervals(values, 3)[1], rtol=1e-12)
