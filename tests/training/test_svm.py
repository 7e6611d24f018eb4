from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.training import SVMSettings
from gpu_select.training.estimate import Regression
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.svm import fit_svm, problems, unit_points
from gpu_select.training.utility import centred

NAN = float("nan")
MODELS = ["a", "b", "c"]


def task(n: int, seed: int, dim: int = 17) -> tuple[torch.Tensor, np.ndarray]:
    """Features as the router builds them, and utilities that depend on them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    taste = np.random.default_rng(1234).standard_normal((dim, 3))
    utility = 1 / (1 + np.exp(-3 * rows @ taste + 0.3 * rng.standard_normal((n, 3))))
    features = np.hstack([rows, np.eye(14)[rng.integers(14, size=n)]])
    return torch.from_numpy(features.astype(np.float32)), utility


def fit(features, models, utility, **options):
    domain = features[:, -14:].argmax(dim=1).cpu().numpy()
    return fit_svm(features, models, np.asarray(utility, dtype=float), domain, SVMSettings(**options), seed=0)


def expected_gains(features, utility, gamma: float = 2.0, ridge: float = 3.0) -> np.ndarray:
    """(Q, M) what the machines learn from."""
    domain = features[:, -14:].argmax(dim=1).cpu().numpy()
    return Regression(features, domain, gamma, seed=0).fit(centred(utility), ridge).held_out_QM


def direct_values(document, features) -> np.ndarray:
    """(B, M) decision values by their definition, in float64."""
    x = features.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    columns = [x @ part.weights_D - part.rho for part in document.linear_classifiers]
    for part in document.rbf_classifiers:
        squared = ((x[:, None] - part.support_vectors_SD.astype(np.float64)) ** 2).sum(axis=2)
        columns.append(np.exp(-part.gamma * squared) @ part.alpha_S - part.rho)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 20.0])
def test_the_selector_computes_what_the_file_says_rbf(gamma):
    features, utility = task(163, 0)
    document = fit(features, MODELS, utility, gamma=gamma)
    queries = task(101, 1)[0]
    selector = selector_of(document)
    assert selector.models == tuple(MODELS)
    np.testing.assert_allclose(selector(queries).numpy(), direct_values(document, queries), atol=1e-4)


def test_the_selector_computes_what_the_file_says_linear():
    features, utility = task(163, 0)
    document = fit(features, MODELS, utility, kernel="linear")
    queries = task(101, 1)[0]
    np.testing.assert_allclose(selector_of(document)(queries).numpy(), direct_values(document, queries), atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_values_are_those_of_scikit_learn_on_the_same_problem(kernel):
    svm = pytest.importorskip("sklearn.svm")
    features, utility = task(163, 2)
    queries = task(101, 3)[0]
    settings = {"kernel": kernel, "c": 1.5, "label_gamma": 1.0, "label_ridge": 2.0}
    values = selector_of(fit(features, MODELS, utility, **settings))(queries).numpy()
    unit = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    x = torch.nn.functional.normalize(queries.double(), dim=1).numpy()
    sign_MQ, weight_MQ = problems(expected_gains(features, utility, 1.0, 2.0), features)
    for m in range(3):
        peer = svm.SVC(C=1.5, kernel=kernel, gamma=1.0, tol=1e-6)
        peer.fit(unit, sign_MQ[m].numpy(), sample_weight=weight_MQ[m].numpy())
        np.testing.assert_allclose(values[:, m], peer.decision_function(x), atol=2e-3)


def test_what_is_at_stake_on_a_case_worked_by_hand():
    expected = np.array([[0.3, 0.1, -0.2], [0.0, 0.2, 0.2], [NAN, NAN, NAN], [-0.1, 0.0, 0.4]])
    sign_MQ, weight_MQ = problems(expected, torch.ones(1))
    lead = np.array([[0.2, -0.2, -0.5], [-0.2, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.5, -0.4, 0.4]])
    # the best against the second, the others against the best; a tie at the top has nothing at stake
    np.testing.assert_allclose(weight_MQ.T, np.abs(lead) / np.sqrt((lead**2).sum() / 9))
    np.testing.assert_array_equal(sign_MQ.T, np.where(lead > 0, 1, -1))
    sign_MQ, weight_MQ = problems(np.zeros((4, 1)), torch.ones(1))
    assert not weight_MQ.any()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_choices_are_worth_more_than_any_single_model(kernel):
    features, utility = task(400, 4)
    selector = selector_of(fit(features, MODELS, utility, kernel=kernel))
    queries, outcome = task(400, 5)
    chosen = selector(queries).argmax(dim=1).numpy()
    assert outcome[np.arange(400), chosen].mean() > outcome.mean(axis=0).max() + 0.1


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_of_models_that_all_gain_the_one_that_gains_most_is_chosen(kernel):
    features, _ = task(100, 6)
    noise = np.random.default_rng(6).uniform(-0.02, 0.02, (100, 4))
    # the last is so poor that the others are all better than the mean
    document = fit(features, ["a", "b", "c", "d"], np.array([0.80, 0.95, 0.85, 0.10]) + noise, kernel=kernel)
    assert set(selector_of(document)(task(100, 7)[0]).argmax(dim=1).tolist()) == {1}


def test_a_model_is_judged_by_the_queries_it_answered():
    features, _ = task(100, 6)
    utility = np.random.default_rng(6).uniform(-0.02, 0.02, (100, 3)) + np.array([0.7, 0.95, 0.1])
    utility[60:, 1] = NAN
    document = fit(features, MODELS, utility)
    assert set(selector_of(document)(features).argmax(dim=1).tolist()) == {1}
    utility[3:, 1] = NAN  # three outcomes are believed less
    document = fit(features, MODELS, utility)
    assert set(selector_of(document)(features).argmax(dim=1).tolist()) == {0}


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_a_model_that_had_the_easy_queries_does_not_get_the_hard_ones(kernel):
    features, _ = task(100, 6)
    # all do well on half of the queries; b, which is worse than a wherever both were asked, was asked there alone
    utility = np.where(np.arange(100)[:, None] < 50, [0.95, 0.85], [0.2, NAN])
    document = fit(features, ["a", "b"], utility, kernel=kernel)
    assert set(selector_of(document)(task(100, 7)[0]).argmax(dim=1).tolist()) == {0}


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 2.5])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_file_says_what_was_solved_whatever_the_domain_counts(kernel, weight):
    """Against sum_q beta_q K_w(x, x_q) - rho in float64, where the domain's part of the kernel is weighted."""
    features, utility = task(130, 0)
    queries = task(90, 1)[0]
    settings = SVMSettings(kernel=kernel, gamma=1.7, c=0.6, domain_weight=weight)
    document = fit(features, MODELS, utility, **asdict(settings))
    points = unit_points(features, weight)
    sign_MQ, weight_MQ = problems(expected_gains(features, utility), points)
    beta_MQ, rho_M = solve(Kernel(points, 1.7 if kernel == "rbf" else None), sign_MQ, 0.6 * weight_MQ)
    x_BD, x_QD = (torch.nn.functional.normalize(x.double(), dim=1) for x in (queries, features))
    kernel_BQ = x_BD[:, :-14] @ x_QD[:, :-14].T + weight * x_BD[:, -14:] @ x_QD[:, -14:].T
    if kernel == "rbf":  # both norms are (1 + weight) / 2
        kernel_BQ = torch.exp(-1.7 * (1 + weight - 2 * kernel_BQ))
    expected = (kernel_BQ @ beta_MQ.T - rho_M).numpy()
    np.testing.assert_allclose(direct_values(document, queries), expected, atol=1e-5)
    assert expected.std() > 0.01


def test_the_bound_reaches_the_coefficients():
    features, utility = task(300, 0)
    weight_MQ = problems(expected_gains(features, utility), features)[1]
    most = weight_MQ.max(dim=1).values.numpy()
    largest = {}
    for c in (0.003, 0.3, 30.0):
        document = fit(features, MODELS, utility, c=c)
        largest[c] = np.array([np.abs(part.alpha_S).max() for part in document.rbf_classifiers])
        assert (largest[c] <= c * most * (1 + 1e-9)).all()
    assert (largest[0.003] > 0.5 * 0.003 * most).all()
    assert (largest[30.0] > largest[0.3]).all()


def test_the_document_is_of_the_kind_and_width_that_were_asked_for():
    features, utility = task(300, 0)
    rbf = fit(features, MODELS, utility, gamma=2.5)
    assert (rbf.kernel_type, rbf.gamma, rbf.linear_classifiers) == ("Rbf", 2.5, [])
    assert [(part.model_name, part.gamma) for part in rbf.rbf_classifiers] == [(name, 2.5) for name in MODELS]
    for part in rbf.rbf_classifiers:
        assert part.support_vectors_SD.shape == (len(part.alpha_S), 31)
        assert part.alpha_S.all()
        np.testing.assert_allclose(np.linalg.norm(part.support_vectors_SD, axis=1), 1.0, atol=1e-6)
    linear = fit(features, MODELS, utility, kernel="linear")
    assert (linear.kernel_type, linear.rbf_classifiers) == ("Linear", [])
    assert [(part.model_name, part.weights_D.shape) for part in linear.linear_classifiers] == [
        (name, (31,)) for name in MODELS
    ]


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_alphas_and_rho_are_each_models_own(kernel):
    features, utility = task(300, 0)
    document = fit(features, MODELS, utility, kernel=kernel)
    assert len({part.rho for part in document.linear_classifiers + document.rbf_classifiers}) == 3
    for part in document.rbf_classifiers:
        assert len(np.unique(np.abs(part.alpha_S))) > 10


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_holes_are_what_the_rest_lets_expect(kernel):
    features, utility = task(400, 4)
    utility[np.random.default_rng(0).random(utility.shape) < 0.3] = NAN
    utility[np.isnan(utility).all(axis=1), 0] = 0.5
    selector = selector_of(fit(features, MODELS, utility, kernel=kernel))
    queries, outcome = task(400, 5)
    chosen = selector(queries).argmax(dim=1).numpy()
    assert outcome[np.arange(400), chosen].mean() > outcome.mean(axis=0).max() + 0.1


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
def test_outcomes_that_favour_nobody_still_make_a_file_that_decides(models, kernel):
    features, _ = task(9, 0)
    document = fit(features, models, np.full((9, len(models)), 0.5), kernel=kernel)
    assert selector_of(document)(features).argmax(dim=1).tolist() == [0] * 9


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_one_query_is_enough(kernel):
    features, _ = task(1, 0)
    document = fit(features, MODELS, np.array([[0.1, 0.9, 0.2]]), kernel=kernel)
    selector = selector_of(document)
    assert selector.models[selector(features).argmax()] == "b"


def test_a_zero_feature_vector_does_no_harm():
    features, utility = task(20, 0)
    features[3] = 0
    document = fit(features, MODELS, utility)
    assert all(np.isfinite(part.support_vectors_SD).all() for part in document.rbf_classifiers)
