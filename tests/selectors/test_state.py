"""All that a selector has learned is in its `state_dict`, and nothing that it derived survives a change of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

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

DIM, MODELS = 8 + 14, ["a", "b", "c"]


def features(n, seed):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1)
    return torch.cat([embeddings, torch.eye(14)[torch.randint(14, (n,), generator=generator)]], dim=1)


def knn(seed, n_rows=300):
    rng = np.random.default_rng(seed)
    labels = [*MODELS, *(MODELS[i] for i in rng.integers(0, 3, n_rows - 3))]
    return KNNSelector(features(n_rows, seed), labels, n_neighbors=5, qualities_N=torch.from_numpy(rng.random(n_rows)))


def large_knn(seed):
    """Enough rows that groups and bfloat16 take part."""
    return knn(seed, 2500)


def kmeans(seed):
    centroids = features(9, seed)
    centroids[4] = centroids[1]  # of which there is one row
    return KMeansSelector(centroids, MODELS * 3)


def svm(seed):
    generator = torch.Generator().manual_seed(seed)
    linear = [LinearPart("a", torch.randn(DIM, generator=generator).double(), 0.1 * seed)]
    vectors = features(30, seed) / 2**0.5
    rbf = [
        RBFPart(model, torch.randn(30, generator=generator).double(), vectors.clone(), 0.2 * seed, gamma)
        for model, gamma in zip([*MODELS, "b"], (1.0, 1.0, 0.5, 1.0), strict=True)
    ]
    return SVMSelector(linear, rbf)


def mlp(seed):
    generator = torch.Generator().manual_seed(seed)
    norm = BatchNorm(*(torch.rand(12, generator=generator).double() + 0.5 for _ in range(4)), 1e-5)
    layers = [Linear(torch.randn(12, DIM, generator=generator)), ReLU(), norm, ReLU()]
    return MLPSelector(MODELS, [*layers, Linear(torch.randn(3, 12, generator=generator))])


each_selector = pytest.mark.parametrize("make", [knn, large_knn, kmeans, svm, mlp])


def decisions(selector, mask=None):
    return selector(features(200, 99), mask)


@each_selector
def test_loading_gives_the_other_selector_whatever_was_derived_before(make):
    first, second = make(1), make(2)
    mask = first.candidate_mask(["a", "c"])
    expected = decisions(second), decisions(second, mask)
    assert not decisions(first).equal(expected[0])  # and everything is derived now
    decisions(first, mask)
    keys = first.load_state_dict(second.state_dict(), strict=True)
    assert keys.missing_keys == keys.unexpected_keys == []
    assert decisions(first).equal(expected[0])
    assert decisions(first, mask).equal(expected[1])


@each_selector
def test_all_tensors_are_buffers_and_derived_ones_are_no_state(make):
    selector = make(1)
    before = {name: tensor.clone() for name, tensor in selector.state_dict().items()}
    decisions(selector)
    after = selector.state_dict()
    assert before.keys() == after.keys() == dict(selector.named_buffers()).keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert list(selector.parameters()) == []
    for module in selector.modules():
        derived = getattr(module, "derived", ())
        tensors = {name for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
        assert tensors <= set(derived)


@each_selector
def test_a_copy_decides_alike_and_stands_alone(make):
    selector = make(1)
    expected = decisions(selector)
    other = copy.deepcopy(selector)
    assert decisions(other).equal(expected)
    for buffer in other.buffers():
        buffer.zero_()
    assert decisions(selector).equal(expected)


@each_selector
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_dtype_changes_no_decision(make, dtype):
    """A router is moved as a whole, and only its encoder takes the dtype."""
    selector = make(1)
    expected = choose(decisions(selector))
    selector.to(dtype)
    assert {buffer.dtype for buffer in selector.buffers()} <= {torch.float32, torch.int64}
    assert all(map(torch.equal, choose(decisions(selector)), expected))
    assert selector.to("meta", dtype).device.type == "meta"


def test_other_k_after_loading():
    first, second = knn(1), knn(2)
    first.load_state_dict(second.state_dict())
    assert decisions(first.with_neighbors(9)).equal(decisions(second.with_neighbors(9)))


def test_votes_that_are_given_are_those_of_the_rule():
    rows, labels = features(50, 0), [MODELS[i % 3] for i in range(50)]
    qualities = torch.rand(50, dtype=torch.float64)
    by_rule = KNNSelector(rows, labels, n_neighbors=4, qualities_N=qualities)
    votes = 0.9 * qualities.clamp(min=0.01) + 0.1
    given = KNNSelector(rows, labels, n_neighbors=4, votes_N=votes)
    assert given.state_dict()["weight_N"].equal(by_rule.state_dict()["weight_N"])
    assert decisions(given).equal(decisions(by_rule))


def test_faiss_is_no_state_either():
    pytest.importorskip("faiss")
    rows, labels = features(60, 1), [MODELS[i % 3] for i in range(60)]
    first = KNNSelector(rows, labels, n_neighbors=3, backend="faiss")
    second = KNNSelector(features(60, 2), labels, n_neighbors=3, backend="faiss")
    expected = decisions(second)
    other = copy.deepcopy(first)
    assert decisions(other).equal(decisions(first))
    other.load_state_dict(second.state_dict())
    assert decisions(other).equal(expected)


def test_classifiers_may_share_the_table_of_their_vectors():
    vectors = features(40, 3)
    alphas = [torch.randn(40).double() for _ in range(3)]
    shared = [RBFPart(model, alpha, vectors, 0.0, 1.0) for model, alpha in zip(MODELS, alphas, strict=True)]
    apart = [RBFPart(model, alpha, vectors.clone(), 0.0, 1.0) for model, alpha in zip(MODELS, alphas, strict=True)]
    assert decisions(SVMSelector([], shared)).equal(decisions(SVMSelector([], apart)))
