from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.training.svm import fit_svm
from gpu_select.training.utility import advantages

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
    document = fit_svm(features, MODELS, utility, kernel="rbf", gamma=gamma)
    queries = task(101, 1)[0]
    selector = selector_of(document)
    assert selector.models == tuple(MODELS)
    np.testing.assert_allclose(selector(queries).numpy(), direct_values(document, queries), atol=1e-4)


def test_the_selector_computes_what_the_file_says_linear():
    features, utility = task(163, 0)
    document = fit_svm(features, MODELS, utility, kernel="linear", gamma=1.0)
    queries = task(101, 1)[0]
    np.testing.assert_allclose(selector_of(document)(queries).numpy(), direct_values(document, queries), atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_values_are_those_of_scikit_learn_on_the_same_problem(kernel):
    svm = pytest.importorskip("sklearn.svm")
    features, utility = task(163, 2)
    queries = task(101, 3)[0]
    values = selector_of(fit_svm(features, MODELS, utility, kernel=kernel, gamma=1.0))(queries).numpy()
    unit = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    gains = advantages(utility)
    for m in range(3):
        peer = svm.SVC(C=1.0, kernel=kernel, gamma=1.0, tol=1e-6)
        peer.fit(unit, np.where(gains[:, m] >= 0, 1, -1), sample_weight=np.abs(gains[:, m]))
        x = torch.nn.functional.normalize(queries.double(), dim=1).numpy()
        stake = np.sqrt(np.mean(gains[:, m] ** 2))
        np.testing.assert_allclose(values[:, m] / stake, peer.decision_function(x), atol=1e-3)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_choices_are_worth_more_than_any_single_model(kernel):
    features, utility = task(400, 4)
    selector = selector_of(fit_svm(features, MODELS, utility, kernel=kernel, gamma=1.0))
    queries, outcome = task(400, 5)
    chosen = selector(queries).argmax(dim=1).numpy()
    assert outcome[np.arange(400), chosen].mean() > outcome.mean(axis=0).max() + 0.1


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_of_models_that_all_gain_the_one_that_gains_most_is_chosen(kernel):
    features, _ = task(100, 6)
    noise = np.random.default_rng(6).uniform(-0.02, 0.02, (100, 4))
    # the last is so poor that the others are all better than the mean
    document = fit_svm(
        features, ["a", "b", "c", "d"], np.array([0.80, 0.95, 0.85, 0.10]) + noise, kernel=kernel, gamma=1.0
    )
    assert set(selector_of(document)(task(100, 7)[0]).argmax(dim=1).tolist()) == {1}


def test_a_model_is_judged_by_the_queries_it_answered():
    features, _ = task(100, 6)
    utility = np.random.default_rng(6).uniform(-0.02, 0.02, (100, 3)) + np.array([0.7, 0.95, 0.1])
    utility[10:, 1] = NAN
    document = fit_svm(features, MODELS, utility, kernel="rbf", gamma=1.0)
    assert set(selector_of(document)(features).argmax(dim=1).tolist()) == {1}


def test_the_document_is_of_the_kind_and_width_that_were_asked_for():
    features, utility = task(40, 0)
    rbf = fit_svm(features, MODELS, utility, kernel="rbf", gamma=2.5)
    assert (rbf.kernel_type, rbf.gamma, rbf.linear_classifiers) == ("Rbf", 2.5, [])
    assert [(part.model_name, part.gamma) for part in rbf.rbf_classifiers] == [(name, 2.5) for name in MODELS]
    for part in rbf.rbf_classifiers:
        assert part.support_vectors_SD.shape == (len(part.alpha_S), 31)
        assert part.alpha_S.all()
        np.testing.assert_allclose(np.linalg.norm(part.support_vectors_SD, axis=1), 1.0, atol=1e-6)
    linear = fit_svm(features, MODELS, utility, kernel="linear", gamma=1.0)
    assert (linear.kernel_type, linear.rbf_classifiers) == ("Linear", [])
    assert [(part.model_name, part.weights_D.shape) for part in linear.linear_classifiers] == [
        (name, (31,)) for name in MODELS
    ]


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_alphas_and_rho_are_each_models_own(kernel):
    features, utility = task(80, 0)
    document = fit_svm(features, MODELS, utility, kernel=kernel, gamma=1.0)
    assert len({part.rho for part in document.linear_classifiers + document.rbf_classifiers}) == 3
    for part in document.rbf_classifiers:
        assert len(np.unique(np.abs(part.alpha_S))) > 10


def test_queries_on_which_all_models_do_alike_weigh_nothing():
    features, utility = task(60, 0)
    more, _ = task(30, 1)
    without = fit_svm(features, MODELS, utility, kernel="rbf", gamma=1.0)
    alike = np.concatenate([utility, np.full((30, 3), 0.7)])
    document = fit_svm(torch.cat([features, more]), MODELS, alike, kernel="rbf", gamma=1.0)
    queries = task(50, 2)[0]
    # what is at stake on average is less by a factor that is the same for all models
    np.testing.assert_allclose(
        direct_values(document, queries), direct_values(without, queries) * np.sqrt(60 / 90), atol=1e-3
    )


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_holes_are_no_opinion(kernel):
    features, utility = task(60, 0)
    utility[::3, 1] = NAN
    utility[1::3, :2] = NAN  # a single outcome tells nothing about which model is better
    document = fit_svm(features, MODELS, utility, kernel=kernel, gamma=1.0)
    assert np.isfinite(direct_values(document, features)).all()
    if kernel == "rbf":
        support = document.rbf_classifiers[1].support_vectors_SD
        unit = torch.nn.functional.normalize(features, dim=1).numpy()
        for row in (*unit[::3], *unit[1::3]):
            assert (np.abs(support - row).max(axis=1) > 1e-6).all()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
def test_outcomes_that_favour_nobody_still_make_a_file_that_decides(models, kernel):
    features, _ = task(9, 0)
    document = fit_svm(features, models, np.full((9, len(models)), 0.5), kernel=kernel, gamma=1.0)
    assert selector_of(document)(features).argmax(dim=1).tolist() == [0] * 9


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_one_query_is_enough(kernel):
    features, _ = task(1, 0)
    document = fit_svm(features, MODELS, np.array([[0.1, 0.9, 0.2]]), kernel=kernel, gamma=1.0)
    selector = selector_of(document)
    assert selector.models[selector(features).argmax()] == "b"


def test_a_zero_feature_vector_does_no_harm():
    features, utility = task(20, 0)
    features[3] = 0
    document = fit_svm(features, MODELS, utility, kernel="rbf", gamma=1.0)
    assert all(np.isfinite(part.support_vectors_SD).all() for part in document.rbf_classifiers)
