from __future__ import annotations

import pytest
import torch

from gpu_select.domains import N_DOMAINS
from gpu_select.errors import ConfigError
from gpu_select.selectors import choose
from gpu_select.throughput import random_router, random_selector, selectors


@pytest.fixture(scope="module")
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(37, 24, generator=generator), dim=1)


@pytest.mark.parametrize(("algorithm", "rows"), [("knn", 500), ("kmeans", 500), ("svm", 301), ("knn", 3), ("svm", 1)])
def test_a_selector_decides_among_its_models(embeddings, algorithm, rows):
    selector = random_selector(algorithm, rows, embeddings)
    assert selector.algorithm == algorithm
    assert selector.dim == 24 + N_DOMAINS
    features = torch.cat([embeddings, torch.eye(N_DOMAINS)[torch.arange(37) % N_DOMAINS]], dim=1)
    choice = choose(selector(features))
    assert torch.isfinite(choice.score).all()
    if rows > 100:
        assert len(selector.models) == 6
        assert len(set(choice.model.tolist())) > 1


def test_the_rows_are_features(embeddings):
    rows = selectors._spread(embeddings, 500, seed=0)
    assert rows.shape == (500, 24 + N_DOMAINS)
    assert torch.allclose(rows[:, :24].norm(dim=1), torch.ones(500), atol=1e-3)
    assert (rows[:, 24:].sum(dim=1) == 1).all()
    assert len(torch.unique(rows, dim=0)) == 500
    assert (rows[:, :24] @ embeddings.T).amax(dim=1).mean() > 0.8  # around the embeddings


def test_sizes_are_those_that_training_would_give(embeddings):
    assert random_selector("kmeans", 500, embeddings).centroids_KD.shape[0] == 64
    svm = random_selector("svm", 300, embeddings)
    assert (svm.weighted_sums[0].weight_ND != 0).sum(dim=1).tolist() == [200] * 6
    assert 200 < svm.weighted_sums[0].weight_ND.shape[1] <= 300  # the machines share training queries


def test_the_seed_decides(embeddings):
    first, again, other = (random_selector("svm", 50, embeddings, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weighted_sums[0].weight_ND, again.weighted_sums[0].weight_ND)
    assert not torch.equal(first.weighted_sums[0].weight_ND, other.weighted_sums[0].weight_ND)


@pytest.mark.parametrize(
    ("algorithm", "rows", "text"),
    [
        ("tree", 5, "selector: expected one of knn, kmeans, svm, got 'tree'"),
        ("knn", 0, "rows: expected an integer >= 1, got 0"),
    ],
)
def test_bad_wishes_are_refused(embeddings, algorithm, rows, text):
    with pytest.raises(ConfigError, match=text):
        random_selector(algorithm, rows, embeddings)


def test_a_router_has_a_selector_for_its_encoder(random_tiny):
    router = random_router(random_tiny, "knn", 40)
    assert router.selector.dim == 64 + N_DOMAINS
    assert set(router.route(["one question", "another"]).models) <= set(router.models)
