from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.domains import N_DOMAINS, WIRE_ORDER
from gpu_select.errors import ConfigError
from gpu_select.throughput import random_document, random_router, selectors

TEXTS = [f"what is {i} plus {i * i % 97}" for i in range(37)]


@pytest.mark.parametrize(
    ("algorithm", "rows"),
    [("knn", 500), ("kmeans", 500), ("svm", 301), ("mlp", 500), ("knn", 3), ("svm", 1), ("mlp", 1)],
)
def test_a_router_decides_among_the_selectors_models(random_tiny, algorithm, rows):
    router = random_router(random_tiny, algorithm, rows)
    assert router.selector.algorithm == algorithm
    assert router.selector.dim == 64 + N_DOMAINS
    routes = router.route(TEXTS, [WIRE_ORDER[i % N_DOMAINS] for i in range(len(TEXTS))])
    assert set(routes.models) <= set(router.models)
    if rows > 100:
        assert len(router.models) == 6
        assert len(set(routes.models)) > 1


def test_the_rows_are_features_around_the_embeddings():
    embeddings = torch.nn.functional.normalize(torch.randn(37, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = selectors._spread(embeddings, 500, seed=0)
    assert rows.shape == (500, 24 + N_DOMAINS)
    assert torch.allclose(rows[:, :24].norm(dim=1), torch.ones(500), atol=1e-5)
    assert (rows[:, 24:].sum(dim=1) == 1).all()
    assert len(torch.unique(rows, dim=0)) == 500
    assert (rows[:, :24] @ embeddings.T).amax(dim=1).mean() > 0.8


def test_sizes_are_those_that_training_would_give(random_tiny):
    assert random_document(random_tiny, "knn", 77).embeddings_ND.shape == (77, 78)
    assert random_document(random_tiny, "kmeans", 500).centroids_KD.shape == (64, 78)
    assert random_document(random_tiny, "mlp", 500).hidden_sizes == [512]
    svm = random_document(random_tiny, "svm", 300)
    assert [len(part.alpha_S) for part in svm.rbf_classifiers] == [200] * 6
    distinct = np.unique(np.concatenate([part.support_vectors_SD for part in svm.rbf_classifiers]), axis=0)
    assert 200 < len(distinct) <= 300  # the machines share training queries
    assert np.allclose(np.linalg.norm(distinct, axis=1), 1, atol=1e-5)


def test_the_seed_decides(random_tiny):
    first, again, other = (random_document(random_tiny, "kmeans", 50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.centroids_KD, again.centroids_KD)
    assert not np.array_equal(first.centroids_KD, other.centroids_KD)


@pytest.mark.parametrize(
    ("algorithm", "rows", "text"),
    [
        ("tree", 5, "selector: expected one of knn, kmeans, svm, mlp, got 'tree'"),
        ("knn", 0, "rows: expected an integer >= 1, got 0"),
    ],
)
def test_bad_wishes_are_refused(random_tiny, algorithm, rows, text):
    with pytest.raises(ConfigError, match=text):
        random_document(random_tiny, algorithm, rows)
