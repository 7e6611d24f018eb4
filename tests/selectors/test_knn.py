"""The votes of the nearest rows: weights, sums, ties, and candidates."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.selectors import KNNSelector, choose

MODELS = ["a", "b", "c"]
COORDINATES = st.sampled_from([0.0, 1.0, -1.0])
QUALITIES = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0, 2.5])
SECONDS = st.integers(0, 5)

needs_faiss = pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss")
each_backend = pytest.mark.parametrize("backend", ["torch", pytest.param("faiss", marks=needs_faiss)])


def document_of(embeddings_ND, labels, *, k, qualities=None, latencies=None):
    document = {"algorithm": "knn", "trained": True, "k": k, "embeddings": np.asarray(embeddings_ND).tolist()}
    document["labels"] = labels
    if qualities is not None:
        document["qualities"] = qualities
    if latencies is not None:
        document["latencies"] = latencies
    return document


@st.composite
def problems(draw):
    n, dim, n_queries = draw(st.integers(1, 20)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    labels = draw(st.lists(st.sampled_from(MODELS), min_size=n, max_size=n))
    document = document_of(
        draw(hnp.arrays(np.float32, (n, dim), elements=COORDINATES)),
        labels,
        k=draw(st.integers(1, n + 3)),
        qualities=draw(st.none() | st.lists(QUALITIES, min_size=n, max_size=n)),
        latencies=draw(st.none() | st.lists(SECONDS.map(lambda s: s * 10**9), min_size=n, max_size=n)),
    )
    queries_BD = draw(hnp.arrays(np.float32, (n_queries, dim), elements=COORDINATES))
    return document, queries_BD, draw(st.none() | st.lists(st.sampled_from(sorted(set(labels))), min_size=1))


@each_backend
@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_the_first_model_with_the_most_votes_wins(engine, decide, backend, problem):
    decided = decide(*problem, backend=backend)
    for model, reading in zip(decided, engine.readings(*problem), strict=True):
        # equal votes may differ by rounding in the engine's sum: the first of all that are as good as equal
        best = reading.scores.max()
        assert model == reading.models[int(np.argmax(reading.scores > best - 1e-9))]


def test_at_equal_votes_the_model_of_the_first_row_wins(decide):
    rows = [[9.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    document = document_of(rows, ["b", "a", "c", "b", "a"], k=5, qualities=[0.0, 0.5, 1.0, 1.0, 0.5])
    query = np.zeros((1, 2), np.float32)
    assert decide(document, query) == ["b"]
    # without the far row, a and c and b have one vote each, of unequal quality; c comes before the b that is left
    assert decide(document | {"k": 4}, query) == ["a"]
    document = document_of(rows, ["b", "a", "c", "b", "a"], k=4, qualities=[0.0, 0.3, 0.7, 0.7, 0.2])
    assert decide(document, query) == ["b"], "b owns the first row, though that row has no vote here"


def test_equal_sets_of_votes_are_equal_in_any_order(decide):
    """Sums that differ by rounding alone must not decide."""
    qualities = [0.1, 0.7, 0.3, 0.3, 0.1, 0.7]
    latencies = [3, 1_000_000_007, 77, 77, 3, 1_000_000_007]
    query = np.zeros((1, 1), np.float32)
    for labels in (["a", "a", "a", "b", "b", "b"], ["b", "b", "b", "a", "a", "a"]):
        document = document_of([[1.0]] * 6, labels, k=6, qualities=qualities, latencies=latencies)
        assert decide(document, query) == [labels[0]]


@pytest.mark.parametrize("faster_by", [1_000_000, 1_000, 10])
def test_nanoseconds_decide_where_qualities_are_equal(engine, decide, faster_by):
    """One part in a thousand million of the span: less than a float32 vote could tell."""
    latencies = [0, 10**10, 5 * 10**9, 5 * 10**9 - faster_by]
    document = document_of([[9.0], [8.0], [0.1], [0.1]], ["x", "y", "slow", "fast"], k=2, latencies=latencies)
    query = np.zeros((1, 1), np.float32)
    assert decide(document, query) == engine.decide(document, query) == ["fast"]


def test_weights_by_hand():
    selector = KNNSelector(
        torch.zeros(5, 1),
        ["a", "b", "c", "d", "e"],
        n_neighbors=5,
        qualities_N=torch.tensor([-3.0, 0.0, 0.5, 1.0, 4.0], dtype=torch.float64),
        latencies_ns_N=torch.tensor([100, 200, 300, 150, 100]),
    )
    scores_M = selector(torch.zeros(1, 1))[0]
    torch.testing.assert_close(scores_M, torch.tensor([0.109, 0.059, 0.45, 0.975, 3.7]))


def test_missing_fields_by_hand():
    def score(**fields):
        return float(KNNSelector(torch.zeros(1, 1), ["a"], n_neighbors=3, **fields)(torch.zeros(1, 1)))

    assert score() == pytest.approx(0.55)
    assert score(qualities_N=torch.tensor([1.0], dtype=torch.float64)) == pytest.approx(1.0)
    assert score(latencies_ns_N=torch.tensor([7])) == pytest.approx(0.55)


def test_latencies_of_any_64_bits():
    extremes = torch.tensor([-(2**63), 2**63 - 1])
    selector = KNNSelector(torch.zeros(2, 1), ["a", "b"], n_neighbors=2, latencies_ns_N=extremes)
    torch.testing.assert_close(selector(torch.zeros(1, 1)), torch.tensor([[0.55, 0.45]]))


@each_backend
def test_candidates_restrict_the_search_not_the_scale(engine, decide, backend):
    """The rows of others do not use up k, but their latencies still set the scale."""
    rng = np.random.default_rng(3)
    labels = [MODELS[i] for i in rng.integers(0, 3, 60)]
    document = document_of(
        rng.normal(size=(60, 4)).astype(np.float32),
        labels,
        k=7,
        qualities=rng.random(60).tolist(),
        latencies=rng.integers(1, 10**10, 60).tolist(),
    )
    queries_BD = rng.normal(size=(50, 4)).astype(np.float32)
    decisions = set()
    for candidates in (["a"], ["b", "c"], ["c", "a"], MODELS, None):
        decided = decide(document, queries_BD, candidates, backend)
        assert decided == engine.decide(document, queries_BD, candidates)
        assert candidates is None or set(decided) == set(candidates)
        decisions.add(tuple(decided))
    assert len(decisions) == 4


@each_backend
def test_a_file_with_every_query_once_per_model(engine, decide, backend):
    """As the older trainer writes them: k rows are one or two queries, and many votes are at equal distance."""
    rng = np.random.default_rng(4)
    embeddings_ND = np.repeat(rng.normal(size=(200, 16)).astype(np.float32), 3, axis=0)
    document = document_of(
        embeddings_ND, MODELS * 200, k=5, qualities=rng.random(600).round(2).tolist(), latencies=[10**9] * 600
    )
    queries_BD = np.concatenate([embeddings_ND[::30], rng.normal(size=(100, 16)).astype(np.float32)])
    assert decide(document, queries_BD, backend=backend) == engine.decide(document, queries_BD)


@each_backend
def test_each_query_may_have_its_own_candidates(backend):
    rng = np.random.default_rng(6)
    labels = [MODELS[i] for i in rng.integers(0, 3, 40)]
    selector = KNNSelector(torch.randn(40, 3), labels, n_neighbors=4, backend=backend)
    queries_BD = torch.randn(30, 3)
    masks_BM = torch.rand(30, 3) < 0.5
    masks_BM[~masks_BM.any(dim=1), 0] = True
    together = selector(queries_BD, masks_BM)
    alone = torch.cat([selector(query[None], mask) for query, mask in zip(queries_BD, masks_BM, strict=True)])
    assert torch.equal(together, alone)
    assert masks_BM.gather(1, choose(together).model[:, None]).all()


def test_all_rows_vote_where_k_is_larger():
    selector = KNNSelector(torch.tensor([[0.0], [1.0], [2.0]]), ["a", "b", "b"], n_neighbors=10**30)
    torch.testing.assert_close(selector(torch.zeros(1, 1)), torch.tensor([[0.55, 1.1]]))


def test_sums_that_only_rounding_tells_apart_are_equal(decide):
    """0.55 + 0.5 against twice 0.525: the first model wins, as in exact arithmetic."""
    document = document_of(
        [[0.0, 0.0]] * 5 + [[9.0, 9.0]],
        ["b", "a", "b", "c", "a", "a"],
        k=5,
        latencies=[second * 10**9 for second in (1, 2, 3, 1, 2, 5)],
    )
    assert decide(document, np.zeros((1, 2), np.float32)) == ["b"]
    # a microsecond still counts
    faster = document | {"latencies": [10**9, 2 * 10**9 - 1000, 3 * 10**9, 10**9, 2 * 10**9, 5 * 10**9]}
    assert decide(faster, np.zeros((1, 2), np.float32)) == ["a"]


@each_backend
@pytest.mark.parametrize("k", [1, 7, 60, 10**30])
def test_with_another_k_it_is_the_selector_of_that_k(backend, k):
    rng = np.random.default_rng(7)
    labels = [MODELS[i] for i in rng.integers(0, 3, 60)]
    rows, votes = torch.randn(60, 5), torch.from_numpy(rng.random(60))
    selector = KNNSelector(rows, labels, n_neighbors=4, qualities_N=votes, backend=backend)
    before = selector(rows)
    other = selector.with_neighbors(k)
    expected = KNNSelector(rows, labels, n_neighbors=k, qualities_N=votes, backend=backend)
    queries_BD = torch.randn(30, 5)
    assert torch.equal(other(queries_BD), expected(queries_BD))
    assert other.index is selector.index
    assert (selector.n_neighbors, other.n_neighbors) == (4, k)
    assert torch.equal(selector(rows), before)
