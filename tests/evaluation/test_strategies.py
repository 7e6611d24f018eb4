from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.errors import DataError
from gpu_select.evaluation import Strategy, evaluate
from gpu_select.records import OutcomeTable

NAN = float("nan")


def table_of(quality, latency=None, domains=None, models=("a", "b", "c")) -> OutcomeTable:
    quality = np.array(quality, dtype=float)
    n_queries, n_models = quality.shape
    return OutcomeTable(
        queries=[f"q{q}" for q in range(n_queries)],
        domains=list(domains or ["math"] * n_queries),
        models=list(models)[:n_models],
        quality_QM=quality,
        latency_s_QM=np.where(np.isfinite(quality), 1.0, NAN) if latency is None else np.array(latency, dtype=float),
    )


SMALL = table_of(
    quality=[
        [1.0, 1.0, 0.0],  # a tie for best
        [0.0, 0.5, NAN],  # c did not answer
        [0.2, 0.4, 0.6],
        [0.0, 0.0, 0.0],  # all do alike
    ],
    latency=[[5.0, 2.0, 1.0], [1.0, 2.0, NAN], [1.0, 1.0, 4.0], [3.0, 2.0, 1.0]],
    domains=["math", "math", "law", "law"],
)


def by_name(table, choices=None, **options) -> dict[str, Strategy]:
    choices = {name: np.array(rows) for name, rows in (choices or {}).items()}
    return {strategy.name: strategy for strategy in evaluate(table, choices, **options)}


def test_the_oracle_takes_the_fastest_of_the_best():
    oracle = by_name(SMALL)["oracle"]
    assert oracle.mean_quality == pytest.approx((1.0 + 0.5 + 0.6 + 0.0) / 4)
    assert oracle.mean_latency_s == pytest.approx((2.0 + 2.0 + 4.0 + 1.0) / 4)
    assert oracle.best_rate == 1.0
    assert oracle.n_scored == 4


def test_single_models_are_judged_on_what_they_answered():
    found = by_name(SMALL)
    a, b, c = (found[f"always:{name}"] for name in "abc")
    assert a.mean_quality == pytest.approx(1.2 / 4)
    assert b.mean_quality == pytest.approx(1.9 / 4)
    assert c.mean_quality == pytest.approx(0.6 / 3)
    assert (a.mean_latency_s, b.mean_latency_s, c.mean_latency_s) == pytest.approx((2.5, 1.75, 2.0))
    assert (a.best_rate, b.best_rate, c.best_rate) == pytest.approx((2 / 4, 3 / 4, 2 / 3))
    assert (a.n_scored, b.n_scored, c.n_scored) == (4, 4, 3)


def test_random_is_its_expectation_over_the_models_that_answered():
    random = by_name(SMALL)["random"]
    assert random.mean_quality == pytest.approx((2 / 3 + 0.25 + 0.4 + 0.0) / 4)
    assert random.mean_latency_s == pytest.approx((8 / 3 + 1.5 + 2.0 + 2.0) / 4)
    # a tie for best counts as best, for chance as well
    assert random.best_rate == pytest.approx((2 / 3 + 1 / 2 + 1 / 3 + 1.0) / 4)
    assert by_name(SMALL, seed=1)["random"].mean_quality == random.mean_quality


def test_a_selector_is_scored_where_its_choice_has_an_outcome():
    knn = by_name(SMALL, {"knn": [0, 2, 2, 1]})["knn"]
    assert knn.mean_quality == pytest.approx((1.0 + 0.6 + 0.0) / 3)
    assert knn.mean_latency_s == pytest.approx((5.0 + 4.0 + 2.0) / 3)
    assert knn.best_rate == 1.0
    assert knn.n_scored == 3


def test_gains_are_over_chance_and_over_the_best_single_model():
    found = by_name(SMALL, {"knn": [0, 1, 2, 0]})
    random, single = found["random"].mean_quality, found["always:b"].mean_quality
    for strategy in found.values():
        assert strategy.gain_over_random == pytest.approx(strategy.mean_quality - random)
        assert strategy.gain_over_best_single == pytest.approx(strategy.mean_quality - single)
    assert found["always:b"].gain_over_best_single == 0.0


def test_the_order_is_oracle_selectors_single_models_from_best_to_worst_domain_random():
    names = [s.name for s in evaluate(SMALL, {"knn": np.zeros(4, int), "svm": np.ones(4, int)})]
    assert names == ["oracle", "knn", "svm", "always:b", "always:a", "always:c", "per-domain", "fastest:b", "random"]


def test_per_domain_with_a_table_from_training():
    table = table_of([[1.0, 0.0], [0.0, 1.0], [0.3, 0.9]], domains=["math", "law", "health"])
    lookup = {"math": "a", "law": "a"}  # health is unknown to it: the model that is best overall
    per_domain = by_name(table, domain_models=lookup)["per-domain"]
    assert per_domain.mean_quality == pytest.approx((1.0 + 0.0 + 0.9) / 3)
    stranger = by_name(table, domain_models={"math": "nobody", "law": "a"})["per-domain"]
    assert stranger.mean_quality == pytest.approx((0.0 + 0.0 + 0.9) / 3)


def test_per_domain_without_one_never_looks_at_the_query_itself():
    # each model wins one query: by the whole domain it is a draw, by the other query alone always the wrong one
    table = table_of([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], domains=["math", "math", "law"])
    per_domain = by_name(table)["per-domain"]
    assert per_domain.mean_quality == pytest.approx((0.0 + 0.0 + 0.5) / 3)


def test_per_domain_without_one_takes_the_model_that_is_best_on_the_other_queries():
    table = table_of(
        [[0.9, 0.1], [0.8, 0.1], [0.9, 0.1], [0.2, 0.7], [0.1, 0.6], [0.3, 0.9]],
        domains=["math"] * 3 + ["law"] * 3,
    )
    assert by_name(table)["per-domain"].mean_quality == pytest.approx((0.9 + 0.8 + 0.9 + 0.7 + 0.6 + 0.9) / 6)


def test_without_any_time_there_is_no_latency():
    table = table_of([[1.0, 0.0], [0.0, 1.0]], latency=np.full((2, 2), NAN))
    assert {s.mean_latency_s for s in evaluate(table, {})} == {None}


def test_the_oracle_takes_a_best_model_even_where_its_time_is_unknown():
    table = table_of([[0.2, 0.9], [0.7, 0.7]], latency=[[1.0, NAN], [NAN, 3.0]])
    oracle = by_name(table)["oracle"]
    assert oracle.mean_quality == pytest.approx(0.8)
    assert oracle.mean_latency_s == pytest.approx(3.0)


def test_the_interval_holds_the_mean_and_narrows_with_the_number_of_queries():
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 200, 800):
        table = table_of((rng.random((n, 3)) < [0.7, 0.5, 0.3]).astype(float))
        for strategy in evaluate(table, {}):
            low, high = strategy.ci95
            assert low <= strategy.mean_quality <= high
        low, high = by_name(table)["always:a"].ci95
        widths.append(high - low)
        # 95 % of a normal distribution
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / n), rel=0.25)
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


def test_intervals_are_the_same_for_the_same_seed_only():
    table = table_of(np.random.default_rng(0).random((60, 3)))
    assert [s.ci95 for s in evaluate(table, {})] == [s.ci95 for s in evaluate(table, {})]
    assert [s.ci95 for s in evaluate(table, {}, seed=1)] != [s.ci95 for s in evaluate(table, {})]


def test_a_constant_has_an_interval_of_no_width():
    assert by_name(table_of(np.full((30, 2), 0.25)))["always:a"].ci95 == pytest.approx((0.25, 0.25))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_oracle_bounds_everything_and_rates_are_shares(data):
    n = data.draw(st.integers(1, 12))
    score = st.one_of(st.just(NAN), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    rows = data.draw(
        st.lists(
            st.lists(score, min_size=3, max_size=3).filter(lambda r: not np.isnan(r).all()), min_size=n, max_size=n
        )
    )
    quality = np.array(rows)
    quality[0] = np.nan_to_num(quality[0])  # every model has an outcome somewhere
    choice = np.nanargmin(quality, axis=1)
    table = table_of(quality, domains=data.draw(st.lists(st.sampled_from(["math", "law"]), min_size=n, max_size=n)))
    found = by_name(table, {"svm": choice})
    assert found["svm"].mean_quality <= found["random"].mean_quality + 1e-12 <= found["oracle"].mean_quality + 2e-12
    for strategy in found.values():
        assert 0 <= strategy.best_rate <= 1
        assert 0 <= strategy.ci95[0] <= strategy.ci95[1] <= 1 + 1e-12
        assert 1 <= strategy.n_scored <= n


def test_a_table_without_outcomes_is_refused():
    with pytest.raises(DataError, match=r"^expected at least one outcome to validate on, got none$"):
        evaluate(table_of([[NAN, NAN]]), {})


def test_a_selector_whose_choices_nobody_scored_is_named():
    with pytest.raises(DataError, match=r"^knn: expected outcomes of the models it chooses, got none in this table$"):
        evaluate(table_of([[1.0, NAN], [NAN, 0.5]]), {"knn": np.array([1, 0])})
