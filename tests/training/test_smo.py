from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.training import smo
from gpu_select.training.smo import Kernel, solve

GAMMAS = {"rbf": 1.3, "linear": None}


def problem(n_rows: int, dim: int, n_problems: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows (float32), signs that depend on them with noise, and costs."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sign = np.sign(rng.standard_normal((n_problems, dim)) @ rows.T + 0.5 * rng.standard_normal((n_problems, n_rows)))
    return rows.astype(np.float32), sign, rng.uniform(0.05, 2.0, (n_problems, n_rows))


def fit(rows, sign, cost, gamma, **options) -> tuple[np.ndarray, np.ndarray]:
    kernel = Kernel(torch.from_numpy(rows), gamma)
    beta, rho = solve(kernel, torch.from_numpy(sign), torch.from_numpy(cost), **options)
    return beta.double().numpy(), rho.double().numpy()


def gram(rows, others, gamma) -> np.ndarray:
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    if gamma is None:
        return rows @ others.T
    return np.exp(-gamma * ((rows[:, None] - others) ** 2).sum(axis=2))


def dual_objective(beta, sign, K) -> float:
    return float(0.5 * beta @ K @ beta - sign @ beta)


def gap(beta, sign, cost, K) -> float:
    """Largest violation of the optimality conditions, in float64."""
    error = sign - K @ beta
    lower, upper = np.where(sign < 0, -cost, 0.0), np.where(sign > 0, cost, 0.0)
    grow, shrink = beta < upper, beta > lower
    return float(error[grow].max() - error[shrink].min()) if grow.any() and shrink.any() else 0.0


def check_feasible(beta, sign, cost) -> None:
    alpha = beta * sign
    assert (alpha >= 0).all()
    assert (alpha <= cost * (1 + 1e-12)).all()
    assert abs(beta.sum()) < 1e-9


def with_duplicates():
    rows, sign, cost = problem(90, 7, 3, 5)
    twice = np.random.default_rng(5).integers(90, size=60)  # the same row may come with either sign
    return (
        np.concatenate([rows, rows[twice]]),
        np.concatenate([sign, -sign[:, twice]], axis=1),
        np.concatenate([cost, cost[:, ::-1][:, :60]], axis=1),
    )


def with_zero_costs():
    rows, sign, cost = problem(127, 9, 4, 6)
    return rows, sign, np.where(np.random.default_rng(6).random(cost.shape) < 0.4, 0.0, cost)


PROBLEMS = {
    "plain": problem(151, 11, 3, 0),
    "few dimensions": problem(203, 2, 3, 1),
    "more dimensions than rows": problem(37, 101, 3, 2),
    "one problem": problem(97, 5, 1, 3),
    "small costs": (*problem(101, 6, 2, 4)[:2], np.full((2, 101), 1e-3)),
    "duplicates": with_duplicates(),
    "zero costs": with_zero_costs(),
    "longer rows": (lambda rows, sign, cost: (rows * np.linspace(0, 3, 131, dtype=np.float32)[:, None], sign, cost))(
        *problem(131, 9, 3, 12)
    ),
    "unbalanced": (lambda rows, sign, cost: (rows, np.where(np.arange(120) < 5, 1.0, -1.0)[None], cost))(
        *problem(120, 8, 1, 7)
    ),
}


@pytest.mark.parametrize("kernel", GAMMAS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_decisions_and_objective_are_those_of_scikit_learn(name, kernel):
    svm = pytest.importorskip("sklearn.svm")
    rows, sign, cost = PROBLEMS[name]
    gamma = GAMMAS[kernel]
    beta, rho = fit(rows, sign, cost, gamma)
    K = gram(rows, rows, gamma)
    queries = problem(53, rows.shape[1], 1, 99)[0]
    for p in range(len(sign)):
        check_feasible(beta[p], sign[p], cost[p])
        assert gap(beta[p], sign[p], cost[p], K) <= 1e-4
        # scikit-learn's own default tolerance leaves its values up to 3e-3 from the exact ones
        peer = svm.SVC(C=1.0, kernel=kernel, gamma=gamma or "scale", tol=1e-6)
        part = np.flatnonzero(cost[p])  # with weights of zero, its support_ would count the other rows only
        peer.fit(rows[part].astype(np.float64), sign[p, part], sample_weight=cost[p, part])
        expected = peer.decision_function(queries.astype(np.float64))
        got = gram(queries, rows, gamma) @ beta[p] - rho[p]
        np.testing.assert_allclose(got, expected, atol=1e-3)
        peer_beta = np.zeros(len(rows))
        peer_beta[part[peer.support_]] = peer.dual_coef_[0]
        assert dual_objective(beta[p], sign[p], K) == pytest.approx(dual_objective(peer_beta, sign[p], K), rel=1e-3)


@pytest.mark.parametrize("kernel", GAMMAS)
def test_a_tighter_tolerance_is_kept_in_float64(kernel):
    rows, sign, cost = PROBLEMS["plain"]
    beta, _ = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    K = gram(rows, rows, GAMMAS[kernel])
    assert max(gap(b, s, c, K) for b, s, c in zip(beta, sign, cost, strict=True)) <= 1e-5


@pytest.mark.parametrize("kernel", GAMMAS)
@pytest.mark.parametrize("name", ["plain", "duplicates", "zero costs"])
def test_without_the_whole_kernel_matrix_the_result_is_the_same(name, kernel, monkeypatch):
    rows, sign, cost = PROBLEMS[name]
    queries = gram(problem(31, rows.shape[1], 1, 98)[0], rows, GAMMAS[kernel])
    beta, rho = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    monkeypatch.setattr(smo, "_FULL_GRAM_ROWS", 0)
    monkeypatch.setattr(smo, "_BLOCK_ELEMENTS", 7 * len(rows))
    assert Kernel(torch.from_numpy(rows), GAMMAS[kernel]).gram_QW is None
    by_rows, rho_by_rows = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    np.testing.assert_allclose(
        queries @ by_rows.T - rho_by_rows, queries @ beta.T - rho, atol=2e-5 if kernel == "rbf" else 1e-4
    )


@pytest.mark.parametrize("kernel", GAMMAS)
@pytest.mark.parametrize("name", ["plain", "duplicates", "zero costs"])
def test_working_sets_smaller_than_the_rows_give_the_same(name, kernel, monkeypatch):
    rows, sign, cost = PROBLEMS[name]
    queries = gram(problem(31, rows.shape[1], 1, 98)[0], rows, GAMMAS[kernel])
    beta, rho = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    monkeypatch.setattr(smo, "_FULL_GRAM_ROWS", 0)
    monkeypatch.setattr(smo, "_WORKING_ROWS", 64)
    asked = []
    compute = Kernel.rows
    monkeypatch.setattr(Kernel, "rows", lambda kernel, index: asked.append(len(index)) or compute(kernel, index))
    by_sets, rho_by_sets = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    assert max(asked) <= 64
    assert sum(asked) > 64  # they were really exchanged
    K = gram(rows, rows, GAMMAS[kernel])
    assert max(gap(b, s, c, K) for b, s, c in zip(by_sets, sign, cost, strict=True)) <= 1e-5
    np.testing.assert_allclose(
        queries @ by_sets.T - rho_by_sets, queries @ beta.T - rho, atol=2e-5 if kernel == "rbf" else 1e-4
    )


@pytest.mark.parametrize("kernel", GAMMAS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_start_changes_the_result_by_no_more_than_the_tolerance(name, kernel):
    rows, sign, cost = PROBLEMS[name]
    K = gram(rows, rows, GAMMAS[kernel])
    smaller, _ = fit(rows, sign, 0.1 * cost, GAMMAS[kernel])
    anything = np.random.default_rng(9).standard_normal(cost.shape)
    for start in (10 * smaller, anything, 1e6 * sign):
        beta, _ = fit(rows, sign, cost, GAMMAS[kernel], start_PQ=torch.from_numpy(start))
        for p in range(len(sign)):
            check_feasible(beta[p], sign[p], cost[p])
            assert gap(beta[p], sign[p], cost[p], K) <= 1e-4


def test_a_start_at_the_solution_is_left_as_it_is():
    rows, sign, cost = PROBLEMS["plain"]
    beta, _ = fit(rows, sign, cost, 1.3)
    again, _ = fit(rows, sign, cost, 1.3, start_PQ=torch.from_numpy(beta), tolerance=2e-4)
    np.testing.assert_allclose(again, beta, atol=1e-9)


@pytest.mark.parametrize("C", [1e-3, 1e3])
def test_extreme_costs_stay_within_the_tolerance(C):
    rows, sign, cost = problem(201, 7, 3, 10)
    beta, _ = fit(rows, sign, C * cost, 2.0, tolerance=1e-3)
    K = gram(rows, rows, 2.0)
    for p in range(len(sign)):
        check_feasible(beta[p] / C, sign[p], cost[p])
        assert gap(beta[p], sign[p], C * cost[p], K) <= 1e-3


@pytest.mark.parametrize("threads", [1, 2])
def test_problems_in_parts_are_those_solved_at_once(threads, monkeypatch):
    rows, sign, cost = problem(67, 5, 41, 11)
    monkeypatch.setattr(smo, "_CPU_STATE", 10**9)
    monkeypatch.setattr(smo, "_CPU_PROBLEMS", 41)
    once, rho = fit(rows, sign, cost, 1.3)
    monkeypatch.setattr(smo, "_CPU_PROBLEMS", 3)
    monkeypatch.setattr(smo, "_CPU_STATE", 7 * len(rows))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():  # as training runs it
            parts, rho_parts = fit(rows, sign, cost, 1.3)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (parts == once).all()
    assert (rho_parts == rho).all()


def test_the_largest_of_each_row_is_found_in_any_lane():
    x = torch.randn(7, 5 * smo._LANE)
    largest, index = smo._largest(x)
    assert (index == x.argmax(dim=1)).all()
    assert (largest == x.amax(dim=1)).all()
    x[3] = -torch.inf
    assert smo._largest(x)[1][3] == 0


@pytest.mark.parametrize("gamma", GAMMAS.values())
@pytest.mark.parametrize("n_exact", [0, 1000])
def test_the_kernel_matrix_is_that_of_numpy(gamma, n_exact, monkeypatch):
    monkeypatch.setattr(smo, "_STRIPE", 31)
    monkeypatch.setattr(smo, "_EXACT_GRAM_ROWS", n_exact)
    monkeypatch.setattr(smo, "_BLOCK_ELEMENTS", 1000)
    rows, sign, _ = problem(103, 7, 2, 13)
    kernel = Kernel(torch.from_numpy(rows), gamma)
    K = gram(rows, rows, gamma)
    np.testing.assert_allclose(kernel.gram_QW[:, :103].numpy(), K, atol=1e-6)
    assert not kernel.gram_QW[:, 103:].any()
    np.testing.assert_allclose(kernel.rows(torch.tensor([5, 102, 0]))[:, :103].numpy(), K[[5, 102, 0]], atol=1e-6)
    np.testing.assert_allclose(kernel.product(torch.from_numpy(sign)).numpy(), sign @ K, rtol=0, atol=1e-12)
    np.testing.assert_allclose(kernel.product(torch.from_numpy(sign), fast=True).numpy(), sign @ K, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", GAMMAS)
@pytest.mark.parametrize("full", [True, False])
def test_a_gpu_keeps_the_tolerance(kernel, full, monkeypatch):
    if not full:
        monkeypatch.setattr(smo, "_FULL_GRAM_ROWS", 0)
        monkeypatch.setattr(smo, "_WORKING_ROWS", 64)
    rows, sign, cost = PROBLEMS["plain"]
    on_gpu = [torch.from_numpy(x).cuda() for x in (rows, sign, cost)]
    beta, _ = solve(Kernel(on_gpu[0], GAMMAS[kernel]), on_gpu[1], on_gpu[2])
    K = gram(rows, rows, GAMMAS[kernel])
    assert max(gap(b, s, c, K) for b, s, c in zip(beta.cpu().numpy(), sign, cost, strict=True)) <= 1e-4


@pytest.mark.parametrize("kernel", GAMMAS)
def test_problems_do_not_disturb_each_other(kernel):
    rows, sign, cost = PROBLEMS["plain"]
    queries = gram(problem(31, rows.shape[1], 1, 98)[0], rows, GAMMAS[kernel])
    together, rho = fit(rows, sign, cost, GAMMAS[kernel], tolerance=1e-5)
    for p in range(len(sign)):
        alone, rho_alone = fit(rows, sign[p : p + 1], cost[p : p + 1], GAMMAS[kernel], tolerance=1e-5)
        np.testing.assert_allclose(queries @ alone[0] - rho_alone[0], queries @ together[p] - rho[p], atol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_class_only_decides_for_it_everywhere(sign):
    rows, _, cost = problem(23, 4, 1, 8)
    beta, rho = fit(rows, np.full((1, 23), sign), cost, 1.0)
    assert not beta.any()
    assert rho.tolist() == [-sign]


def test_one_class_only_among_the_rows_that_take_part():
    rows, sign, cost = problem(23, 4, 1, 8)
    beta, rho = fit(rows, sign, np.where(sign > 0, cost, 0.0), 1.0)
    assert not beta.any()
    assert rho.tolist() == [-1.0]


def test_a_problem_in_which_no_row_takes_part_decides_nothing():
    rows, sign, cost = problem(23, 4, 2, 8)
    beta, rho = fit(rows, sign, np.stack([np.zeros(23), cost[1]]), 1.0)
    assert not beta[0].any()
    assert rho[0] == 0.0
    assert beta[1].any()


def test_two_rows_worked_by_hand():
    # K = [[1, 0], [0, 1]]: b = 1 and -1 minimise b^2 - 2b; both rows lie on the margin
    rows = np.eye(2, dtype=np.float32)
    beta, rho = fit(rows, np.array([[1.0, -1.0]]), np.full((1, 2), 5.0), None)
    np.testing.assert_allclose(beta, [[1.0, -1.0]], atol=1e-5)
    np.testing.assert_allclose(rho, [0.0], atol=1e-6)


def test_two_rows_at_the_bound():
    rows = np.eye(2, dtype=np.float32)
    beta, rho = fit(rows, np.array([[1.0, -1.0]]), np.array([[0.25, 5.0]]), None)
    np.testing.assert_allclose(beta, [[0.25, -0.25]], atol=1e-6)
    # the second is a free support vector: f = -0.25 - rho = -1
    np.testing.assert_allclose(rho, [0.75], atol=1e-6)


def test_the_same_row_with_both_signs_has_no_slope():
    rows = np.ones((2, 1), dtype=np.float32)
    beta, rho = fit(rows, np.array([[1.0, -1.0]]), np.ones((1, 2)), 1.0)
    np.testing.assert_allclose(beta, [[1.0, -1.0]])
    np.testing.assert_allclose(rho, [0.0], atol=1e-6)
