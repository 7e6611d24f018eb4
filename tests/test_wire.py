"""Selector files: what is written is read, and what is broken is refused with the file, the field and the reason."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.errors import FileFormatError, InputError, MissingDependencyError
from gpu_select.wire import (
    ALGORITHMS,
    BatchNormLayer,
    DropoutLayer,
    KMeansFile,
    KNNFile,
    LinearClassifier,
    LinearLayer,
    MLPFile,
    RBFClassifier,
    ReLULayer,
    SVMFile,
    file_name,
    read_selector_file,
    write_selector_file,
)

KNN = {
    "algorithm": "knn",
    "trained": True,
    "k": 2,
    "embeddings": [[0.5, -1.0], [2.0, 3.5], [0.0, 1e-3]],
    "labels": ["a", "b", "a"],
    "qualities": [0.5, 1.25, -0.5],
    "latencies": [100, 2_000_000_000, 300],
}
KMEANS = {
    "algorithm": "kmeans",
    "trained": True,
    "num_clusters": 2,
    "centroids": [[1.0, 2.0], [3.0, 4.0]],
    "cluster_models": ["a", "b"],
}
LINEAR = {"model_name": "a", "weights": [1.0, -2.0], "rho": 0.5}
RBF = {"model_name": "b", "alpha": [1.0, -0.5], "support_vectors": [[1.0, 0.0], [0.0, 1.0]], "rho": 0.1, "gamma": 1.0}
SVM = {
    "algorithm": "svm",
    "trained": True,
    "model_names": ["a", "b"],
    "kernel_type": "Rbf",
    "gamma": 1.0,
    "linear_classifiers": [LINEAR],
    "rbf_classifiers": [RBF],
}
MLP = {
    "algorithm": "mlp",
    "trained": True,
    "model_names": ["a", "b"],
    "feature_dim": 3,
    "n_classes": 2,
    "hidden_sizes": [2],
    "dropout": 0.25,
    "layers": [
        {
            "type": "linear",
            "in_features": 3,
            "out_features": 2,
            "weight": [[1.0, -2.0, 0.5], [0.0, 3.0, 1e-3]],
            "bias": [0.5, -1.0],
        },
        {
            "type": "batch_norm",
            "num_features": 2,
            "weight": [1.0, 2.0],
            "bias": [0.0, 0.5],
            "running_mean": [0.1, -0.1],
            "running_var": [1.0, 0.0],
            "eps": 1e-5,
        },
        {"type": "relu"},
        {"type": "dropout", "p": 0.25},
        {"type": "linear", "in_features": 2, "out_features": 2, "weight": [[1.0, 0.0], [0.0, 1.0]], "bias": None},
    ],
}
DOCUMENTS = {"knn": KNN, "kmeans": KMEANS, "svm": SVM, "mlp": MLP}

MISSING = object()
needs_zstandard = pytest.mark.skipif(not importlib.util.find_spec("zstandard"), reason="needs zstandard")
each_algorithm = pytest.mark.parametrize("algorithm", DOCUMENTS)


def changed(document, field, value):
    """A deep copy with one field (`labels`, `linear_classifiers.0.rho`) set, or left out for MISSING."""
    copy = json.loads(json.dumps(document))
    *path, last = field.split(".")
    part = copy
    for step in path:
        part = part[int(step) if step.isdigit() else step]
    if value is MISSING:
        del part[last]
    else:
        part[int(last) if last.isdigit() else last] = value
    return copy


@pytest.fixture
def read(tmp_path):
    """Call with a document, a text or bytes: what reading a file of it gives."""

    def read_file(content, algorithm=None):
        if isinstance(content, dict):
            content = json.dumps(content)
        path = tmp_path / "model.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_selector_file(path, algorithm)

    return read_file


@pytest.fixture
def refuse(tmp_path, read):
    """Call with what a file holds: the text of the FileFormatError, less the file's name."""

    def refused(content, algorithm=None):
        with pytest.raises(FileFormatError) as caught:
            read(content, algorithm)
        text = str(caught.value)
        assert "\n" not in text
        assert text.startswith(f"{tmp_path / 'model.json'}: ")
        return text.removeprefix(f"{tmp_path / 'model.json'}: ")

    return refused


# ---------------------------------------------------------------- what is right


def test_knn_fields(read):
    document = read(KNN)
    assert isinstance(document, KNNFile)
    assert document.k == 2
    assert document.labels == ["a", "b", "a"]
    assert document.embeddings_ND.dtype == np.float32
    np.testing.assert_array_equal(document.embeddings_ND, np.float32(KNN["embeddings"]))
    assert document.qualities_N.dtype == np.float64
    assert document.qualities_N.tolist() == KNN["qualities"]
    assert document.latencies_ns_N.dtype == np.int64
    assert document.latencies_ns_N.tolist() == KNN["latencies"]
    assert document.own == {}


@pytest.mark.parametrize("value", [MISSING, None, []])
def test_optional_knn_fields(read, value):
    """Engines take an empty list for one that is not there."""
    document = read(changed(changed(KNN, "qualities", value), "latencies", value))
    assert document.qualities_N is None
    assert document.latencies_ns_N is None


def test_kmeans_fields(read):
    document = read(KMEANS)
    assert isinstance(document, KMeansFile)
    assert document.cluster_models == ["a", "b"]
    assert document.centroids_KD.tolist() == KMEANS["centroids"]


def test_svm_fields(read):
    document = read(SVM)
    assert isinstance(document, SVMFile)
    assert (document.model_names, document.kernel_type, document.gamma) == (["a", "b"], "Rbf", 1.0)
    (linear,), (rbf,) = document.linear_classifiers, document.rbf_classifiers
    assert (linear.model_name, linear.weights_D.tolist(), linear.rho) == ("a", [1.0, -2.0], 0.5)
    assert (rbf.model_name, rbf.alpha_S.tolist(), rbf.rho, rbf.gamma) == ("b", [1.0, -0.5], 0.1, 1.0)
    assert rbf.support_vectors_SD.tolist() == RBF["support_vectors"]


def test_mlp_fields(read):
    document = read(MLP)
    assert isinstance(document, MLPFile)
    assert (document.model_names, document.dropout) == (["a", "b"], 0.25)
    assert (document.feature_dim, document.hidden_sizes) == (3, [2])
    first, norm, relu, dropout, last = document.layers
    assert (first.weight_OI.dtype, first.weight_OI.tolist()) == (
        np.float32,
        np.float32(MLP["layers"][0]["weight"]).tolist(),
    )
    assert first.bias_O.tolist() == [0.5, -1.0]
    assert (norm.weight_W.tolist(), norm.bias_W.tolist(), norm.eps) == ([1.0, 2.0], [0.0, 0.5], 1e-5)
    assert (norm.running_mean_W.tolist(), norm.running_var_W.tolist()) == ([0.1, -0.1], [1.0, 0.0])
    assert (relu, dropout) == (ReLULayer(), DropoutLayer(0.25))
    assert (last.weight_OI.tolist(), last.bias_O) == ([[1, 0], [0, 1]], None)


def test_a_single_layer_is_enough(read):
    linear = {"type": "linear", "in_features": 3, "out_features": 2, "weight": [[1, 2, 3], [4, 5, 6]]}
    document = read(MLP | {"hidden_sizes": [], "layers": [linear]})
    assert (document.hidden_sizes, document.layers[0].bias_O) == ([], None)
    assert document.layers[0].weight_OI.tolist() == linear["weight"]


@pytest.mark.parametrize("layers", [[1, [2]], [], "x", {"weight": [["x"]]}, [{"weight": ["x"]}, 3], [["weight"]]])
@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm"])
def test_layers_and_weights_of_other_files_are_ignored(read, algorithm, layers):
    assert read(DOCUMENTS[algorithm] | {"layers": layers, "weight": [["x"]]}).own == {}


@pytest.mark.parametrize("empty", [MISSING, None, []])
@pytest.mark.parametrize("field", ["linear_classifiers", "rbf_classifiers"])
def test_one_kind_of_classifier_is_enough(read, field, empty):
    document = read(changed(SVM, field, empty))
    assert len(document.linear_classifiers) + len(document.rbf_classifiers) == 1


@each_algorithm
def test_unknown_fields_are_ignored(read, algorithm):
    document = DOCUMENTS[algorithm]
    more = {"version": "1", "note": [1, {"k": None, "algorithm": "none"}, ']}\\"'], "training": {"embeddings": "x"}}
    assert type(read(more | document)) is type(read(document)) is type(read(document | more))
    assert read(document | {"gpu_select": {"encoder": {"name": "x"}}}).own == {"encoder": {"name": "x"}}


def test_unknown_fields_of_a_classifier_are_ignored(read):
    document = changed(SVM, "rbf_classifiers.0.n_support", [1, 2])
    assert read(changed(document, "linear_classifiers.0.linear_classifiers", [{"a": 1}])).rbf_classifiers[0].gamma == 1


@each_algorithm
def test_any_layout_of_json(read, algorithm):
    document = DOCUMENTS[algorithm]
    expected = read(document)
    texts = [json.dumps(document, indent=3), json.dumps(document, separators=(",", ":"))]
    texts += [f"\n\t {json.dumps(dict(reversed(document.items())))}\r\n ", json.dumps(document).replace('"', '"', 1)]
    texts.append(json.dumps(document).replace('"trained"', '"\\u0074rained"'))
    for text in texts:
        assert vars_of(read(text)) == vars_of(expected)


def vars_of(document):
    """A document as plain values, to compare."""
    if isinstance(document, np.ndarray):
        return (document.dtype.str, document.tolist())
    if isinstance(document, list):
        return [vars_of(item) for item in document]
    return {k: vars_of(v) for k, v in vars(document).items()} if hasattr(document, "__dict__") else document


def test_numbers_of_every_notation(read):
    text = json.dumps(KMEANS).replace("[[1.0, 2.0]", "[[1, -2.5e-1], [1E2, -0]").replace(": 2", ": 3")
    document = read(text.replace('["a", "b"]', '["a", "b", "c"]'))
    assert document.centroids_KD.tolist() == [[1, -0.25], [100, 0], [3, 4]]


def test_integers_beyond_64_bits_are_numbers(read):
    large = 2**49 * 10**0
    assert read(changed(KMEANS, "centroids.0", [large, -large])).centroids_KD[0].tolist() == [2.0**49, -(2.0**49)]


def test_unicode_model_names(read):
    names = ["qwen/模型-7b", 'a"b\\c\n', "😀"]
    for text in (
        json.dumps(changed(KNN, "labels", names)),
        json.dumps(changed(KNN, "labels", names), ensure_ascii=False),
    ):
        assert read(text).labels == names


def test_rows_shorter_and_longer_in_bytes_than_the_first(read):
    """The number of rows is guessed from the first row's length in bytes."""
    for first, rest in (([1.0, 2.0], [0.123456789, -0.987654321]), ([0.123456789, -0.987654321], [1.0, 2.0])):
        rows = [first] + [rest] * 500
        document = read(
            changed(changed(changed(KNN, "embeddings", rows), "labels", ["a"] * 501), "qualities", [])
            | {"latencies": []}
        )
        np.testing.assert_array_equal(document.embeddings_ND, np.float32(rows))


def test_file_names():
    assert tuple(DOCUMENTS) == ALGORITHMS
    assert [file_name(algorithm) for algorithm in ALGORITHMS] == [
        "knn_model.json",
        "kmeans_model.json",
        "svm_model.json",
        "mlp_model.json",
    ]


# ---------------------------------------------------------------- what is wrong

NUMBER = "a finite number of at most 1e+15 in magnitude"
NUMBERS = "finite numbers of at most 1e+15 in magnitude"

FAULTS = [
    # what all files have
    (KNN, "algorithm", MISSING, "algorithm: expected a text, got no such field"),
    (KNN, "algorithm", "tree", "algorithm: expected 'knn' or 'kmeans' or 'svm' or 'mlp', got 'tree'"),
    (KNN, "algorithm", "KNN", "algorithm: expected 'knn' or 'kmeans' or 'svm' or 'mlp', got 'KNN'"),
    (KNN, "algorithm", 1, "algorithm: expected a text, got 1"),
    (KNN, "trained", False, "trained: expected true, got False"),
    (KMEANS, "trained", MISSING, "trained: expected true, got no such field"),
    (SVM, "trained", 1, "trained: expected true, got 1"),
    (SVM, "trained", "true", "trained: expected true, got 'true'"),
    (KNN, "gpu_select", [1], "gpu_select: expected a JSON object, got [1]"),
    # knn
    (KNN, "k", 0, "k: expected an integer >= 1, got 0"),
    (KNN, "k", -3, "k: expected an integer >= 1, got -3"),
    (KNN, "k", 5.0, "k: expected an integer >= 1, got 5.0"),
    (KNN, "k", True, "k: expected an integer >= 1, got True"),
    (KNN, "k", "5", "k: expected an integer >= 1, got '5'"),
    (KNN, "k", MISSING, "k: expected an integer >= 1, got no such field"),
    (KNN, "labels", ["a"], "labels: expected 3 entries, as many as embeddings, got 1"),
    (KNN, "labels", ["a"] * 4, "labels: expected 3 entries, as many as embeddings, got 4"),
    (KNN, "labels", MISSING, "labels: expected a list of model names, got no such field"),
    (KNN, "labels", "aba", "labels: expected a list of model names, got 'aba'"),
    (KNN, "labels.1", None, "labels[1]: expected a model name, got None"),
    (KNN, "labels.1", "", "labels[1]: expected a model name, got ''"),
    (KNN, "labels.2", 7, "labels[2]: expected a model name, got 7"),
    (KNN, "qualities", [0.5], "qualities: expected 3 entries, as many as embeddings, got 1"),
    (KNN, "qualities.1", None, "qualities[1]: expected a number, got None"),
    (KNN, "qualities.1", True, "qualities[1]: expected a number, got True"),
    (KNN, "qualities.2", "1", "qualities[2]: expected a number, got '1'"),
    (KNN, "qualities.2", [1], "qualities[2]: expected a number, got [1]"),
    (KNN, "qualities.0", 1e16, f"qualities[0]: expected {NUMBERS}, got 1e+16"),
    (KNN, "qualities.0", 10**400, f"qualities: expected {NUMBERS}, got an integer beyond float64"),
    (KNN, "qualities", {}, "qualities: expected a list of numbers, got {}"),
    (KNN, "qualities", 0, "qualities: expected a list of numbers, got 0"),
    (KNN, "latencies", [1, 2], "latencies: expected 3 entries, as many as embeddings, got 2"),
    (KNN, "latencies.1", 1e9, "latencies[1]: expected an integer, got 1000000000.0"),
    (KNN, "latencies.1", False, "latencies[1]: expected an integer, got False"),
    (KNN, "latencies.1", None, "latencies[1]: expected an integer, got None"),
    (KNN, "latencies.1", 2**63, "latencies: expected integers of 64 bits, got a larger one"),
    (KNN, "latencies", False, "latencies: expected a list of integers, got False"),
    (KNN, "embeddings", MISSING, "embeddings: expected a list of rows of numbers, got no such field"),
    (KNN, "embeddings", None, "embeddings: expected a list of rows of numbers, got None"),
    (KNN, "embeddings", {}, "embeddings: expected a list of rows of numbers, got {}"),
    (KNN, "embeddings", [], "embeddings: expected at least one row of at least one number, got 0 x 0"),
    (KNN, "embeddings", [[], [], []], "embeddings: expected at least one row of at least one number, got 3 x 0"),
    (KNN, "embeddings.1", [2.0], "embeddings[1]: expected 2 numbers like row 0, got 1"),
    (KNN, "embeddings.2", [2.0, 3.0, 4.0], "embeddings[2]: expected 2 numbers like row 0, got 3"),
    (KNN, "embeddings.2", [], "embeddings[2]: expected 2 numbers like row 0, got 0"),
    (KNN, "embeddings.1", [2.0, None], "embeddings[1]: expected a list of numbers, got [2.0, None]"),
    (KNN, "embeddings.1", [True, 2.0], "embeddings[1]: expected a list of numbers, got [True, 2.0]"),
    (KNN, "embeddings.0", [False, False], "embeddings[0]: expected a list of numbers, got [False, False]"),
    (KNN, "embeddings.1", [2.0, "3"], "embeddings[1]: expected a list of numbers, got [2.0, '3']"),
    (KNN, "embeddings.1", 7, "embeddings[1]: expected a list of numbers, got '7, [0.0, 0.001]], \"l' at byte "),
    (KNN, "embeddings.1", None, "embeddings[1]: expected a list of numbers, got 'null, [0.0, 0.001]],' at byte "),
    (KNN, "embeddings.1", [2.0, [3.0]], "embeddings[1]: expected valid JSON, got "),
    (KNN, "embeddings.1", [2.0, {}], "embeddings[1]: expected a list of numbers, got [2.0, {}]"),
    (KNN, "embeddings.1", [2.0, 1e39], f"embeddings[1]: expected {NUMBERS}, got a larger one"),
    (KNN, "embeddings.1", [2.0, -2e15], f"embeddings[1]: expected {NUMBERS}, got a larger one"),
    (KNN, "embeddings.1", [2.0, 10**400], f"embeddings[1]: expected {NUMBERS}, got an integer beyond float64"),
    # kmeans
    (KMEANS, "num_clusters", 3, "num_clusters: expected 2, the number of centroids, got 3"),
    (KMEANS, "num_clusters", 0, "num_clusters: expected an integer >= 1, got 0"),
    (KMEANS, "num_clusters", 2.0, "num_clusters: expected an integer >= 1, got 2.0"),
    (KMEANS, "num_clusters", MISSING, "num_clusters: expected an integer >= 1, got no such field"),
    (KMEANS, "cluster_models", ["a"], "cluster_models: expected 2 entries, as many as centroids, got 1"),
    (KMEANS, "centroids", [], "centroids: expected at least one row of at least one number, got 0 x 0"),
    (KMEANS, "centroids.1", [1.0], "centroids[1]: expected 2 numbers like row 0, got 1"),
    # svm
    (SVM, "kernel_type", "rbf", "kernel_type: expected 'Rbf' or 'Linear', got 'rbf'"),
    (SVM, "kernel_type", MISSING, "kernel_type: expected a text, got no such field"),
    (SVM, "gamma", MISSING, f"gamma: expected {NUMBER}, got no such field"),
    (SVM, "gamma", "auto", f"gamma: expected {NUMBER}, got 'auto'"),
    (SVM, "gamma", True, f"gamma: expected {NUMBER}, got True"),
    (SVM, "gamma", 10**400, f"gamma: expected {NUMBER}, got 1000000000"),
    (SVM, "model_names", MISSING, "model_names: expected a list of model names, got no such field"),
    (SVM, "model_names.1", 3, "model_names[1]: expected a model name, got 3"),
    (SVM, "linear_classifiers", {}, "linear_classifiers: expected a list of classifiers, got {}"),
    (SVM, "rbf_classifiers.0", 3, "rbf_classifiers[0]: expected a JSON object, got '3]}' at byte "),
    (SVM, "linear_classifiers.0.weights", MISSING, "linear_classifiers[0].weights: expected a list of numbers, got no"),
    (SVM, "linear_classifiers.0.weights.1", None, "linear_classifiers[0].weights[1]: expected a number, got None"),
    (SVM, "linear_classifiers.0.weights.1", 1e39, f"linear_classifiers[0].weights[1]: expected {NUMBERS}, got 1e+39"),
    (
        SVM,
        "linear_classifiers.0.weights",
        [1.0],
        "rbf_classifiers[0].support_vectors: expected 1 dimensions, as many as linear_classifiers[0].weights, got 2",
    ),
    (
        SVM,
        "linear_classifiers.0.weights",
        [],
        "linear_classifiers[0].weights: expected at least 1 dimensions, as many as linear_classifiers[0].weights, got",
    ),
    (SVM, "linear_classifiers.0.rho", MISSING, f"linear_classifiers[0].rho: expected {NUMBER}, got no such field"),
    (SVM, "linear_classifiers.0.rho", -1e39, f"linear_classifiers[0].rho: expected {NUMBER}, got -1e+39"),
    (SVM, "linear_classifiers.0.model_name", None, "linear_classifiers[0].model_name: expected a text, got None"),
    (SVM, "rbf_classifiers.0.gamma", MISSING, f"rbf_classifiers[0].gamma: expected {NUMBER}, got no such field"),
    (SVM, "rbf_classifiers.0.gamma", -0.5, "rbf_classifiers[0].gamma: expected a number >= 0, got -0.5"),
    (SVM, "rbf_classifiers.0.alpha", [1.0], "rbf_classifiers[0].alpha: expected 2 entries, as many as support_vectors"),
    (
        SVM,
        "rbf_classifiers.0.support_vectors.1",
        [1.0],
        "rbf_classifiers[0].support_vectors[1]: expected 2 numbers like",
    ),
    (SVM, "rbf_classifiers.0.support_vectors", [], "rbf_classifiers[0].support_vectors: expected at least one row"),
    # mlp
    (MLP, "trained", False, "trained: expected true, got False"),
    (MLP, "model_names", MISSING, "model_names: expected a list of model names, got no such field"),
    (MLP, "model_names", [], "model_names: expected at least one model name, got none"),
    (MLP, "model_names.1", "a", "model_names[1]: expected each model once, got 'a'"),
    (MLP, "model_names.1", "", "model_names[1]: expected a model name, got ''"),
    (MLP, "n_classes", 3, "n_classes: expected 2, the number of model_names, got 3"),
    (MLP, "n_classes", 2.0, "n_classes: expected an integer >= 1, got 2.0"),
    (MLP, "n_classes", MISSING, "n_classes: expected an integer >= 1, got no such field"),
    (MLP, "feature_dim", 0, "feature_dim: expected an integer >= 1, got 0"),
    (MLP, "feature_dim", "3", "feature_dim: expected an integer >= 1, got '3'"),
    (MLP, "feature_dim", MISSING, "feature_dim: expected an integer >= 1, got no such field"),
    (MLP, "feature_dim", 4, "layers[0].in_features: expected 4, as many as feature_dim, got 3"),
    (MLP, "hidden_sizes", MISSING, "hidden_sizes: expected a list of integers, got no such field"),
    (MLP, "hidden_sizes", 2, "hidden_sizes: expected a list of integers, got 2"),
    (MLP, "hidden_sizes", [2.0], "hidden_sizes[0]: expected an integer, got 2.0"),
    (MLP, "hidden_sizes", [True], "hidden_sizes[0]: expected an integer, got True"),
    (MLP, "hidden_sizes", [0], "hidden_sizes[0]: expected an integer >= 1, got 0"),
    (MLP, "hidden_sizes", [], "hidden_sizes: expected [2], the outputs of the linear layers but the last, got []"),
    (MLP, "hidden_sizes", [3], "hidden_sizes: expected [2], the outputs of the linear layers but the last, got [3]"),
    (MLP, "hidden_sizes", [2, 2], "hidden_sizes: expected [2], the outputs of the linear layers but the last, got [2,"),
    (MLP, "dropout", MISSING, f"dropout: expected {NUMBER}, got no such field"),
    (MLP, "dropout", None, f"dropout: expected {NUMBER}, got None"),
    (MLP, "dropout", 1.0, "dropout: expected a number in [0, 1), got 1"),
    (MLP, "dropout", -0.1, "dropout: expected a number in [0, 1), got -0.1"),
    (MLP, "layers", MISSING, "layers: expected at least one linear layer, got 0 layers, none of them linear"),
    (MLP, "layers", [], "layers: expected at least one linear layer, got 0 layers, none of them linear"),
    (
        MLP,
        "layers",
        [{"type": "relu"}],
        "layers: expected at least one linear layer, got 1 layers, none of them linear",
    ),
    (MLP, "layers", {}, "layers: expected a list of layers, got {}"),
    (MLP, "layers", [[]], "layers[0]: expected a JSON object, got []"),
    (MLP, "layers.0", 7, "layers[0]: expected a JSON object, got 7"),
    (MLP, "layers.2", 7, "layers[2]: expected a JSON object, got 7"),
    (MLP, "layers.2", None, "layers[2]: expected a JSON object, got None"),
    (MLP, "layers.2", {}, "layers[2].type: expected a text, got no such field"),
    (MLP, "layers.2.type", 3, "layers[2].type: expected a text, got 3"),
    (
        MLP,
        "layers.2.type",
        "gelu",
        "layers[2].type: expected 'linear' or 'relu' or 'batch_norm' or 'dropout', got 'gelu'",
    ),
    (MLP, "layers.3.p", MISSING, f"layers[3].p: expected {NUMBER}, got no such field"),
    (MLP, "layers.3.p", 1, "layers[3].p: expected a number in [0, 1), got 1"),
    (MLP, "layers.3.p", -0.5, "layers[3].p: expected a number in [0, 1), got -0.5"),
    (MLP, "layers.0.in_features", 2, "layers[0].in_features: expected 3, as many as feature_dim, got 2"),
    (MLP, "layers.0.in_features", MISSING, "layers[0].in_features: expected an integer >= 1, got no such field"),
    (MLP, "layers.4.in_features", 3, "layers[4].in_features: expected 2, as many as layers[0].out_features, got 3"),
    (MLP, "layers.0.out_features", 2.0, "layers[0].out_features: expected an integer >= 1, got 2.0"),
    (
        MLP,
        "layers.0.out_features",
        3,
        "layers[0].weight: expected 3 x 3 numbers, out_features x in_features, got 2 x 3",
    ),
    (
        MLP,
        "layers.0.weight",
        [[1, 2], [3, 4]],
        "layers[0].weight: expected 2 x 3 numbers, out_features x in_features, got 2 x 2",
    ),
    (MLP, "layers.0.weight.1", [1, 2], "layers[0].weight[1]: expected 3 numbers like row 0, got 2"),
    (MLP, "layers.0.weight.1", [1, 2, None], "layers[0].weight[1]: expected a list of numbers, got [1, 2, None]"),
    (MLP, "layers.0.weight.1", [1, 2, 1e39], f"layers[0].weight[1]: expected {NUMBERS}, got a larger one"),
    (MLP, "layers.0.weight.1", 7, "layers[0].weight[1]: expected a list of numbers, got '7], "),
    (MLP, "layers.0.weight", [1, 2], "layers[0].weight: expected a list of rows of numbers, got [1, 2]"),
    (MLP, "layers.0.weight", [], "layers[0].weight: expected a list of rows of numbers, got []"),
    (MLP, "layers.0.weight", [[], []], "layers[0].weight: expected at least one row of at least one number, got 2 x 0"),
    (MLP, "layers.0.weight", None, "layers[0].weight: expected a list of rows of numbers, got None"),
    (MLP, "layers.0.weight", MISSING, "layers[0].weight: expected a list of rows of numbers, got no such field"),
    (MLP, "layers.0.bias", [1], "layers[0].bias: expected 2 entries, as many as out_features, got 1"),
    (MLP, "layers.0.bias", 0, "layers[0].bias: expected a list of numbers, got 0"),
    (MLP, "layers.0.bias.1", None, "layers[0].bias[1]: expected a number, got None"),
    (MLP, "layers.0.bias.1", 1e16, f"layers[0].bias[1]: expected {NUMBERS}, got 1e+16"),
    (MLP, "layers.1.num_features", 3, "layers[1].num_features: expected 2, as many as layers[0].out_features, got 3"),
    (MLP, "layers.1.num_features", MISSING, "layers[1].num_features: expected an integer >= 1, got no such field"),
    (MLP, "layers.1.weight", [[1, 2]], "layers[1].weight: expected a list of numbers, got rows of numbers"),
    (MLP, "layers.1.weight", [1], "layers[1].weight: expected 2 entries, as many as num_features, got 1"),
    (MLP, "layers.1.weight", None, "layers[1].weight: expected a list of numbers, got None"),
    (MLP, "layers.1.bias", MISSING, "layers[1].bias: expected a list of numbers, got no such field"),
    (MLP, "layers.1.running_mean", MISSING, "layers[1].running_mean: expected a list of numbers, got no such field"),
    (MLP, "layers.1.running_mean", [1], "layers[1].running_mean: expected 2 entries, as many as num_features, got 1"),
    (MLP, "layers.1.running_var", MISSING, "layers[1].running_var: expected a list of numbers, got no such field"),
    (MLP, "layers.1.running_var", [1] * 3, "layers[1].running_var: expected 2 entries, as many as num_features, got 3"),
    (MLP, "layers.1.running_var.1", -1e-9, "layers[1].running_var[1]: expected a number >= 0, got -1e-09"),
    (MLP, "layers.1.running_var.1", None, "layers[1].running_var[1]: expected a number, got None"),
    (MLP, "layers.1.eps", MISSING, f"layers[1].eps: expected {NUMBER}, got no such field"),
    (MLP, "layers.1.eps", 0, "layers[1].eps: expected a number > 0, got 0"),
    (MLP, "layers.1.eps", -1e-5, "layers[1].eps: expected a number > 0, got -1e-05"),
    (
        MLP,
        "layers.1.eps",
        1e-300,
        "layers[1].weight: expected outputs of at most 1e+30 for features of at most 1, as float32",
    ),
    (
        MLP,
        "layers.4",
        {"type": "linear", "in_features": 2, "out_features": 3, "weight": [[1, 0], [0, 1], [1, 1]], "bias": None},
        "layers[4].out_features: expected 2, as n_classes for the last, got 3",
    ),
]


@pytest.mark.parametrize(("document", "field", "value", "text"), FAULTS, ids=lambda value: str(value)[:30])
def test_faults_of_a_field(refuse, document, field, value, text):
    refused = refuse(changed(document, field, value))
    assert refused == text or (not text.endswith("field") and refused.startswith(text))


def test_no_classifier(refuse):
    for empty in ([], None):
        document = SVM | {"linear_classifiers": empty, "rbf_classifiers": empty}
        assert refuse(document) == "rbf_classifiers: expected at least one classifier in one of the two lists, got none"


def test_an_empty_model_name_of_a_classifier(refuse):
    text = "linear_classifiers[0].model_name: expected a model name, got ''"
    assert refuse(changed(SVM, "linear_classifiers.0.model_name", "")) == text


def test_another_algorithm_than_asked_for(read, refuse):
    assert refuse(KNN, "svm") == "algorithm: expected 'svm', got 'knn'"
    assert isinstance(read(KNN, "knn"), KNNFile)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "nan", "inf", "1e400", "-1e999", "01", "1.", "+1", "0x1"]
)
@pytest.mark.parametrize("place", ["embeddings", "qualities", "k", "unknown"])
def test_numbers_that_json_has_not(refuse, number, place):
    text = {
        "embeddings": json.dumps(KNN).replace("-1.0]", f"{number}]"),
        "qualities": json.dumps(KNN).replace("1.25", number),
        "k": json.dumps(KNN).replace('"k": 2', f'"k": {number}'),
        "unknown": json.dumps(KNN).replace('"k": 2', f'"k": 2, "unknown": [{number}]'),
    }[place]
    assert number in text
    field = "embeddings[0]" if place == "embeddings" else place
    assert re.match(rf"{re.escape(field)}: expected valid JSON, got .* near byte \d+", refuse(text))


@each_algorithm
def test_duplicate_fields(refuse, algorithm):
    for field, value in DOCUMENTS[algorithm].items():
        text = f"{json.dumps(DOCUMENTS[algorithm])[:-1]}, {json.dumps(field)}: {json.dumps(value)}}}"
        assert refuse(text) == f"{field}: expected each field once, got the same field twice"
    twice = json.dumps(DOCUMENTS[algorithm]).replace('"trained": true', '"trained": true, "\\u0074rained": true')
    assert refuse(twice) == "trained: expected each field once, got the same field twice"
    unknown = json.dumps(DOCUMENTS[algorithm])[:-1] + ', "x": 1, "x": 1}'
    assert refuse(unknown) == "x: expected each field once, got the same field twice"


def test_duplicate_fields_of_a_classifier(refuse):
    text = json.dumps(SVM).replace('"alpha"', '"rho": 0.1, "alpha"')
    assert refuse(text) == "rbf_classifiers[0].rho: expected each field once, got the same field twice"


def test_duplicate_fields_of_a_layer(refuse):
    text = json.dumps(MLP).replace('"eps"', '"eps": 1, "eps"')
    assert refuse(text) == "layers[1].eps: expected each field once, got the same field twice"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_numbers_of_a_layer_that_json_has_not(refuse, number):
    for place, field in (("0.001", "weight[1]"), ("-1.0]", "bias")):
        text = json.dumps(MLP).replace(place, number + place[4:])
        assert re.match(rf"layers\[0\]\.{re.escape(field)}: expected valid JSON, got .* near byte \d+", refuse(text))


def test_a_network_whose_outputs_would_not_be_finite(read, refuse):
    """Numbers that are fine by themselves multiply."""
    weight = [[1e14] * 3] * 2
    large = changed(MLP, "layers.0.weight", weight)
    assert read(large).feature_dim == 3
    text = refuse(changed(large, "layers.4.weight", [[1e15, 0.0], [0.0, 1.0]]))
    assert text.startswith("layers[4].weight: expected outputs of at most 1e+30 for features of at most 1, as float32")
    assert text.endswith(", got up to 1.9e+32")


BROKEN = {
    b"": "document: expected a JSON object, got the end of the file at byte 0",
    b"  \n": "document: expected a JSON object, got the end of the file at byte 3",
    b"[1, 2]": "document: expected a JSON object, got '[1, 2]' at byte 0",
    b"null": "document: expected a JSON object, got 'null' at byte 0",
    b"\xef\xbb\xbf{}": "document: expected a JSON object, got '\\ufeff{}' at byte 0",
    b"\x1f\x8b\x08\x00": "document: expected a JSON object, got '\\x1f",
    b"{}": "algorithm: expected a text, got no such field",
    b'{"a": 1} x': "document: expected one JSON object and nothing after it, got 'x' at byte 9",
    b'{"a": 1}{}': "document: expected one JSON object and nothing after it, got '{}' at byte 8",
    b'{"a": 1}\x00': "document: expected one JSON object and nothing after it, got '\\x00' at byte 8",
    b'{"a" 1}': "a: expected ':', got '1}' at byte 5",
    b'{"a": }': "a: expected a JSON value, got '}' at byte 6",
    b'{"a": 1,}': "document: expected a field name in double quotes, got '}' at byte 8",
    b"{'a': 1}": "document: expected a field name in double quotes, got \"'a': 1}\" at byte 1",
    b'{"a": 1 "b": 2}': "document: expected ',' or '}', got '\"b\": 2}' at byte 8",
    b'{"a": 1]': "document: expected ',' or '}', got ']' at byte 7",
    b'{"a": nul}': "a: expected valid JSON, got ",
    b'{"a": "x': "a: expected a JSON value, got '\"x' at byte 6",
    b'{"a": [1, {"b": 2}': "a: expected a complete JSON value, got the end of the file",
    b'{"a": [1, "]': "a: expected a complete JSON value, got the end of the file",
    b'{"a": [1}}': "a: expected valid JSON, got ",
    b'{"a": "\xff"}': "a: expected valid JSON, got \"'utf-8' codec can't decode byte 0xff",
    b'{"\xff": 1}': "document: expected valid JSON, got \"'utf-8' codec can't decode byte 0xff",
    b'{"a": "\\ud800"}': "a: expected valid JSON, got 'half of a surrogate pair in a text' near byte 6",
    b'{"a": "\n"}': "a: expected valid JSON, got ",
    b'{"embeddings": [[1, 2]': "embeddings: expected ',' or ']', got the end of the file at byte 22",
    b'{"embeddings": [[1, 2': "embeddings[0]: expected valid JSON, got ",
    b'{"embeddings": [[1, 2],]}': "embeddings[1]: expected a list of numbers, got ']}' at byte 23",
    b'{"embeddings": [[1, 2,]]}': "embeddings[0]: expected valid JSON, got ",
    b'{"embeddings": [[1 2]]}': "embeddings[0]: expected valid JSON, got ",
    b'{"rbf_classifiers": [{]}': "rbf_classifiers[0].: expected a field name in double quotes, got ']}' at byte 22",
    b'{"rbf_classifiers": [{"rho": 1},': "rbf_classifiers[1]: expected a JSON object, got the end of the file at",
}


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content)[:40])
def test_what_is_not_json(refuse, content):
    assert refuse(content).startswith(BROKEN[content])


@pytest.mark.parametrize("depth", [150, 1000, 200_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"rbf_classifiers":', "}]"), ('{"embeddings":[', "]}")]
)
@pytest.mark.parametrize(
    "field", ["unknown", "gpu_select", "rbf_classifiers", "linear_classifiers", "labels", "embeddings", "layers"]
)
def test_deep_nesting(tmp_path, field, opening, closing, depth):
    """A document or one clear line; never a stack that overflows."""
    text = json.dumps({name: value for name, value in SVM.items() if name != field})[:-1]
    path = tmp_path / "model.json"
    path.write_text(f'{text}, "{field}": {opening * depth}1{closing * depth}}}', encoding="utf-8")
    if depth == 150 and len(opening) < 6 and field in ("unknown", "labels"):
        read_selector_file(path)  # deep, but not too deep
    elif depth > 150:
        with pytest.raises(FileFormatError) as caught:
            read_selector_file(path)
        assert str(caught.value).startswith(f"{path}: {field}")


@pytest.mark.parametrize(
    "text",
    ['{"a": [' + '"' + '\\"' * 400_000, '{"a": [' + '"' * 400_001, '{"a": "' + "\\" * 800_001, '{"' + '\\"' * 400_000],
    ids=["open string in a list", "many strings", "backslashes", "open name"],
)
def test_no_text_takes_long_to_refuse(refuse, text):
    """Patterns that try again from every place would take minutes."""
    start = time.perf_counter()
    refuse(text)
    assert time.perf_counter() - start < 5


def test_a_long_text_in_an_unknown_field(read):
    note = 'x\\\\\\"é' * 400_000
    assert read(f'{json.dumps(KNN)[:-1]}, "note": "{note}", "notes": ["{note}"]}}').k == 2


@each_algorithm
def test_a_file_cut_off_anywhere(tmp_path, algorithm):
    data = json.dumps(DOCUMENTS[algorithm] | {"gpu_select": {"a": [1, "é"]}}, ensure_ascii=False).encode()
    path = tmp_path / "model.json"
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(FileFormatError) as caught:
            read_selector_file(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data)
    read_selector_file(path)


@each_algorithm
@settings(max_examples=250, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_bytes_give_a_document_or_an_error(tmp_path_factory, algorithm, changes):
    data = bytearray(json.dumps(DOCUMENTS[algorithm]).encode())
    for place, byte in changes:
        data[place % len(data)] = byte
    check_any(tmp_path_factory, bytes(data))


@settings(max_examples=250, deadline=None)
@given(
    data=st.binary(max_size=60)
    | st.lists(
        st.sampled_from([*'{}[],:"\\ ', "1", "-1e5", "null", "true", '"k"', '"embeddings"', '"rbf_classifiers"'])
    )
    .map("".join)
    .map(lambda text: "{" + text)
    .map(str.encode)
)
def test_any_bytes_give_an_error(tmp_path_factory, data):
    check_any(tmp_path_factory, data)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@each_algorithm
def test_any_value_in_any_field_gives_a_document_or_an_error(tmp_path_factory, algorithm, data):
    document = DOCUMENTS[algorithm]
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=5,
    )
    field = data.draw(st.sampled_from(sorted(document)))
    check_any(tmp_path_factory, json.dumps(document | {field: data.draw(values)}).encode())


def check_any(tmp_path_factory, data, ending=""):
    path = tmp_path_factory.getbasetemp() / f"any_model.json{ending}"
    path.write_bytes(data)
    try:
        document = read_selector_file(path)
    except (FileFormatError, InputError) as error:
        text = str(error)
    else:
        text = ""
        assert all(np.isfinite(value).all() for value in vars(document).values() if isinstance(value, np.ndarray))
    assert "\n" not in text


# ---------------------------------------------------------------- files


def test_a_missing_file_names_the_command(tmp_path):
    path = tmp_path / "models" / "knn_model.json"
    with pytest.raises(InputError) as caught:
        read_selector_file(path)
    expected = f"pretrained model not found: {path} (train it: gpu-select train --data-file RECORDS.jsonl "
    assert str(caught.value) == f"{expected}--output-dir {path.parent})"


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte", "-"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(InputError, match="pretrained model not found"):
        read_selector_file(name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match=f"cannot read {tmp_path}: Is a directory"):
        read_selector_file(tmp_path)


@pytest.mark.parametrize("ending", [".gz", pytest.param(".zst", marks=needs_zstandard)])
@each_algorithm
def test_compressed_files(tmp_path, read, algorithm, ending):
    expected = read(DOCUMENTS[algorithm])
    path = tmp_path / f"model.json{ending}"
    write_selector_file(path, expected)
    assert path.read_bytes()[:1] != b"{"
    assert vars_of(read_selector_file(path)) == vars_of(expected)


@pytest.mark.parametrize("ending", [".gz", pytest.param(".zst", marks=needs_zstandard)])
def test_damaged_compressed_files(tmp_path, read, ending):
    path = tmp_path / f"model.json{ending}"
    rng = np.random.default_rng(0)
    write_selector_file(path, KMeansFile(rng.normal(size=(50, 20)).astype(np.float32), ["a"] * 50))
    whole = path.read_bytes()
    for data in (whole[:-5], whole[: len(whole) // 2], b"{}"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"cannot read {path}: damaged {ending} data") as caught:
            read_selector_file(path)
        assert "\n" not in str(caught.value)


@each_algorithm
@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_changed_bytes_of_a_compressed_file(tmp_path_factory, algorithm, place, byte):
    data = bytearray(gzip.compress(json.dumps(DOCUMENTS[algorithm]).encode(), mtime=0))
    data[place % len(data)] = byte
    check_any(tmp_path_factory, bytes(data), ".gz")


def test_a_compressed_file_that_grows_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_select.wire._MAX_BYTES", 1 << 20)
    path = tmp_path / "model.json.gz"
    path.write_bytes(gzip.compress(json.dumps(KNN).encode() + b" " * (1 << 20)))
    with pytest.raises(InputError, match=f"{path}: more than 0 GiB when decompressed; decompress it first"):
        read_selector_file(path)


def test_zst_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "model.json.zst").write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"a \.zst file needs the package zstandard"):
        read_selector_file(tmp_path / "model.json.zst")


def test_a_file_that_goes_away_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: True)
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_selector_file(tmp_path / "gone.json")


# ---------------------------------------------------------------- writing

FLOATS32 = st.floats(-(2.0**49), 2.0**49, width=32)
FLOATS64 = st.floats(-1e15, 1e15)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
OWN = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=4), st.none() | st.booleans() | st.integers() | NAMES, max_size=2
)


def arrays(shape, elements=FLOATS32, dtype=np.float32):
    return hnp.arrays(dtype, shape, elements=elements)


@st.composite
def knn_files(draw):
    n, dim = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return KNNFile(
        k=draw(st.integers(1, 2**62)),
        embeddings_ND=draw(arrays((n, dim))),
        labels=draw(st.lists(NAMES, min_size=n, max_size=n)),
        qualities_N=draw(st.none() | arrays(n, FLOATS64, np.float64)),
        latencies_ns_N=draw(st.none() | arrays(n, st.integers(-(2**63), 2**63 - 1), np.int64)),
        own=draw(OWN),
    )


@st.composite
def kmeans_files(draw):
    n, dim = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return KMeansFile(draw(arrays((n, dim))), draw(st.lists(NAMES, min_size=n, max_size=n)), draw(OWN))


@st.composite
def svm_files(draw):
    dim = draw(st.integers(1, 4))
    linear = st.builds(LinearClassifier, NAMES, arrays(dim, FLOATS64, np.float64), FLOATS64)

    @st.composite
    def rbf(draw):
        n = draw(st.integers(1, 4))
        alpha, vectors = draw(arrays(n, FLOATS64, np.float64)), draw(arrays((n, dim)))
        return RBFClassifier(draw(NAMES), alpha, vectors, draw(FLOATS64), draw(st.floats(0, 1e15)))

    return SVMFile(
        draw(st.lists(NAMES, max_size=3)),
        draw(st.sampled_from(["Rbf", "Linear"])),
        draw(FLOATS64),
        draw(st.lists(linear, min_size=1, max_size=2)),
        draw(st.lists(rbf(), max_size=2)),
        draw(OWN),
    )


@st.composite
def mlp_files(draw):
    """Numbers small enough for four layers."""
    numbers = st.floats(-1e3, 1e3, width=32)
    width = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    shares = st.floats(0, 1, exclude_max=True)
    layers = []
    for n_out in [*draw(st.lists(st.integers(1, 4), max_size=3)), len(names)]:
        bias = draw(st.none() | arrays(n_out, st.floats(-1e3, 1e3), np.float64))
        layers.append(LinearLayer(draw(arrays((n_out, width), numbers)), bias))
        width = n_out
        vector = arrays(width, st.floats(-1, 1), np.float64)
        norm = st.builds(
            BatchNormLayer, vector, vector, vector, arrays(width, st.floats(0, 1e15), np.float64), st.floats(1e-6, 1e15)
        )
        layers += draw(st.lists(norm | st.just(ReLULayer()) | st.builds(DropoutLayer, shares), max_size=1))
    return MLPFile(names, layers, draw(shares), draw(OWN))


KEYS = {
    "knn": {"algorithm", "trained", "k", "embeddings", "labels", "qualities", "latencies"},
    "kmeans": {"algorithm", "trained", "num_clusters", "centroids", "cluster_models"},
    "svm": {"algorithm", "trained", "model_names", "kernel_type", "gamma", "linear_classifiers", "rbf_classifiers"},
    "mlp": {"algorithm", "trained", "model_names", "feature_dim", "n_classes", "hidden_sizes", "dropout", "layers"},
}
LAYER_KEYS = {layer["type"]: layer.keys() for layer in MLP["layers"]}
OPTIONAL = {"qualities", "latencies", "gpu_select"}


@pytest.mark.parametrize("with_orjson", [True, False])
@settings(max_examples=120, deadline=None)
@given(document=knn_files() | kmeans_files() | svm_files() | mlp_files())
def test_what_is_written_is_read(tmp_path_factory, engine, with_orjson, document):
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    with pytest.MonkeyPatch.context() as patch:
        if not with_orjson:
            patch.setattr("gpu_select.jsonio.orjson", None)
        write_selector_file(path, document)
        assert vars_of(read_selector_file(path)) == vars_of(document)
    plain = engine.load(path)
    keys = KEYS[plain["algorithm"]]
    assert keys - OPTIONAL <= plain.keys() <= keys | OPTIONAL
    assert all(part.keys() == LINEAR.keys() for part in plain.get("linear_classifiers", []))
    assert all(part.keys() == RBF.keys() for part in plain.get("rbf_classifiers", []))
    assert all(layer.keys() == LAYER_KEYS[layer["type"]] for layer in plain.get("layers", []))
    assert plain.get("gpu_select", {}) == document.own


def test_the_same_arrays_give_the_same_bytes(tmp_path, read):
    for number, document in enumerate(DOCUMENTS.values()):
        paths = [tmp_path / f"{number}{i}.json.gz" for i in range(2)]
        for path in paths:
            write_selector_file(path, read(document))
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, read):
    path = tmp_path / "model.json"
    document = read(KNN)
    write_selector_file(path, document)
    before = path.read_bytes()
    document.own["bad"] = object()  # fails at the last field
    with pytest.raises(TypeError):
        write_selector_file(path, document)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.json"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("with_orjson", [True, False])
def test_memory_for_a_file_of_100_mb(tmp_path, with_orjson):
    """The peak may grow by six times the array, the mapped file's own pages among it."""
    dim = 1038
    rng = np.random.default_rng(0)
    rows = [",".join(f"{value:.5f}" for value in rng.normal(scale=0.03, size=dim)) for _ in range(50)]
    n = 101_000_000 // len(rows[0])
    path = tmp_path / "knn_model.json"
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"algorithm": "knn", "trained": true, "k": 5, "embeddings": [')
        stream.write(",".join(f"[{rows[i % 50]}]" for i in range(n)))
        stream.write(f'], "labels": {json.dumps(["a"] * n)}, "qualities": {json.dumps([0.5] * n)}}}')
    assert path.stat().st_size > 100_000_000
    code = f"""
import sys
if not {with_orjson}: sys.modules["orjson"] = None
from gpu_select.wire import read_selector_file
def peak():  # not ru_maxrss, which starts at the parent's peak
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
document = read_selector_file({str(path)!r})
grown = peak() - before
assert document.embeddings_ND.shape == ({n}, {dim}), document.embeddings_ND.shape
print(grown / document.embeddings_ND.nbytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert 1 < float(done.stdout) < 6
