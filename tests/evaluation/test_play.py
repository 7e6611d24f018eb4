"""Which strategies there are, and what an unknown time or cost counts as."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_select.evaluation import evaluate, play
from gpu_select.evaluation.baselines import filled
from gpu_select.records import OutcomeTable

NAN = float("nan")


def table_of(quality, latency=None, cost=None) -> OutcomeTable:
    quality = np.array(quality, dtype=float)
    n_queries, n_models = quality.shape
    return OutcomeTable(
        queries=[f"q{q}" for q in range(n_queries)],
        domains=["math"] * n_queries,
        models=list("abc")[:n_models],
        quality_QM=quality,
        latency_s_QM=np.full(quality.shape, NAN) if latency is None else np.array(latency, dtype=float),
        cost_usd_QM=None if cost is None else np.array(cost, dtype=float),
    )


def by_name(table, choices=None):
    choices = {name: np.array(rows) for name, rows in (choices or {}).items()}
    return {strategy.name: strategy for strategy in evaluate(table, choices)}


def test_an_unknown_time_counts_as_the_models_mean():
    values = np.array([[1.0, NAN, NAN], [3.0, 5.0, NAN], [NAN, 7.0, NAN]])
    known = np.array([[True, True, True], [True, True, True], [True, False, True]])
    np.testing.assert_array_equal(filled(values, known), [[1.0, 5.0, NAN], [3.0, 5.0, NAN], [2.0, NAN, NAN]])
    assert np.isnan(filled(None, known)).all()


def test_the_cheapest_and_the_fastest_model_are_baselines():
    table = table_of(
        [[0.9, 0.5, 0.1], [0.8, 0.5, 0.3]],
        latency=[[3.0, 2.0, 1.0], [1.0, 2.0, 0.5]],
        cost=[[0.3, 0.1, 0.2], [0.3, NAN, 0.2]],
    )
    found = by_name(table)
    assert list(found)[-4:] == ["per-domain", "cheapest:b", "fastest:c", "random"]
    assert found["cheapest:b"].mean_cost_usd == pytest.approx(0.1)
    assert found["cheapest:b"].mean_quality == found["always:b"].mean_quality
    assert found["fastest:c"].mean_latency_s == pytest.approx(0.75)
    kinds = {name: strategy.kind for name, strategy in found.items()}
    assert kinds == {
        "oracle": "oracle",
        **{f"always:{name}": "single" for name in "abc"},
        **dict.fromkeys(["per-domain", "cheapest:b", "fastest:c", "random"], "baseline"),
    }


def test_without_the_price_of_one_model_nobody_is_the_cheapest():
    table = table_of([[0.9, 0.5], [0.8, 0.5]], cost=[[0.4, NAN], [0.2, NAN]])
    found = by_name(table, {"knn": [0, 1], "svm": [0, 0]})
    assert not any(name.startswith(("cheapest:", "fastest:")) for name in found)
    assert found["knn"].mean_cost_usd is None  # one of its models has no price
    assert found["svm"].mean_cost_usd == pytest.approx(0.3)
    assert found["random"].mean_cost_usd is None


def test_where_all_cost_the_same_nobody_is_the_cheapest():
    table = table_of([[0.9, 0.5], [0.8, 0.5]], latency=np.ones((2, 2)), cost=np.zeros((2, 2)))
    assert list(by_name(table)) == ["oracle", "always:a", "always:b", "per-domain", "random"]
    assert by_name(table)["oracle"].mean_cost_usd == 0.0


def test_a_model_that_nobody_scored_is_no_strategy():
    table = table_of([[0.9, 0.5, NAN], [0.8, 0.5, NAN]], latency=[[3, 2, NAN], [3, 2, NAN]])
    assert list(by_name(table)) == ["oracle", "always:a", "always:b", "per-domain", "fastest:b", "random"]
    assert by_name(table)["random"].shares == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_shares_say_who_gets_the_queries():
    table = table_of([[0.9, 0.5, 0.1], [0.2, 0.5, 0.3], [0.2, 0.5, NAN], [0.1, 0.2, 0.3]])
    found = by_name(table, {"knn": [0, 0, 2, 1]})
    assert found["knn"].shares == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert found["oracle"].shares == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert found["random"].shares == pytest.approx({"a": 0.375, "b": 0.375, "c": 0.25})


def test_the_gap_reaches_from_the_best_single_model_to_the_oracle():
    table = table_of([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.4]])
    found = by_name(table, {"knn": [0, 0, 1, 0]})
    single, oracle = 2 / 4, 3.4 / 4
    assert found["knn"].gap_share == pytest.approx((3 / 4 - single) / (oracle - single))
    assert (found["always:a"].gap_share, found["oracle"].gap_share) == (0.0, 1.0)
    assert found["always:b"].gap_share < 0


def test_without_a_gap_there_is_no_share_of_it():
    assert {s.gap_share for s in evaluate(table_of([[1.0, 0.5], [0.5, 0.5]]), {})} == {None}


def test_the_best_single_model_is_named():
    assert play(table_of([[0.1, 0.9], [0.3, 0.2]]), {}).best_single == "always:b"
