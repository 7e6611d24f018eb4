"""Choices within limits against scipy's linear programs, and what happens where nothing keeps the limits."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from gpu_select.errors import ConfigError
from gpu_select.replay.allocation import allocate

CASES = range(40)


def optimum(value, cost=None, budget=None, cap=None) -> float | None:
    """Of the linear program, None where it has no solution. Rows may be split."""
    optimize = pytest.importorskip("scipy.optimize")
    sparse = pytest.importorskip("scipy.sparse")
    Q, M = value.shape
    places = np.arange(Q * M)
    one_each = sparse.csr_matrix((np.ones(Q * M), (places // M, places)))
    limits, most = [], []
    if budget is not None:
        limits.append(sparse.csr_matrix(cost.reshape(1, -1)))
        most.append(budget)
    if cap is not None:
        limits.append(sparse.csr_matrix((np.ones(Q * M), (places % M, places))))
        most += list(cap)
    found = optimize.linprog(
        -value.ravel(),
        A_ub=sparse.vstack(limits) if limits else None,
        b_ub=most or None,
        A_eq=one_each,
        b_eq=np.ones(Q),
        method="highs",
    )
    return -found.fun if found.status == 0 else None


def random_case(seed: int):
    """Values, costs, a budget between the cheapest and the best choices, and limits; every third case full of ties."""
    rng = np.random.default_rng(seed)
    Q, M = int(rng.integers(1, 90)), int(rng.integers(1, 7))
    value = rng.integers(0, 4, (Q, M)) / 4 if seed % 3 == 0 else rng.random((Q, M))
    cost = rng.random((Q, M)) * rng.random(M) if seed % 2 else np.tile(rng.integers(0, 5, M) / 2, (Q, 1))
    cap = np.where(rng.random(M) < 0.6, rng.integers(0, Q + 1, M), Q)
    if cap.sum() < Q:
        cap[0] = Q
    least, most = cost.min(axis=1).sum(), cost[np.arange(Q), value.argmax(axis=1)].sum()
    return value, cost, least + (most - least) * rng.random(), cap


def solved(value, **limits):
    tensors = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in limits.items()}
    found = allocate(torch.from_numpy(value), **tensors)
    choice = found.choice_Q.numpy()
    return choice, value[np.arange(len(value)), choice].sum(), found.bound


@pytest.mark.parametrize("seed", CASES)
def test_without_limits_every_row_gets_its_best(seed):
    value = random_case(seed)[0]
    choice, total, bound = solved(value)
    np.testing.assert_array_equal(choice, value.argmax(axis=1))
    assert total == pytest.approx(bound, abs=1e-12)


@pytest.mark.parametrize("seed", CASES)
def test_shares_are_kept_at_exactly_the_programs_optimum(seed):
    value, _, _, cap = random_case(seed)
    choice, total, bound = solved(value, cap_M=cap)
    assert (np.bincount(choice, minlength=len(cap)) <= cap).all()
    best = optimum(value, cap=cap)
    assert total == pytest.approx(best, abs=1e-9)
    assert bound == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", CASES)
def test_a_budget_is_kept_and_one_row_at_most_is_lost(seed):
    value, cost, budget, _ = random_case(seed)
    choice, total, bound = solved(value, cost_QM=cost, budget=budget)
    assert cost[np.arange(len(cost)), choice].sum() <= budget * (1 + 1e-8)
    best = optimum(value, cost, budget)
    assert bound == pytest.approx(best, abs=1e-6)
    assert best - np.ptp(value, axis=1).max() <= total + 1e-9 <= best + 1e-6


@pytest.mark.parametrize("seed", CASES)
def test_a_budget_and_shares_together_come_close_to_the_optimum(seed):
    value, cost, budget, cap = random_case(seed)
    best = optimum(value, cost, budget, cap)
    if best is None:
        with pytest.raises(ConfigError, match="the cost of the cheapest choices within these shares"):
            solved(value, cost_QM=cost, budget=budget, cap_M=cap)
        return
    choice, total, bound = solved(value, cost_QM=cost, budget=budget, cap_M=cap)
    assert cost[np.arange(len(cost)), choice].sum() <= budget * (1 + 1e-8)
    assert (np.bincount(choice, minlength=len(cap)) <= cap).all()
    assert bound == pytest.approx(best, abs=1e-6)
    assert best - 1.5 <= total <= best + 1e-6  # a program with k limits splits k rows; two count for most


def test_identical_rows_are_told_apart_by_the_limits():
    value, cost = np.tile([[0.5, 0.9, 0.8]], (1000, 1)), np.tile([[0.0, 2.0, 1.0]], (1000, 1))
    choice, total, bound = solved(value, cap_M=np.array([1000, 300, 100]))
    np.testing.assert_array_equal(np.bincount(choice), [600, 300, 100])
    assert total == pytest.approx(bound)
    choice, total, bound = solved(value, cost_QM=cost, budget=500.0)
    np.testing.assert_array_equal(np.bincount(choice, minlength=3), [500, 0, 500])
    assert total == pytest.approx(bound)
    choice, total, bound = solved(value, cost_QM=cost, budget=500.0, cap_M=np.array([1000, 1000, 100]))
    np.testing.assert_array_equal(np.bincount(choice), [700, 200, 100])
    assert total == pytest.approx(bound)


def test_limits_that_do_not_bind_change_nothing():
    rng = np.random.default_rng(0)
    value, cost = rng.random((77, 5)), rng.random((77, 5))
    choice, _, _ = solved(value, cost_QM=cost, budget=77.0, cap_M=np.full(5, 76))
    np.testing.assert_array_equal(choice, value.argmax(axis=1))


def test_a_model_without_room_is_never_chosen():
    rng = np.random.default_rng(1)
    value = rng.random((50, 3))
    choice, _, _ = solved(value, cap_M=np.array([50, 0, 50]))
    np.testing.assert_array_equal(choice, np.where(value[:, 0] >= value[:, 2], 0, 2))


def test_shares_without_room_for_all_rows_are_refused():
    with pytest.raises(ConfigError, match="max-share: expected shares with room for all 10 rows together, got 7"):
        solved(np.ones((10, 2)), cap_M=np.array([3, 4]))


def test_a_budget_below_the_cheapest_choices_is_refused():
    text = "budget: expected at least 20 USD for all 10 rows, the cost of the cheapest choices, got 19.5"
    with pytest.raises(ConfigError, match=text):
        solved(np.ones((10, 2)), cost_QM=np.full((10, 2), 2.0), budget=19.5)


def test_a_hundred_thousand_rows_take_seconds():
    g = torch.Generator().manual_seed(0)
    value = torch.rand(100_000, 1, generator=g).double() / 2 + 0.03 * torch.randn(100_000, 10, generator=g)
    value += torch.linspace(0, 0.2, 10)
    cost = (0.5 + torch.rand(100_000, 1, generator=g).double()) * torch.logspace(-5, -2, 10)
    cap = torch.tensor([100_000] * 7 + [5000, 12_500, 10_000])
    start = time.perf_counter()
    found = allocate(value, cost_QM=cost, budget=200.0, cap_M=cap)
    assert time.perf_counter() - start < 30
    total = float(value.gather(1, found.choice_Q[:, None]).sum())
    assert found.bound - 0.1 < total <= found.bound
