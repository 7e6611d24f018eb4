"""The model of the nearest centroid, the lowest centroid at a tie, whichever model it belongs to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.selectors import KMeansSelector, choose

MODELS = ["a", "b", "c", "d"]
COORDINATES = st.sampled_from([0.0, 1.0, -1.0, 2.0])


def document_of(centroids_KD, owners):
    centroids = np.asarray(centroids_KD).tolist()
    return {
        "algorithm": "kmeans",
        "trained": True,
        "num_clusters": len(centroids),
        "centroids": centroids,
        "cluster_models": owners,
    }


@st.composite
def problems(draw):
    n, dim, n_queries = draw(st.integers(1, 24)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    centroids_KD = draw(hnp.arrays(np.float32, (n, dim), elements=COORDINATES))
    owners = draw(st.lists(st.sampled_from(MODELS), min_size=n, max_size=n))
    queries_BD = draw(hnp.arrays(np.float32, (n_queries, dim), elements=COORDINATES))
    candidates = draw(st.none() | st.lists(st.sampled_from(sorted(set(owners))), min_size=1))
    return document_of(centroids_KD, owners), queries_BD, candidates


@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_ties_go_to_the_lowest_centroid(engine, decide, problem):
    assert decide(*problem) == engine.decide(*problem)


def test_a_tie_between_interleaved_models_is_decided_by_centroid(decide):
    """a owns the first centroid, but b the first of the two nearest ones."""
    document = document_of([[9.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], ["a", "b", "a"])
    query = np.zeros((1, 2), np.float32)
    assert decide(document, query) == ["b"]
    assert decide(document, query, ["a"]) == ["a"]
    far = np.array([[0.0, 50.0]], np.float32)  # where a unit in the last place of the products is lost in the distance
    assert decide(document, far) == ["b"]


@pytest.mark.parametrize("n_queries", [1, 7, 64])
@pytest.mark.parametrize(("n_clusters", "dim"), [(2, 5), (17, 64), (33, 384), (65, 1038)])
def test_of_equal_centroids_the_lowest_wins(n_clusters, dim, n_queries):
    """A product of matrices may round equal columns differently."""
    rng = np.random.default_rng(n_clusters)
    centroids_KD = rng.normal(size=(n_clusters, dim)).astype(np.float32)
    centroids_KD[-1] = centroids_KD[0]
    queries_BD = (centroids_KD[0] + rng.normal(scale=0.01, size=(n_queries, dim))).astype(np.float32)
    selector = KMeansSelector(torch.from_numpy(centroids_KD), [f"model-{i}" for i in range(n_clusters)])
    assert choose(selector(torch.from_numpy(queries_BD))).model.tolist() == [0] * n_queries


def test_decisions_and_scores_on_random_numbers(engine):
    rng = np.random.default_rng(0)
    centroids_KD = rng.normal(size=(40, 30)).astype(np.float32)
    owners = [MODELS[i] for i in rng.integers(0, 4, 40)]
    queries_BD = rng.normal(size=(200, 30)).astype(np.float32)
    selector = KMeansSelector(torch.from_numpy(centroids_KD), owners)
    scores_BM = selector(torch.from_numpy(queries_BD))
    for scores_M, reading in zip(
        scores_BM, engine.readings(document_of(centroids_KD, owners), queries_BD), strict=True
    ):
        expected = dict(zip(reading.models, reading.scores, strict=True))
        expected_M = torch.tensor([expected[model] for model in selector.models])
        torch.testing.assert_close(scores_M.double(), expected_M, atol=1e-4, rtol=1e-6)
        assert selector.models[int(scores_M.argmax())] == reading.chosen()


def test_one_by_one_decides_like_a_batch():
    rng = np.random.default_rng(1)
    selector = KMeansSelector(torch.from_numpy(rng.normal(size=(50, 100))).float(), [MODELS[i % 4] for i in range(50)])
    queries_BD = torch.from_numpy(rng.normal(size=(64, 100))).float()
    together = selector(queries_BD)
    alone = torch.cat([selector(query[None]) for query in queries_BD])
    assert torch.equal(choose(together).model, choose(alone).model)
    torch.testing.assert_close(together, alone)


@pytest.fixture
def fused(monkeypatch):
    """The kernel instead of the product, under Triton's interpreter."""
    monkeypatch.setattr(KMeansSelector, "impl", "triton")


@pytest.mark.interpreted
@pytest.mark.usefixtures("fused")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_the_kernel_gives_ties_to_the_lowest_centroid(engine, decide, problem):
    assert decide(*problem) == engine.decide(*problem)


@pytest.mark.interpreted
@pytest.mark.parametrize("with_candidates", [False, True])
def test_the_kernel_scores_like_the_product(monkeypatch, with_candidates):
    rng = np.random.default_rng(2)
    selector = KMeansSelector(torch.from_numpy(rng.normal(size=(70, 50))).float(), [MODELS[i % 4] for i in range(70)])
    queries_BD = torch.from_numpy(rng.normal(size=(20, 50))).float()
    candidates = torch.from_numpy(rng.random((20, 4)) < 0.5) if with_candidates else None
    expected_BM = selector(queries_BD, candidates)
    monkeypatch.setattr(selector, "impl", "triton")
    torch.testing.assert_close(selector(queries_BD, candidates), expected_BM)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("n_clusters", "dim"), [(2, 5), (17, 64), (133, 384), (65, 1038)])
def test_on_cuda_equal_centroids_have_equal_scores(n_clusters, dim):
    rng = np.random.default_rng(n_clusters)
    centroids_KD = rng.normal(size=(n_clusters, dim)).astype(np.float32)
    centroids_KD[-1] = centroids_KD[0]
    queries_BD = torch.from_numpy((centroids_KD[0] + rng.normal(scale=0.01, size=(200, dim))).astype(np.float32))
    selector = KMeansSelector(torch.from_numpy(centroids_KD), [f"model-{i}" for i in range(n_clusters)]).cuda()
    choice = choose(selector(queries_BD.cuda()))
    assert choice.model.tolist() == [0] * 200
    assert (choice.margin < 1e-3).all()
