"""The layers in order on the feature as it is, the first of equal outputs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.selectors import BatchNorm, Linear, MLPSelector, ReLU, choose

MODELS = ["b", "a", "c"]


def linear(weight, bias=None):
    weight = np.asarray(weight)
    n_out, n_in = weight.shape
    bias = None if bias is None else np.asarray(bias).tolist()
    return {"type": "linear", "in_features": n_in, "out_features": n_out, "weight": weight.tolist(), "bias": bias}


def norm(weight, bias, mean, var, eps):
    vectors = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    lists = {name: np.asarray(vector).tolist() for name, vector in vectors.items()}
    return {"type": "batch_norm", "num_features": len(lists["bias"]), **lists, "eps": eps}


RELU = {"type": "relu"}
DROPOUT = {"type": "dropout", "p": 0.5}


def document_of(layers, models=MODELS):
    linears = [layer for layer in layers if layer["type"] == "linear"]
    return {
        "algorithm": "mlp",
        "trained": True,
        "model_names": models,
        "feature_dim": linears[0]["in_features"],
        "n_classes": len(models),
        "hidden_sizes": [layer["out_features"] for layer in linears[:-1]],
        "dropout": 0.5,
        "layers": layers,
    }


def random_layers(rng, kinds, sizes):
    """Layers by letters: l linear, n batch norm, r relu, d dropout; `sizes` are the widths between linear layers."""
    layers, sizes = [], list(sizes)
    width = sizes.pop(0)
    for kind in kinds:
        if kind == "l":
            n_out = sizes.pop(0)
            bias = rng.normal(size=n_out) / 5 if rng.random() < 0.7 else None
            layers.append(linear(rng.normal(size=(n_out, width)).astype(np.float32) / width**0.5, bias))
            width = n_out
        elif kind == "n":
            bias, mean = rng.normal(size=(2, width)) / 5
            layers.append(norm(rng.normal(size=width), bias, mean, rng.random(width) + 0.1, 1e-3))
        else:
            layers.append(RELU if kind == "r" else DROPOUT)
    return layers


ARCHITECTURES = [
    ("l", [20, 3]),
    ("lrl", [20, 7, 3]),
    ("lnrdl", [20, 33, 3]),
    ("lnrdlnrdl", [20, 64, 31, 3]),
    ("nl", [20, 3]),
    ("nlrnl", [20, 9, 3]),
    ("lrnrl", [20, 9, 3]),
    ("lnnl", [20, 5, 3]),
    ("lnrln", [20, 9, 3]),
    ("lrlr", [20, 9, 3]),
    ("lrlrn", [20, 9, 3]),
    ("rnrdlrl", [20, 9, 3]),
    ("ll", [20, 2, 3]),
]


@pytest.mark.parametrize(("kinds", "sizes"), ARCHITECTURES)
def test_scores_and_decisions_are_those_of_the_reference(engine, decide, tmp_path, kinds, sizes):
    rng = np.random.default_rng(sum(map(ord, kinds)))
    document = document_of(random_layers(rng, kinds, sizes))
    queries_BD = rng.normal(size=(80, 20)).astype(np.float32)
    expected_BM = np.stack([reading.scores for reading in engine.readings(document, queries_BD)])
    clear_B = np.diff(np.sort(expected_BM, axis=1))[:, -1] > 1e-4
    assert clear_B.mean() > 0.3  # behind a last relu all may be zero
    if not kinds.endswith("r"):
        assert clear_B.mean() > 0.9
    found, expected = decide(document, queries_BD), engine.decide(document, queries_BD)
    assert found == expected
    assert len(set(found)) > 1
    for candidates in (["a", "c"], ["c"]):
        assert decide(document, queries_BD, candidates) == engine.decide(document, queries_BD, candidates)
    scores_BM = selector_of(document)(torch.from_numpy(queries_BD)).double()
    torch.testing.assert_close(scores_BM, torch.from_numpy(expected_BM), atol=2e-4, rtol=1e-4)


def selector_of(document):
    layers = []
    for layer in document["layers"]:
        if layer["type"] == "linear":
            bias = None if layer["bias"] is None else torch.tensor(layer["bias"], dtype=torch.float64)
            layers.append(Linear(torch.tensor(layer["weight"]), bias))
        elif layer["type"] == "batch_norm":
            names = "weight", "bias", "running_mean", "running_var"
            vectors = (torch.tensor(layer[name], dtype=torch.float64) for name in names)
            layers.append(BatchNorm(*vectors, layer["eps"]))
        elif layer["type"] == "relu":
            layers.append(ReLU())
    return MLPSelector(document["model_names"], layers)


def test_batch_norm_next_to_a_linear_layer_costs_nothing():
    rng = np.random.default_rng(0)
    n_steps = {
        kinds: len(selector_of(document_of(random_layers(rng, kinds, sizes))).steps) for kinds, sizes in ARCHITECTURES
    }
    assert (n_steps["lnrdlnrdl"], n_steps["nl"], n_steps["lnrln"], n_steps["nlrnl"]) == (5, 1, 3, 3)
    assert n_steps["lrnrl"] == 5, "between two relu there is nothing to fold it into"


@st.composite
def problems(draw):
    """Whole numbers and a batch norm of unit scale: nothing is rounded, and ties are common."""
    small = st.sampled_from([0.0, 1.0, -1.0, 2.0])
    dim, hidden = draw(st.integers(1, 3)), draw(st.integers(1, 4))

    def drawn(*shape):
        return draw(hnp.arrays(np.float32, shape, elements=small))

    layers = [linear(drawn(hidden, dim), drawn(hidden))]
    if draw(st.booleans()):
        layers.append(norm(drawn(hidden), drawn(hidden), drawn(hidden), np.full(hidden, 0.75), 0.25))
    layers += [RELU, DROPOUT, linear(drawn(3, hidden), drawn(3) if draw(st.booleans()) else None)]
    candidates = draw(st.none() | st.lists(st.sampled_from(MODELS), min_size=1))
    return document_of(layers), drawn(4, dim), candidates


@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_ties_go_to_the_first_model(engine, decide, problem):
    assert decide(*problem) == engine.decide(*problem)


@pytest.mark.parametrize("n_queries", [1, 7, 64])
@pytest.mark.parametrize(("n_models", "width"), [(2, 5), (17, 64), (33, 384), (65, 1038)])
@pytest.mark.parametrize("tail", ["", "r", "n"])
def test_of_equal_outputs_the_first_wins(n_models, width, tail, n_queries):
    """A product of matrices may round equal columns differently."""
    rng = np.random.default_rng(n_models)
    weight = rng.normal(size=(n_models, width)).astype(np.float32)
    weight[-1] = weight[0]
    bias = rng.normal(size=n_models)
    bias[[0, -1]] = 1e3
    layers = [linear(weight, bias)]
    if tail == "n":
        vectors = rng.normal(size=(3, n_models)) / 10
        vectors[:, 0] = vectors[:, -1] = 1.0
        layers.append(norm(*vectors, np.ones(n_models), 1e-5))
    elif tail:
        layers.append(RELU)
    selector = selector_of(document_of(layers, [f"model-{i}" for i in range(n_models)]))
    choice = choose(selector(torch.from_numpy(rng.normal(size=(n_queries, width))).float()))
    assert choice.model.tolist() == [0] * n_queries
    assert choice.margin.tolist() == [0.0] * n_queries


def test_the_raw_feature_counts_not_its_direction(decide):
    document = document_of([linear([[1.0], [0.0]], [0.0, 1.5])], ["long", "short"])
    assert decide(document, np.array([[1.0], [2.0], [-9.0]], np.float32)) == ["short", "long", "short"]


def test_single_queries_decide_like_a_batch():
    selector = selector_of(document_of(random_layers(np.random.default_rng(3), "lnrdlrl", [30, 65, 17, 3])))
    queries_BD = torch.randn(64, 30)
    together = selector(queries_BD)
    alone = torch.cat([selector(query[None]) for query in queries_BD])
    torch.testing.assert_close(together, alone)
    assert torch.equal(choose(together).model, choose(alone).model)


def test_a_deterministic_selector_gives_a_query_the_same_bits_in_any_batch():
    selector = selector_of(document_of(random_layers(np.random.default_rng(3), "lnrdlrnrl", [398, 65, 33, 3])))
    selector.deterministic = True
    queries_BD = torch.randn(600, 398)
    together = selector(queries_BD)
    order = torch.randperm(600)
    assert torch.equal(selector(queries_BD[order]), together[order])
    assert torch.equal(torch.cat([selector(query[None]) for query in queries_BD[:40]]), together[:40])


def test_a_copy_scores_the_same():
    selector = selector_of(document_of(random_layers(np.random.default_rng(5), "lrl", [20, 9, 3])))
    queries_BD = torch.randn(9, 20)
    expected = selector(queries_BD)
    assert torch.equal(copy.deepcopy(selector)(queries_BD), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_equal_outputs_stay_equal():
    rng = np.random.default_rng(0)
    layers = random_layers(rng, "lnrl", [1038, 512, 9])
    layers[-1]["weight"][-1] = layers[-1]["weight"][0]
    layers[-1]["bias"] = None
    selector = selector_of(document_of(layers, [f"model-{i}" for i in range(9)])).cuda()
    scores_BM = selector(torch.from_numpy(rng.normal(size=(300, 1038))).float().cuda())
    assert torch.equal(scores_BM[:, 0], scores_BM[:, -1])
