"""Training of the domain head: the minimum of its loss, on the queries whose category is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.domain_head import DomainHead
from gpu_select.domains import KNOWN_DOMAINS, domain_index
from gpu_select.features import build_features
from gpu_select.records import OutcomeTable
from gpu_select.training import fit_domain_head

NAMES = ["engineering", "law", "other"]


def problem(n=240, d=9, seed=0, missing=()):
    """Noisy clusters of unit vectors, one a domain."""
    rng = np.random.default_rng(seed)
    label_Q = rng.integers(0, 3, n)
    vectors = rng.normal(size=(3, d))[label_Q] + rng.normal(size=(n, d))
    vectors = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()
    domains = [NAMES[c] for c in label_Q]
    features = build_features(vectors, torch.tensor([domain_index(name) for name in domains]))
    without = np.array([q in missing for q in range(n)]) if missing else None
    ones = np.ones((n, 1))
    return features, OutcomeTable([f"q{q}" for q in range(n)], domains, ["a"], ones, ones, without_category_Q=without)


@pytest.mark.parametrize("ridge", [2.0, 0.02])
def test_it_is_the_minimum_that_scikit_learn_finds(ridge):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, table = problem()
    document = fit_domain_head(features, table, ridge=ridge)
    peer = linear_model.LogisticRegression(C=1 / ridge, tol=1e-9, max_iter=10_000)
    peer.fit(features[:, :-14].double().numpy(), table.domains)
    assert list(peer.classes_) == list(document.domains) == NAMES
    np.testing.assert_allclose(document.weight_Cd, peer.coef_, atol=2e-3, rtol=2e-3)
    # all biases may move together
    centred = [bias - bias.mean() for bias in (document.bias_C, peer.intercept_)]
    np.testing.assert_allclose(*centred, atol=2e-3)


def test_it_learns_domains_not_slots():
    features, table = problem()
    document = fit_domain_head(features, table, {"encoder": {"name": "e", "fingerprint": "f"}, "options": {}})
    predicted = DomainHead(document).predict(features[:, :-14])
    right = [KNOWN_DOMAINS[p] == name for p, name in zip(predicted.tolist(), table.domains, strict=True)]
    assert np.mean(right) > 0.8
    assert document.own == {
        "encoder": {"name": "e", "fingerprint": "f"},
        "data": {"queries": 240},
        "ridge": 0.25,
    }


def test_the_same_data_gives_the_same_numbers():
    first, second = (fit_domain_head(*problem()) for _ in range(2))
    np.testing.assert_array_equal(first.weight_Cd, second.weight_Cd)
    np.testing.assert_array_equal(first.bias_C, second.bias_C)


def test_queries_without_a_category_teach_nothing():
    features, table = problem(missing=range(100))
    document = fit_domain_head(features, table)
    rest = fit_domain_head(features[100:], table.take(np.arange(100, 240)))
    np.testing.assert_allclose(document.weight_Cd, rest.weight_Cd, atol=1e-4)
    assert document.own["data"] == {"queries": 140}


def test_one_category_is_too_few():
    features, table = problem(n=60)
    law = np.array([q for q in range(60) if table.domains[q] == "law"])
    assert fit_domain_head(features[torch.from_numpy(law)], table.take(law)) is None
    assert fit_domain_head(*problem(n=60, missing=range(60))) is None
    unknown = OutcomeTable(table.queries, ["law", "unknown"] * 30, ["a"], table.quality_QM, table.latency_s_QM)
    assert fit_domain_head(features, unknown) is None
