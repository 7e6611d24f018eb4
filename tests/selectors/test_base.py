"""What all selectors share: the choice, its margin, candidates, checks, and decisions that nothing waits for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.errors import CandidateError, DimensionError
from gpu_select.selectors import (
    BatchNorm,
    KMeansSelector,
    KNNSelector,
    Linear,
    LinearPart,
    MLPSelector,
    RBFPart,
    ReLU,
    SVMSelector,
    choose,
)
from gpu_select.selectors.base import distinct_rows, exact_float32, rounded

MODELS = ("a", "b", "c")


def knn():
    return KNNSelector(torch.randn(30, 4), [MODELS[i % 3] for i in range(30)], n_neighbors=5)


def kmeans():
    return KMeansSelector(torch.randn(9, 4), [MODELS[i % 3] for i in range(9)])


def svm():
    linear = [LinearPart(name, torch.randn(4, dtype=torch.float64), 0.0) for name in MODELS]
    return SVMSelector(linear, [RBFPart("b", torch.randn(6, dtype=torch.float64), torch.randn(6, 4), 0.1, 1.0)])


def mlp():
    norm = BatchNorm(torch.randn(7), torch.randn(7), torch.randn(7), torch.rand(7), 1e-5)
    return MLPSelector(MODELS, [Linear(torch.randn(7, 4)), ReLU(), norm, ReLU(), Linear(torch.randn(3, 7))])


each_selector = pytest.mark.parametrize("make", [knn, kmeans, svm, mlp])


class RecordsOperations(TorchDispatchMode):
    """The names of all operations that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_the_first_of_equal_scores_is_chosen():
    scores_BM = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-math.inf, -5.0, -math.inf], [0.0, -1.0, 4.5]])
    choice = choose(scores_BM)
    assert choice.model.tolist() == [1, 0, 1, 2]
    assert choice.score.tolist() == [3.0, 2.0, -5.0, 4.5]
    assert choice.margin.tolist() == [0.0, 0.0, math.inf, 4.5]


def test_a_single_model_has_no_runner_up():
    assert choose(torch.tensor([[2.0], [-1.0]])) == (
        pytest.approx(torch.tensor([0, 0])),
        pytest.approx(torch.tensor([2.0, -1.0])),
        pytest.approx(torch.tensor([math.inf, math.inf])),
    )


def test_no_queries():
    assert [column.shape for column in choose(torch.empty(0, 3))] == [(0,), (0,), (0,)]


@each_selector
def test_no_queries_no_scores(make):
    assert make()(torch.empty(0, 4)).shape == (0, 3)
    assert make()(torch.empty(0, 4), torch.tensor([True, False, True])).shape == (0, 3)


@each_selector
def test_candidates_are_the_only_choice(make):
    selector, queries_BD = make(), torch.randn(50, 4)
    free = choose(selector(queries_BD))
    for names in (["b"], ["c", "a"], ["a", "b", "c"]):
        scores_BM = selector(queries_BD, selector.candidate_mask(names))
        choice = choose(scores_BM)
        assert {selector.models[m] for m in choice.model.tolist()} <= set(names)
        assert torch.isfinite(choice.score).all()
        others = [m for m, name in enumerate(selector.models) if name not in names]
        assert (scores_BM[:, others] == -torch.inf).all()
        # who wins against all wins against some
        kept = torch.tensor([selector.models[m] in names for m in free.model.tolist()])
        if make is not knn:
            assert torch.equal(choice.model[kept], free.model[kept])
        assert torch.isinf(choice.margin).all() == (len(names) == 1)


@each_selector
def test_all_candidates_are_no_restriction(make):
    selector, queries_BD = make(), torch.randn(50, 4)
    assert torch.equal(selector(queries_BD), selector(queries_BD, selector.candidate_mask(MODELS)))


@each_selector
@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "candidates: expected at least one of a, b, c, got none"),
        (["a", "gpt-9"], "candidates: expected names out of a, b, c, got 'gpt-9'"),
        ([""], "candidates: expected names out of a, b, c, got ''"),
        (["A"], "candidates: expected names out of a, b, c, got 'A'"),
    ],
)
def test_candidates_that_cannot_be(make, names, text):
    with pytest.raises(CandidateError) as caught:
        make().candidate_mask(names)
    assert str(caught.value) == text


@each_selector
@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (4,), (0,), (1, 2, 4)])
def test_features_of_another_width(make, shape):
    selector = make()
    with pytest.raises(DimensionError) as caught:
        selector(torch.zeros(shape))
    expected = f"features: expected shape (B, 4) for this {selector.algorithm} file, got {shape}"
    assert str(caught.value) == expected


@each_selector
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_decided_in_float32(make, dtype):
    selector, queries_BD = make(), torch.randn(20, 4).to(dtype)
    scores_BM = selector(queries_BD)
    assert scores_BM.dtype == torch.float32
    assert torch.equal(scores_BM, selector(queries_BD.float()))


@each_selector
def test_a_low_precision_of_the_process_is_set_aside(make):
    selector, queries_BD = make(), torch.randn(20, 4)
    expected = selector(queries_BD)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(selector(queries_BD), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_precision_comes_back_after_an_error():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(KeyError), exact_float32():
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@each_selector
def test_nothing_is_asked_of_the_device(make, monkeypatch):
    """On a device each of these operations stalls the queue; a CPU may take the shortcuts that need them."""
    selector, queries_BD = make(), torch.randn(20, 4)
    mask = selector.candidate_mask(["a", "b"])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with RecordsOperations() as operations:
        choose(selector(queries_BD))
        choose(selector(queries_BD, mask))
    assert "argmax" in operations.names
    # lift_fresh: a number or list that became a tensor, so a copy from the host
    stalls = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "lift_fresh"}
    assert operations.names & stalls == set()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_selector
def test_decisions_on_a_device_are_those_on_the_cpu_and_nothing_waits(make):
    selector, queries_BD = make(), torch.randn(50, 4)
    expected = choose(selector(queries_BD)).model
    selector.to("cuda")
    queries_BD, mask = queries_BD.cuda(), selector.candidate_mask(MODELS)
    choose(selector(queries_BD))  # the first call may set things up
    torch.cuda.set_sync_debug_mode("error")
    try:
        choices = choose(selector(queries_BD)), choose(selector(queries_BD, mask))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(choice.model.cpu(), expected) for choice in choices)


@given(st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0]), min_size=2, max_size=2), min_size=1, max_size=12))
def test_distinct_rows_come_in_order_of_appearance(rows):
    distinct_UX, place_F = distinct_rows(torch.tensor(rows))
    assert torch.equal(distinct_UX[place_F], torch.tensor(rows))
    firsts = list(dict.fromkeys((abs(x), abs(y)) for x, y in rows))
    assert distinct_UX.abs().tolist() == [list(row) for row in firsts]


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_rounded_scores_decide_like_unrounded_ones(rows):
    scores_BM = 5.0 + torch.tensor(rows, dtype=torch.float64) * 1e-9  # all the same in float32
    scores_BM = torch.cat([scores_BM, torch.full((len(rows), 1), -torch.inf)], dim=1)
    out_BM = rounded(scores_BM)
    assert out_BM.dtype == torch.float32
    assert torch.equal(out_BM.argmax(dim=1), scores_BM.argmax(dim=1))
    torch.testing.assert_close(out_BM.double(), scores_BM, atol=1e-6, rtol=0)


@each_selector
@pytest.mark.parametrize("n", [0, 1, 256, 300])
def test_a_deterministic_selector_scores_tiles_of_the_queries_alone(make, n, monkeypatch):
    selector = make()
    selector.deterministic = True
    queries_BD = torch.randn(n, 4)
    masks = torch.rand(n, 3) < 0.5
    expected = selector(queries_BD), selector(queries_BD, masks)
    seen = []
    original = selector.scores

    def scores(features_BD, candidates_BM):
        seen.append(features_BD)
        return original(features_BD, candidates_BM)

    monkeypatch.setattr(selector, "scores", scores)
    assert torch.equal(selector(queries_BD), expected[0])
    assert torch.equal(selector(queries_BD, masks), expected[1])
    assert len(expected[0]) == n
    # a query of zeros, say, ties with all rows of unit length
    known = {tuple(row) for row in queries_BD.tolist()}
    assert {tuple(row) for tile in seen for row in tile.tolist()} <= known
    assert n == 0 or {len(tile) for tile in seen} == {256}
