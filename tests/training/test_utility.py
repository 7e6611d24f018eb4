from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable
from gpu_select.training.utility import advantages, best_model, domain_models, expected, mean_utility, utilities

NAN = float("nan")


def table_of(quality, latency, domains=None) -> OutcomeTable:
    quality = np.array(quality, dtype=float)
    n_queries, n_models = quality.shape
    return OutcomeTable(
        queries=[f"q{q}" for q in range(n_queries)],
        domains=list(domains or ["math"] * n_queries),
        models=[f"m{m}" for m in range(n_models)],
        quality_QM=quality,
        latency_s_QM=np.array(latency, dtype=float),
    )


def test_the_formula_on_a_table_worked_by_hand():
    table = table_of([[1.0, 0.5], [0.0, 1.0]], [[1.0, 3.0], [2.0, 5.0]])
    # minimum 1 s and maximum 5 s over the whole table: speeds 1, 0.5, 0.75, 0
    np.testing.assert_allclose(utilities(table, 0.9), [[0.9 + 0.1, 0.45 + 0.05], [0.0 + 0.075, 0.9 + 0.0]], atol=1e-15)
    np.testing.assert_allclose(utilities(table, 0.25), [[1.0, 0.5], [0.5625, 0.25]], atol=1e-15)


def test_weight_one_is_quality_alone_and_weight_zero_speed_alone():
    table = table_of([[1.0, 0.5, 0.0]], [[4.0, 2.0, 1.0]])
    np.testing.assert_array_equal(utilities(table, 1.0), [[1.0, 0.5, 0.0]])
    np.testing.assert_allclose(utilities(table, 0.0), [[0.0, 2 / 3, 1.0]], atol=1e-15)


def test_a_hole_stays_a_hole_at_every_weight():
    table = table_of([[1.0, NAN], [0.0, 1.0]], [[1.0, NAN], [3.0, 2.0]])
    for weight in (0.0, 0.5, 1.0):
        assert np.isnan(utilities(table, weight)).tolist() == [[False, True], [False, False]]


def test_an_outcome_without_a_time_has_the_mean_speed_of_its_model():
    table = table_of([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[1.0, 3.0], [2.0, 5.0], [NAN, NAN]])
    np.testing.assert_allclose(utilities(table, 0.0)[2], [(1.0 + 0.75) / 2, (0.5 + 0.0) / 2], atol=1e-15)


def test_a_model_without_any_time_has_the_mean_speed_of_all():
    table = table_of([[0.0, 0.0, 0.0]] * 2, [[1.0, 3.0, NAN], [2.0, 5.0, NAN]])
    np.testing.assert_allclose(utilities(table, 0.0)[:, 2], [(1.0 + 0.5 + 0.75 + 0.0) / 4] * 2, atol=1e-15)


@pytest.mark.parametrize("latency", [2.5, NAN], ids=["equal", "unknown"])
def test_equal_or_unknown_times_are_speed_one(latency):
    table = table_of([[1.0, 0.0]], [[latency, latency]])
    np.testing.assert_allclose(utilities(table, 0.7), [[1.0, 0.3]], atol=1e-15)


@pytest.mark.parametrize("weight", [-0.01, 1.01, NAN])
def test_a_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ConfigError, match=rf"^quality-weight: expected a number in \[0, 1\], got {weight}$"):
        utilities(table_of([[1.0]], [[1.0]]), weight)


unit = st.floats(0, 1)
seconds = st.one_of(st.floats(0, 1e6), st.just(NAN))


@given(
    st.lists(st.lists(st.tuples(unit, seconds, st.booleans()), min_size=3, max_size=3), min_size=1, max_size=5),
    unit,
)
def test_utilities_are_in_range_and_missing_only_where_the_outcome_is(cells, weight):
    quality = [[q if there else NAN for q, _, there in row] for row in cells]
    latency = [[s if there else NAN for _, s, there in row] for row in cells]
    utility = utilities(table_of(quality, latency), weight)
    np.testing.assert_array_equal(np.isnan(utility), np.isnan(quality))
    known = utility[np.isfinite(utility)]
    assert ((known >= 0) & (known <= 1 + 1e-12)).all()


def test_mean_utility_is_over_what_each_model_answered():
    np.testing.assert_allclose(mean_utility(np.array([[0.2, NAN], [0.4, 0.9]])), [0.3, 0.9])


def test_an_expectation_counts_the_overall_mean_as_one_more_outcome():
    sums, counts, mean = np.array([[3.0, 0.0]]), np.array([[4.0, 0.0]]), np.array([0.5, 0.8])
    np.testing.assert_allclose(expected(sums, counts, mean), [[3.5 / 5, 0.8]])


def test_a_tie_goes_to_the_model_that_is_better_overall_then_to_the_first():
    tied = np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5]])
    assert best_model(tied, np.array([0.1, 0.3, 0.3])).tolist() == [1, 0]
    assert best_model(tied, np.array([0.3, 0.3, 0.3])).tolist() == [0, 0]


def test_advantages_are_against_the_mean_of_the_query_and_zero_in_holes():
    gains = advantages(np.array([[1.0, 0.0, NAN], [0.4, 0.4, 0.4], [NAN, 0.7, NAN]]))
    np.testing.assert_allclose(gains, [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], atol=1e-15)


def test_domain_models_are_the_best_of_each_domain():
    table = table_of(
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [NAN, 0.1]],
        np.ones((5, 2)),
        ["math", "math", "law", "law", "law"],
    )
    assert domain_models(table, table.quality_QM) == {"law": "m1", "math": "m0"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_domain_models_do_not_depend_on_the_order_of_rows(order):
    quality, latency = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]), np.ones((3, 2))
    table = table_of(quality[list(order)], latency, [["math", "law", "math"][i] for i in order])
    assert domain_models(table, table.quality_QM) == {"law": "m1", "math": "m0"}
