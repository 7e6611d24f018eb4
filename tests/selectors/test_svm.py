"""The largest decision value on the query scaled to unit norm, the first classifier at a tie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.selectors import LinearPart, RBFPart, SVMSelector, choose, svm

MODELS = ["a", "b", "c"]
SMALL = st.sampled_from([0.0, 1.0, -1.0, 2.0])


def document_of(linear, rbf):
    """`linear`: (model, weights, rho) each; `rbf`: (model, alpha, vectors, rho, gamma) each."""
    return {
        "algorithm": "svm",
        "trained": True,
        "model_names": sorted({part[0] for part in (*linear, *rbf)}),
        "kernel_type": "Rbf" if rbf else "Linear",
        "gamma": 1.0,
        "linear_classifiers": [
            {"model_name": name, "weights": np.asarray(weights).tolist(), "rho": float(rho)}
            for name, weights, rho in linear
        ],
        "rbf_classifiers": [
            {
                "model_name": name,
                "alpha": np.asarray(alpha).tolist(),
                "support_vectors": np.asarray(vectors).tolist(),
                "rho": float(rho),
                "gamma": float(gamma),
            }
            for name, alpha, vectors, rho, gamma in rbf
        ],
    }


def random_document(seed, *, n_linear, n_rbf, dim=20, n_vectors=30):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n_vectors, dim)).astype(np.float32)
    linear = [(MODELS[rng.integers(3)], rng.normal(size=dim), rng.normal()) for _ in range(n_linear)]
    rbf = []
    for _ in range(n_rbf):
        vectors = shared[rng.random(n_vectors) < 0.7] / (1 + rng.integers(2))
        alpha = rng.normal(size=len(vectors))
        rbf.append((MODELS[rng.integers(3)], alpha, vectors, rng.normal(), rng.choice([0.5, 1.0, 4.0])))
    return document_of(linear, rbf)


def fitted(document):
    return SVMSelector(
        [
            LinearPart(p["model_name"], torch.tensor(p["weights"], dtype=torch.float64), p["rho"])
            for p in document["linear_classifiers"]
        ],
        [
            RBFPart(
                p["model_name"],
                torch.tensor(p["alpha"], dtype=torch.float64),
                torch.tensor(p["support_vectors"]),
                p["rho"],
                p["gamma"],
            )
            for p in document["rbf_classifiers"]
        ],
    )


@st.composite
def problems(draw):
    """Numbers whose decision values have no rounding: weights and rho are whole, queries have one coordinate."""
    dim = draw(st.integers(1, 3))
    parts = st.tuples(st.sampled_from(MODELS), hnp.arrays(np.float32, dim, elements=SMALL), SMALL)
    linear = draw(st.lists(parts, min_size=1, max_size=12))
    axes = st.tuples(st.integers(0, dim - 1), st.sampled_from([1.0, -4.0, 0.5, 0.0]))
    queries_BD = np.zeros((4, dim), np.float32)
    for b in range(4):
        axis, length = draw(axes)
        queries_BD[b, axis] = length
    # a classifier with a support vector of no weight is as constant as one can be
    constant = st.tuples(st.sampled_from(MODELS), st.just([0.0]), st.just(np.zeros((1, dim))), SMALL, st.just(1.0))
    rbf = draw(st.lists(constant, max_size=4))
    models = sorted({part[0] for part in (*linear, *rbf)})
    return document_of(linear, rbf), queries_BD, draw(st.none() | st.lists(st.sampled_from(models), min_size=1))


@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_ties_go_to_the_first_classifier(engine, decide, problem):
    assert decide(*problem) == engine.decide(*problem)


def test_linear_classifiers_come_first_at_a_tie(decide):
    constant = ("b", [0.0], np.zeros((1, 2)), -1.0, 1.0)
    query = np.array([[3.0, 0.0]], np.float32)
    assert decide(document_of([("c", [0.0, 0.0], 5.0), ("a", [1.0, 0.0], 0.0)], [constant]), query) == ["a"]
    assert decide(document_of([("c", [0.0, 0.0], 5.0), ("a", [0.5, 0.0], 0.0)], [constant]), query) == ["b"]


@pytest.mark.parametrize("n_queries", [1, 7, 64])
@pytest.mark.parametrize(("n_parts", "dim"), [(2, 5), (17, 64), (33, 384), (65, 1038)])
@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_of_equal_classifiers_the_first_wins(kind, n_parts, dim, n_queries):
    """A product of matrices may round equal columns differently."""
    rng = np.random.default_rng(n_parts)
    vectors = torch.from_numpy(rng.normal(size=(40, dim)) / dim**0.5).float()
    if kind == "linear":
        parts = [LinearPart(f"model-{i}", torch.from_numpy(rng.normal(size=dim)), 0.0) for i in range(n_parts)]
        parts[0] = LinearPart("model-0", parts[0].weights_D, -1e3)
        parts[-1] = LinearPart("last", parts[0].weights_D, -1e3)
        selector = SVMSelector(parts, [])
    else:
        machines = [
            RBFPart(f"model-{i}", torch.from_numpy(rng.normal(size=40)), vectors, 0.0, 1.0) for i in range(n_parts)
        ]
        machines[0] = RBFPart("model-0", machines[0].alpha_S, vectors, -1e3, 1.0)
        machines[-1] = RBFPart("last", machines[0].alpha_S, vectors, -1e3, 1.0)
        selector = SVMSelector([], machines)
    queries_BD = torch.from_numpy(rng.normal(size=(n_queries, dim))).float()
    choice = choose(selector(queries_BD))
    assert choice.model.tolist() == [0] * n_queries
    assert choice.margin.tolist() == [0.0] * n_queries


@pytest.mark.parametrize(("n_linear", "n_rbf"), [(3, 0), (0, 3), (4, 5), (1, 0), (0, 1)])
def test_decision_values_are_those_of_the_reference(engine, decide, n_linear, n_rbf):
    document = random_document(n_linear * 10 + n_rbf, n_linear=n_linear, n_rbf=n_rbf)
    queries_BD = np.random.default_rng(9).normal(size=(60, 20)).astype(np.float32)
    selector = fitted(document)
    scores_BM = selector(torch.from_numpy(queries_BD))
    for scores_M, reading in zip(scores_BM, engine.readings(document, queries_BD), strict=True):
        expected = dict(zip(reading.models, reading.scores, strict=True))
        expected_M = torch.tensor([expected[model] for model in selector.models])
        torch.testing.assert_close(scores_M.double(), expected_M, atol=2e-5, rtol=1e-5)
    for candidates in (None, *([model] for model in selector.models)):
        assert decide(document, queries_BD, candidates) == engine.decide(document, queries_BD, candidates)


def test_only_the_direction_of_a_query_counts(decide):
    document = random_document(1, n_linear=2, n_rbf=3)
    queries_BD = np.random.default_rng(2).normal(size=(40, 20)).astype(np.float32)
    assert decide(document, queries_BD) == decide(document, queries_BD * 1000) == decide(document, queries_BD / 512)


def test_a_vector_of_no_length_is_taken_as_it_is(engine, decide):
    document = document_of([("a", [1e9, 0.0], 0.0), ("b", [0.0, 0.0], -0.5)], [])
    # 1e-11 is under the bound, and too short for a; scaled to unit norm it would be a's
    queries_BD = np.array([[0.0, 0.0], [1e-11, 0.0], [1e-9, 0.0]], np.float32)
    assert decide(document, queries_BD) == engine.decide(document, queries_BD) == ["b", "b", "a"]


def test_the_kernel_type_decides_nothing(decide):
    document = random_document(3, n_linear=3, n_rbf=3)
    queries_BD = np.random.default_rng(4).normal(size=(40, 20)).astype(np.float32)
    assert decide(document | {"kernel_type": "Linear", "gamma": 9.0}, queries_BD) == decide(document, queries_BD)


def test_a_query_on_a_support_vector(decide):
    """A distance that rounding would take below zero; a huge gamma would make it count."""
    vector = np.random.default_rng(5).normal(size=(1, 300))
    vector /= np.linalg.norm(vector)
    document = document_of([("b", np.zeros(300), -1.01)], [("a", [1.0], vector, 0.0, 1e6)])
    assert decide(document, vector.astype(np.float32)) == ["b"]


def test_blocks_and_single_queries_decide_like_a_batch(monkeypatch):
    selector = SVMSelector(
        [LinearPart("a", torch.randn(30, dtype=torch.float64), 0.1)],
        [RBFPart(name, torch.randn(50, dtype=torch.float64), torch.randn(50, 30), 0.2, 0.5) for name in "bcd"],
    )
    queries_BD = torch.randn(64, 30)
    together = selector(queries_BD)
    alone = torch.cat([selector(query[None]) for query in queries_BD])
    monkeypatch.setattr(svm, "_BLOCK_ELEMENTS", 500)
    in_blocks = selector(queries_BD)
    for other in (alone, in_blocks):
        torch.testing.assert_close(together, other)
        assert torch.equal(choose(together).model, choose(other).model)
    assert selector(queries_BD[:0]).shape == (0, 4)


@pytest.mark.interpreted
@pytest.mark.parametrize(("n_linear", "n_rbf"), [(0, 3), (4, 5)])
def test_the_kernel_scores_like_the_products(monkeypatch, n_linear, n_rbf):
    selector = fitted(random_document(7, n_linear=n_linear, n_rbf=n_rbf, dim=3))
    queries_BD = torch.from_numpy(np.random.default_rng(9).normal(size=(30, 3))).float()
    expected_BM = selector(queries_BD)
    monkeypatch.setattr(selector, "impl", "triton")
    torch.testing.assert_close(selector(queries_BD), expected_BM, atol=1e-5, rtol=1e-5)
    assert selector(queries_BD[:0]).shape == (0, len(selector.models))


@pytest.mark.interpreted
def test_the_kernels_layout_of_the_vectors_is_made_again_after_a_move(monkeypatch):
    selector = fitted(random_document(7, n_linear=0, n_rbf=2, dim=3))
    monkeypatch.setattr(selector, "impl", "triton")
    queries_BD = torch.from_numpy(np.random.default_rng(9).normal(size=(5, 3))).float()
    assert (selector(queries_BD) + selector.rho_F).abs().max() > 0.1
    selector._apply(torch.zeros_like)
    assert selector(queries_BD).abs().max() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_equal_classifiers_have_equal_scores():
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(400, 1038)) / 1038**0.5).float()
    parts = [RBFPart(f"model-{i}", torch.from_numpy(rng.normal(size=400)), vectors, 0.0, 1.0) for i in range(9)]
    parts[-1] = RBFPart("last", parts[0].alpha_S, vectors, 0.0, 1.0)
    scores_BM = SVMSelector([], parts).cuda()(torch.from_numpy(rng.normal(size=(300, 1038))).float().cuda())
    assert torch.equal(scores_BM[:, 0], scores_BM[:, -1])
