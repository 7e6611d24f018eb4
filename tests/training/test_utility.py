from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable
from gpu_select.training.utility import SHRINKAGE, best_model, centred, domain_models, group_sums, utilities

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


def test_a_tie_goes_to_the_model_that_is_better_overall_then_to_the_first():
    tied = np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5]])
    assert best_model(tied, np.array([0.1, 0.3, 0.3])).tolist() == [1, 0]
    assert best_model(tied, np.array([0.3, 0.3, 0.3])).tolist() == [0, 0]


# ---------------------------------------------------------------- gains


def two_way(n_queries: int, n_models: int, seed: int, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Utilities that are a query's part plus a model's, and the models' parts, which add up to 0."""
    rng = np.random.default_rng(seed)
    model_M = rng.normal(0, 0.2, n_models)
    model_M -= model_M.mean()
    utility_QM = rng.normal(0.5, 0.3, (n_queries, 1)) + model_M + noise * rng.standard_normal((n_queries, n_models))
    return utility_QM, model_M


def least_squares(utility: np.ndarray) -> np.ndarray:
    """(M,) models' parts of the ridge regression that `centred` describes, by a solver that knows nothing of turns."""
    n_queries, n_models = utility.shape
    q, m = np.nonzero(np.isfinite(utility))
    design = np.zeros((len(q) + n_models, n_queries + n_models))
    design[np.arange(len(q)), q] = design[np.arange(len(q)), n_queries + m] = 1
    design[len(q) + np.arange(n_models), n_queries + np.arange(n_models)] = SHRINKAGE**0.5
    target = np.concatenate([utility[q, m], np.zeros(n_models)])
    return np.linalg.lstsq(design, target, rcond=None)[0][n_queries:]


def test_gains_of_a_full_table_are_against_the_mean_of_the_query_and_means_shrink():
    utility, _ = two_way(37, 4, 0, noise=0.3)
    found = centred(utility)
    np.testing.assert_allclose(found.gain_QM, utility - utility.mean(axis=1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(found.mean_M, found.gain_QM.sum(axis=0) / (37 + 24), atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.05, 0.9), st.integers(2, 6))
def test_the_two_way_fit_is_the_least_squares_one(seed, share, n_models):
    rng = np.random.default_rng(seed)
    utility, _ = two_way(40, n_models, seed, noise=0.3)
    holes = rng.random(utility.shape) < share
    holes[np.arange(40), rng.integers(n_models, size=40)] = False
    utility[holes] = NAN
    found = centred(utility)
    np.testing.assert_allclose(found.mean_M, least_squares(utility), atol=1e-6)
    query = np.nanmean(utility - found.mean_M, axis=1, keepdims=True)
    np.testing.assert_allclose(found.gain_QM, utility - query, atol=1e-6)


def test_the_fit_is_exact_where_few_queries_connect_many():
    """Two models with thousands of queries each, and ten in common: what the ten say has to reach both."""
    utility, _ = two_way(4000, 2, 1)
    utility[:1995, 0] = utility[2005:, 1] = NAN
    difference = utility[1995, 0] - utility[1995, 1]
    # ten times the difference against the belief in none
    shrunk = 10 * difference / (10 + SHRINKAGE * 1)
    found = centred(utility).mean_M
    np.testing.assert_allclose(found[0] - found[1], shrunk, rtol=1e-6)


def test_queries_and_models_are_told_apart_whoever_answered_what():
    utility, model_M = two_way(5000, 5, 2)
    known = np.random.default_rng(2).random(utility.shape) < np.linspace(0.3, 0.9, 5)
    known[:, 4] |= ~known.any(axis=1)
    found = centred(np.where(known, utility, NAN))
    np.testing.assert_allclose(found.mean_M - found.mean_M.mean(), model_M, atol=0.01)
    np.testing.assert_array_equal(np.isfinite(found.gain_QM), known)


def test_a_model_that_had_the_easy_queries_is_not_overrated():
    rng = np.random.default_rng(3)
    easy = np.arange(600) < 300
    quality = np.where(easy, 0.9, 0.2)[:, None] + np.array([0.05, 0.0, -0.05]) + 0.05 * rng.standard_normal((600, 3))
    quality[~easy, 2] = NAN
    found = centred(quality)
    assert np.nanmean(quality, axis=0).argmax() == 2  # as a plain mean would have it
    assert found.mean_M.argsort().tolist() == [2, 1, 0]
    np.testing.assert_allclose(found.mean_M[0] - found.mean_M[2], 0.1, atol=0.02)


@pytest.mark.parametrize("n_known", [1, 30, 1000])
def test_lucky_outcomes_are_believed_the_less_the_fewer_there_are(n_known):
    utility = np.full((2000, 5), 0.5)
    utility[:, 4] = NAN
    utility[:n_known, 4] = 1.0
    found = centred(utility).mean_M
    lead = found[4] - found[0]
    # against four models that are known well, each of its outcomes tells its difference from them
    np.testing.assert_allclose(lead, 0.5 * n_known / (n_known + SHRINKAGE), rtol=0.06)
    assert found[4] > found[0]


@given(st.integers(0, 1000))
def test_models_of_the_same_outcomes_tie_to_the_last_bit(seed):
    utility, _ = two_way(50, 3, seed, noise=0.3)
    utility[np.random.default_rng(seed).random(utility.shape) < 0.2] = NAN
    found = centred(utility[:, [0, 1, 2, 1, 0, 1]]).mean_M
    assert found[0] == found[4]
    assert found[1] == found[3] == found[5]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1)])
def test_the_smallest_tables_have_gains(shape):
    found = centred(np.full(shape, 0.7))
    np.testing.assert_allclose(found.gain_QM, 0, atol=1e-12)
    np.testing.assert_allclose(found.mean_M, 0, atol=1e-12)


def test_a_model_and_a_query_without_outcomes_are_no_news():
    utility = np.array([[0.9, NAN, 0.5], [NAN, NAN, NAN], [0.8, NAN, 0.6]])
    found = centred(utility)
    assert found.mean_M[1] == 0
    assert np.isnan(found.gain_QM[1]).all()
    np.testing.assert_allclose(found.mean_M[[0, 2]], centred(utility[::2, ::2]).mean_M)


def test_expected_gains_of_groups_are_pulled_to_the_belief():
    gains = centred(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, NAN]]))
    prior = np.array([[0.1, -0.1], [0.0, 0.0], [0.3, 0.2]])
    found = gains.of_groups(np.array([0, 0, 1]), prior, 4.0)
    np.testing.assert_allclose(found[0], [(1.0 + 4 * 0.1) / 6, (-1.0 - 4 * 0.1) / 6])
    np.testing.assert_allclose(found[1], [gains.gain_QM[2, 0] / 5, 0.0])
    np.testing.assert_allclose(found[2], [0.3, 0.2])  # a group without queries


def test_group_sums():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert group_sums(values, np.array([2, 0, 2]), 4).tolist() == [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0], [0.0, 0.0]]


def test_domain_models_are_the_best_of_each_domain():
    table = table_of(
        [*[[1.0, 0.0]] * 40, *[[0.0, 1.0]] * 60, [NAN, 0.1]],
        np.ones((101, 2)),
        [*["math"] * 40, *["law"] * 61],
    )
    assert domain_models(table, table.quality_QM) == {"law": "m1", "math": "m0"}


def test_a_single_lucky_answer_does_not_win_a_domain():
    table = table_of([*[[0.8, 0.2]] * 40, [0.0, 1.0]], np.ones((41, 2)), [*["math"] * 40, "law"])
    assert domain_models(table, table.quality_QM) == {"law": "m0", "math": "m0"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_domain_models_do_not_depend_on_the_order_of_rows(order):
    quality, latency = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]), np.ones((3, 2))
    table = table_of(quality[list(order)], latency, [["math", "law", "math"][i] for i in order])
    assert domain_models(table, table.quality_QM) == {"law": "m1", "math": "m0"}
