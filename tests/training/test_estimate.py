"""The regression that stands behind labels and clusters, against dense kernel ridge regression in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.training import estimate
from gpu_select.training.estimate import Estimate, Regression
from gpu_select.training.utility import SHRINKAGE, Advantages

NAN = float("nan")


def task(n: int, seed: int, n_models: int = 3, dim: int = 13) -> tuple[torch.Tensor, np.ndarray]:
    """Features without a domain, and targets that depend on them, with noise."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, dim))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    taste = np.random.default_rng(99).standard_normal((dim, n_models))
    target = np.tanh(points @ taste) + 0.3 * rng.standard_normal((n, n_models))
    return torch.from_numpy(np.hstack([points, np.zeros((n, 14))]).astype(np.float32)), target


def regression_of(points: torch.Tensor, gamma: float, domain=None, seed: int = 0) -> Regression:
    return Regression(points, np.zeros(len(points), int) if domain is None else domain, gamma, seed=seed)


def gains_of(target: np.ndarray) -> Advantages:
    return Advantages(target, np.zeros(target.shape[1]))


def regress(points: torch.Tensor, target: np.ndarray, gamma: float, ridge: float, **options) -> Estimate:
    return regression_of(points, gamma, **options).fit(gains_of(target), ridge)


def kernel(points: torch.Tensor, domain: np.ndarray, gamma: float, ridge: float) -> np.ndarray:
    """Queries of one of several domains share a constant, which is shrunk by 24 outcomes."""
    near = np.exp(-gamma * torch.cdist(points.double(), points.double()).square().numpy())
    common = ridge / SHRINKAGE if len(set(domain.tolist())) > 1 else 0.0
    return (near + common) * (domain[:, None] == domain)


def dense(points, target, known, gamma, ridge, domain=None) -> np.ndarray:
    """(Q,) what kernel ridge regression on the known rows says of all."""
    gram = kernel(points, np.zeros(len(points)) if domain is None else domain, gamma, ridge)
    weights = np.linalg.solve(gram[np.ix_(known, known)] + ridge * np.eye(known.sum()), target[known])
    return gram[:, known] @ weights


def dense_without(points, target, known, gamma, ridge, domain=None) -> np.ndarray:
    """(Q,) the same with each row really left out in turn."""
    out = dense(points, target, known, gamma, ridge, domain)
    for q in np.flatnonzero(known):
        others = known.copy()
        others[q] = False
        out[q] = dense(points, target, others, gamma, ridge, domain)[q]
    return out


@pytest.mark.parametrize(("gamma", "ridge"), [(0.5, 3.0), (1.0, 10.0), (8.0, 0.5), (1e-3, 1.0)])
def test_it_is_kernel_ridge_regression_with_and_without_the_own_outcome(gamma, ridge):
    points, target = task(97, 0)
    found = regress(points, target, gamma, ridge)
    everything = np.ones(97, bool)
    for m in range(3):
        fitted = dense(points, target[:, m], everything, gamma, ridge)
        held_out = dense_without(points, target[:, m], everything, gamma, ridge)
        np.testing.assert_allclose(found.fitted_QM[:, m], fitted, atol=1e-3)
        np.testing.assert_allclose(found.held_out_QM[:, m], held_out, atol=1e-3)
        assert np.abs(fitted - held_out).max() > 0.01


def test_holes_are_each_models_own():
    points, target = task(89, 1, n_models=4)
    rng = np.random.default_rng(1)
    target[rng.random(89) < 0.4, 0] = NAN
    target[rng.random(89) < 0.9, 1] = NAN
    target[:, 3] = NAN
    found = regress(points, target, 1.0, 2.0)
    for m in range(3):
        known = np.isfinite(target[:, m])
        filled = np.nan_to_num(target[:, m])
        np.testing.assert_allclose(found.fitted_QM[:, m], dense(points, filled, known, 1.0, 2.0), atol=1e-3)
        np.testing.assert_allclose(found.held_out_QM[:, m], dense_without(points, filled, known, 1.0, 2.0), atol=1e-3)
        np.testing.assert_allclose(found.held_out_QM[~known, m], found.fitted_QM[~known, m])
    # of a model without outcomes it believes what it believes without any
    assert not found.fitted_QM[:, 3].any()
    assert not found.held_out_QM[:, 3].any()


def both_ways(points, target, domain, mean, gamma, ridge) -> list[np.ndarray]:
    """Domain by domain, with and without the own outcome, then all together in the same way: (Q, M) each."""
    everything = np.ones(len(points), bool)
    rest = (target - mean).T
    return [
        mean + np.stack([f(points, rest_Q, everything, gamma, ridge, groups) for rest_Q in rest], axis=1)
        for groups in (domain, np.zeros(len(points)))
        for f in (dense, dense_without)
    ]


def test_of_domains_apart_and_all_together_the_mean_with_the_least_error_counts():
    points, target = task(200, 7)
    domain = np.arange(200) % 4
    domain[:2] = 9  # a domain of two queries
    target += np.sin(2.0 * domain)[:, None]
    mean = np.array([0.1, -0.2, 0.3])
    found = regression_of(points, 1.0, domain).fit(Advantages(target, mean), 3.0)
    fitted, held_out, fitted_together, held_out_together = both_ways(points, target, domain, mean, 1.0, 3.0)
    errors = [np.square(w * held_out + (1 - w) * held_out_together - target).sum() for w in np.linspace(0, 1, 1001)]
    share = np.argmin(errors) / 1000
    assert 0.05 < share < 0.95
    np.testing.assert_allclose(found.held_out_QM, share * held_out + (1 - share) * held_out_together, atol=2e-3)
    np.testing.assert_allclose(found.fitted_QM, share * fitted + (1 - share) * fitted_together, atol=2e-3)


def test_holes_in_several_domains():
    points, target = task(120, 11)
    domain = np.arange(120) % 3
    target += domain[:, None] / 2
    target[np.random.default_rng(0).random(target.shape) < 0.3] = NAN
    target[domain == 1, 2] = NAN  # a model without an outcome in one domain
    found = regress(points, target, 1.0, 3.0, domain=domain)
    pairs = []
    for groups in (domain, np.zeros(120)):
        columns = []
        for target_Q in target.T:
            known = np.isfinite(target_Q)
            columns.append(dense_without(points, np.nan_to_num(target_Q), known, 1.0, 3.0, groups))
        pairs.append(np.stack(columns, axis=1))
    shares = np.linspace(0, 1, 1001)
    errors = [np.nansum(np.square(w * pairs[0] + (1 - w) * pairs[1] - target)) for w in shares]
    share = shares[np.argmin(errors)]
    assert 0.05 < share <= 1
    np.testing.assert_allclose(found.held_out_QM, share * pairs[0] + (1 - share) * pairs[1], atol=2e-3)


@pytest.mark.parametrize("helps", [True, False])
def test_domains_count_alone_where_they_tell_all_and_not_where_they_tell_nothing(helps):
    points, target = task(200, 9)
    domain = np.arange(200) % 40
    if helps:
        target = np.random.default_rng(1).normal(0, 0.05, (200, 3)) + np.sin(domain)[:, None]
    found = regression_of(points, 1.0, domain).fit(gains_of(target), 1.0)
    apart, together = both_ways(points, target, domain, np.zeros(3), 1.0, 1.0)[1::2]
    nearer, farther = (apart, together) if helps else (together, apart)
    error = [np.square(found.held_out_QM - other).mean() for other in (nearer, farther)]
    assert error[0] < 0.05 * error[1]


def test_the_one_hot_of_a_domain_plays_no_part():
    points, target = task(50, 8)
    tagged = points.clone()
    tagged[:25, -3] = tagged[25:, -2] = 1.0
    plain, other = (regress(x, target, 1.0, 3.0).fitted_QM for x in (points, tagged))
    np.testing.assert_array_equal(plain, other)


def test_several_ridges_are_each_as_if_alone():
    points, target = task(70, 2)
    target[::3, 1] = NAN
    regression = regression_of(points, 1.0)
    together = regression.fit_each(gains_of(target), [1.0, 10.0, 30.0])
    for ridge, found in zip((1.0, 10.0, 30.0), together, strict=True):
        alone = regression.fit(gains_of(target), ridge)
        np.testing.assert_array_equal(found.fitted_QM, alone.fitted_QM)
        np.testing.assert_array_equal(found.held_out_QM, alone.held_out_QM)
    sizes = [np.abs(found.fitted_QM).mean() for found in together]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("n_landmarks", [100, 200])
def test_with_more_queries_than_landmarks_it_stays_close(monkeypatch, n_landmarks):
    points, target = task(400, 3)
    exact = regress(points, target, 0.7, 5.0)
    monkeypatch.setattr(estimate, "_MOST_LANDMARKS", n_landmarks)
    found = regress(points, target, 0.7, 5.0)
    for name in ("fitted_QM", "held_out_QM"):
        error = getattr(found, name) - getattr(exact, name)
        assert np.sqrt(np.mean(error**2)) < 0.15 * getattr(exact, name).std()
    # and the leverage formula holds for what is spanned: leaving a row out really gives the same
    q = 7
    without = target.copy()
    without[q] = NAN
    again = regress(points, without, 0.7, 5.0)
    np.testing.assert_allclose(found.held_out_QM[q], again.fitted_QM[q], atol=1e-3)


def test_the_seed_chooses_landmarks_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(estimate, "_MOST_LANDMARKS", 50)
    points, target = task(300, 4)
    torch.manual_seed(1)
    first = regress(points, target, 1.0, 5.0).fitted_QM
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, regress(points, target, 1.0, 5.0).fitted_QM)
    assert not np.array_equal(first, regress(points, target, 1.0, 5.0, seed=1).fitted_QM)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_blocks_make_no_difference(monkeypatch):
    points, target = task(150, 5)
    whole = regress(points, target, 1.0, 5.0)
    monkeypatch.setattr(estimate, "_BLOCK_ELEMENTS", 7 * 150)
    blocks = regress(points, target, 1.0, 5.0)
    np.testing.assert_allclose(blocks.held_out_QM, whole.held_out_QM, atol=1e-4)


@pytest.mark.parametrize("gamma", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("ridge", [1e-3, 10.0])
def test_queries_that_are_all_the_same_do_no_harm(gamma, ridge):
    points = torch.ones(1500, 34) / 20**0.5
    target = np.random.default_rng(0).normal(0.3, 0.1, (1500, 2))
    found = regress(points, target, gamma, ridge)
    # their mean, pulled to 0 as if there were `ridge` more of them
    np.testing.assert_allclose(found.fitted_QM, np.tile(target.sum(axis=0) / (1500 + ridge), (1500, 1)), atol=2e-3)
    others = (target.sum(axis=0) - target) / (1499 + ridge)
    np.testing.assert_allclose(found.held_out_QM, others, atol=2e-3)


def test_a_single_query_is_believed_by_its_ridge_and_its_own_outcome_tells_nothing():
    found = regress(torch.ones(1, 19), np.array([[0.8, NAN]]), 1.0, 3.0)
    np.testing.assert_allclose(found.fitted_QM, [[0.8 / 4, 0.0]], atol=1e-4)
    np.testing.assert_allclose(found.held_out_QM, [[0.0, 0.0]], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_is_the_same():
    points, target = task(300, 6)
    target[::4, 1] = NAN
    domain = np.arange(300) % 3
    here, there = (regress(x, target, 1.0, 5.0, domain=domain) for x in (points, points.cuda()))
    np.testing.assert_allclose(there.fitted_QM, here.fitted_QM, atol=2e-3)
    np.testing.assert_allclose(there.held_out_QM, here.held_out_QM, atol=2e-3)


@pytest.mark.parametrize("n_domains", [1, 3])
def test_other_queries_are_told_what_the_dense_regressions_say_of_them(n_domains):
    points, target = task(97, 20)
    domain = np.arange(97) % n_domains
    known = np.ones(97, bool)
    known[::4] = False  # these stand for other queries: their targets are not looked at
    regression = regression_of(points[known], 1.0, domain=domain[known])
    estimate, predictor = regression.learn(gains_of(target[known]), [3.0])
    told = predictor(points, domain).numpy()
    np.testing.assert_allclose(told[known], estimate.fitted_QM, atol=1e-3)
    apart, together = (
        np.stack([dense(points, target[:, m], known, 1.0, 3.0, d) for m in range(3)], axis=1)
        for d in (domain if n_domains > 1 else None, None)
    )
    between = apart - together
    share = 0.0 if n_domains == 1 else float(((told - together) * between).sum() / (between**2).sum())
    assert 0 <= share <= 1
    np.testing.assert_allclose(told, together + share * between, atol=1e-3)


def test_a_domain_that_was_never_seen_is_told_by_all_queries_together():
    points, target = task(90, 21)
    domain = np.arange(90) % 3
    _, predictor = regression_of(points, 1.0, domain=domain).learn(gains_of(target), [3.0])
    told = predictor(points[:10], np.full(10, -1)).numpy()
    everything = np.ones(90, bool)
    together = np.stack([dense(points, target[:, m], everything, 1.0, 3.0) for m in range(3)], axis=1)
    np.testing.assert_allclose(told, together[:10], atol=1e-3)


def test_the_ridge_is_the_one_that_foretells_best_without_the_own_outcomes():
    points, target = task(120, 22)
    target += np.random.default_rng(22).standard_normal(target.shape)
    regression, ridges = regression_of(points, 1.0), [0.1, 1.0, 10.0, 1000.0]
    errors = [
        ((target - estimate.held_out_QM) ** 2).sum() for estimate in regression.fit_each(gains_of(target), ridges)
    ]
    best = ridges[int(np.argmin(errors))]
    assert best not in (ridges[0], ridges[-1])
    estimate, _ = regression.learn(gains_of(target), ridges)
    np.testing.assert_array_equal(estimate.held_out_QM, regression.fit(gains_of(target), best).held_out_QM)


def test_the_models_means_and_holes_are_kept_for_other_queries():
    points, target = task(80, 23)
    target[:, 1] = NAN
    target[::2, 2] = NAN
    gains = Advantages(target + np.array([5.0, 7.0, 9.0]), np.array([5.0, NAN, 9.0]))
    _, predictor = regression_of(points, 1.0).learn(gains, [1e6])
    told = predictor(points[:5], np.zeros(5, int)).numpy()
    np.testing.assert_allclose(told[:, [0, 2]], [[5.0, 9.0]] * 5, atol=0.01)
    assert np.isnan(told[:, 1]).all()
