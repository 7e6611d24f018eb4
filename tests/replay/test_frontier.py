"""The best trades of value for price, against trying everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.replay.frontier import Frontier


def random_frontier(seed: int, Q: int = 40, M: int = 5):
    rng = np.random.default_rng(seed)
    value, price = rng.random((Q, M)), rng.random((Q, M)) * rng.random(M)
    if seed % 3 == 0:
        value, price = np.round(value, 1), np.tile(np.round(price[:1], 1), (Q, 1))
    return value, price, Frontier.of(torch.from_numpy(value), torch.from_numpy(price))


@pytest.mark.parametrize("seed", range(12))
def test_any_number_of_upgrades_is_the_best_choice_at_its_rate(seed):
    value, price, frontier = random_frontier(seed)
    rows = np.arange(len(value))
    for stop in frontier.stops(25):
        choice = frontier.choice(stop).numpy()
        rate = frontier.rate_at(stop)
        if rate == float("inf"):
            worth, reached = -price, -price[rows, choice]
        else:
            worth, reached = value - rate * price, value[rows, choice] - rate * price[rows, choice]
        np.testing.assert_allclose(reached, worth.max(axis=1), atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_it_goes_from_the_cheapest_to_the_best(seed):
    value, price, frontier = random_frontier(seed)
    rows = np.arange(len(value))
    start, end = (frontier.choice(n).numpy() for n in (0, len(frontier.rate_E)))
    np.testing.assert_array_equal(price[rows, start], price.min(axis=1))
    np.testing.assert_array_equal(value[rows, end], value.max(axis=1))
    assert (frontier.rate_E[1:] <= frontier.rate_E[:-1]).all()
    assert (frontier.gain_E > 0).all()
    assert (frontier.extra_E > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_totals_are_sums_over_the_choices(seed):
    value, _, frontier = random_frontier(seed)
    other = torch.from_numpy(np.random.default_rng(seed).random(value.shape).astype(np.float32))
    stops = frontier.stops(10)
    totals = frontier.totals(other, stops)
    for stop, total in zip(stops, totals.tolist(), strict=True):
        assert total == pytest.approx(float(other.gather(1, frontier.choice(stop)[:, None]).sum()), rel=1e-6)


def test_stops_are_spaced_evenly_in_price():
    _, price, frontier = random_frontier(1, Q=4000)
    stops = frontier.stops(20)
    assert stops[0] == 0
    assert stops[-1] == len(frontier.rate_E)
    steps = np.diff(frontier.totals(torch.from_numpy(price), stops).numpy())
    assert len(stops) == 20
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.05)


def test_what_is_affordable():
    frontier = Frontier.of(
        torch.tensor([[0.0, 1.0], [0.0, 2.0]]).double(), torch.tensor([[1.0, 3.0], [1.0, 4.0]]).double()
    )
    assert frontier.row_E.tolist() == [1, 0]
    assert [frontier.affordable(price) for price in (0.0, 2.9, 3.0, 4.9, 5.0, 9.0)] == [0, 0, 1, 1, 2, 2]


def test_where_the_cheapest_is_the_best_there_is_nothing_to_buy():
    frontier = Frontier.of(torch.tensor([[1.0, 0.5, 1.0]]).double(), torch.tensor([[1.0, 2.0, 3.0]]).double())
    assert frontier.stops(40) == [0]
    assert frontier.choice(0).tolist() == [0]
