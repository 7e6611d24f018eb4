"""Curves of quality against cost, checked point by point against the definition."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.evaluation import Selection, curve, play
from gpu_select.records import OutcomeTable

NAN = float("nan")


def selection_of(scores) -> Selection:
    scores = np.array(scores, dtype=np.float32)
    return Selection(scores.argmax(axis=1), np.ones(len(scores), np.float32), scores)


def table_of(quality, cost=None, latency=None) -> OutcomeTable:
    quality = np.array(quality, dtype=float)
    n_queries, n_models = quality.shape
    return OutcomeTable(
        [f"q{q}" for q in range(n_queries)],
        ["law"] * n_queries,
        [f"m{m}" for m in range(n_models)],
        quality,
        np.full(quality.shape, NAN) if latency is None else np.array(latency, dtype=float),
        cost_usd_QM=None if cost is None else np.array(cost, dtype=float),
    )


def points_of(table, selection, against="cost"):
    played = play(table, {"knn": selection.choice_Q})
    return played, curve(played, selection, played.cost_usd_QM if against == "cost" else played.latency_s_QM)


def by_definition(played, selection, price_QM, weight):
    """argmax of weight * score / scale - (1 - weight) * price / range, one query at a time."""
    mean_M = np.nanmean(price_QM, axis=0)
    candidates = np.flatnonzero(np.isfinite(selection.scores_QM[0]))
    scores = selection.scores_QM.astype(float)[:, candidates]
    scale = (scores.max(axis=1) - scores.min(axis=1)).mean() or 1.0
    price = mean_M[candidates] / np.ptp(mean_M[candidates])
    if weight == 1:
        return selection.choice_Q
    if weight == 0:  # the limit: the cheapest, of equally cheap ones the better
        cheapest = candidates[price == price.min()]
        return cheapest[selection.scores_QM[:, cheapest].argmax(axis=1)]
    return candidates[(weight * scores / scale - (1 - weight) * price).argmax(axis=1)]


def random_case(rng, n_queries=60, n_models=4, holes=0.2):
    quality = rng.random((n_queries, n_models))
    quality[rng.random(quality.shape) < holes] = NAN
    quality[0] = 0.5
    cost = rng.random((n_queries, n_models)) * rng.random(n_models)
    return table_of(quality, cost=cost, latency=cost[:, ::-1]), selection_of(rng.normal(size=quality.shape))


@pytest.mark.parametrize("against", ["cost", "latency"])
@pytest.mark.parametrize("seed", range(8))
def test_each_point_is_what_its_weight_decides(seed, against):
    table, selection = random_case(np.random.default_rng(seed))
    played, points = points_of(table, selection, against)
    price_QM = played.cost_usd_QM if against == "cost" else played.latency_s_QM
    assert 20 <= len(points) <= 42
    rows = np.arange(len(table.queries))
    for point in points:
        choice = by_definition(played, selection, price_QM, point.weight)
        assert point.quality == pytest.approx(np.nanmean(table.quality_QM[rows, choice]))
        assert point.cost_usd == pytest.approx(np.nanmean(played.cost_usd_QM[rows, choice]))
        assert point.latency_s == pytest.approx(np.nanmean(played.latency_s_QM[rows, choice]))
        shares = np.bincount(choice, minlength=4) / len(rows)
        assert point.shares == pytest.approx(dict(zip(table.models, shares, strict=True)))


def test_it_starts_at_the_selectors_own_decisions_and_ends_at_the_cheapest_model():
    table, selection = random_case(np.random.default_rng(0), holes=0)
    _, points = points_of(table, selection)
    rows = np.arange(len(table.queries))
    assert points[0].weight == 1.0
    assert points[0].quality == pytest.approx(table.quality_QM[rows, selection.choice_Q].mean())
    cheapest = table.cost_usd_QM.mean(axis=0).argmin()
    assert points[-1].weight == 0.0
    assert points[-1].quality == pytest.approx(table.quality_QM[:, cheapest].mean())
    assert points[-1].shares[f"m{cheapest}"] == 1.0
    weights = [point.weight for point in points]
    assert weights == sorted(set(weights), reverse=True)


def test_its_points_lie_evenly_along_the_price():
    table, selection = random_case(np.random.default_rng(0), n_queries=2000, holes=0)
    mean_M = table.cost_usd_QM.mean(axis=0)
    _, points = points_of(table, selection)
    assert len(points) == 40
    prices = [sum(share * mean_M[int(name[1:])] for name, share in point.shares.items()) for point in points]
    steps = -np.diff(prices)
    assert (steps > 0).all()
    assert steps.max() < 1.2 * steps.mean()


def test_ties_of_the_selector_stay_as_it_broke_them():
    # the scores tie, and the selector chose the dear model: only a weight below 1 may change that
    selection = Selection(np.array([1, 1]), np.zeros(2, np.float32), np.ones((2, 2), np.float32))
    _, points = points_of(table_of([[0.1, 0.9], [0.1, 0.9]], cost=[[1, 2], [1, 2]]), selection)
    assert [point.weight for point in points] == [1.0, 0.0]
    assert [point.quality for point in points] == pytest.approx([0.9, 0.1])


def test_models_that_are_no_candidates_are_never_chosen():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 3)).astype(np.float32)
    scores[:, 0] = -np.inf
    table = table_of(rng.random((30, 3)), cost=np.tile([0.0, 1.0, 2.0], (30, 1)))
    _, points = points_of(table, selection_of(scores))
    assert all(point.shares["m0"] == 0 for point in points)
    assert points[-1].shares == {"m0": 0.0, "m1": 1.0, "m2": 0.0}


def test_without_a_candidates_price_there_is_no_curve():
    table = table_of([[0.1, 0.9], [0.1, 0.9]], cost=[[1, NAN], [2, NAN]])
    selection = selection_of([[0, 1], [1, 0]])
    assert points_of(table, selection)[1] == []
    assert points_of(table, selection, "latency")[1] == []
    alone = selection_of([[0, -np.inf], [1, -np.inf]])
    assert points_of(table, alone)[1] == []


def test_where_all_cost_the_same_there_is_no_curve():
    table = table_of([[0.1, 0.9], [0.1, 0.9]], cost=np.ones((2, 2)))
    assert points_of(table, selection_of([[0, 1], [1, 0]]))[1] == []


def test_the_other_figure_is_null_where_it_is_not_known():
    table = table_of([[0.1, 0.9], [0.1, 0.9]], cost=[[1, 2], [1, 2]], latency=[[1, NAN], [1, NAN]])
    _, points = points_of(table, selection_of([[0, 1], [0, 1]]))
    assert [point.latency_s for point in points] == [None, 1.0]


def test_a_selector_that_always_takes_the_cheapest_is_one_point():
    table = table_of([[0.1, 0.9], [0.1, 0.9]], cost=[[1, 2], [1, 2]])
    _, points = points_of(table, selection_of([[1, 0], [1, 0]]))
    assert [point.weight for point in points] == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_few_different_numbers_and_many_ties(data):
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    grid = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=m, max_size=m), min_size=n, max_size=n)
    quality, scores = np.array(data.draw(grid)), data.draw(grid)
    price = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=m, max_size=m)))
    selection = selection_of(scores)
    played, points = points_of(table_of(quality, cost=np.tile(price, (n, 1))), selection)
    rows = np.arange(n)
    for point in points:
        choice = by_definition(played, selection, played.cost_usd_QM, point.weight)
        assert point.quality == pytest.approx(quality[rows, choice].mean())
        assert point.cost_usd == pytest.approx(price[choice].mean())
    costs = [point.cost_usd for point in points]
    assert costs == sorted(costs, reverse=True)


def test_a_hundred_thousand_queries_take_seconds():
    rng = np.random.default_rng(0)
    table, selection = random_case(rng, n_queries=100_000, n_models=10)
    played = play(table, {"knn": selection.choice_Q})
    start = time.perf_counter()
    assert len(curve(played, selection, played.cost_usd_QM)) == 40
    assert time.perf_counter() - start < 30
