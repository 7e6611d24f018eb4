"""The package's front: options, `fit` and what files say about themselves."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable, RecordCounts, pack_digests, query_digests
from gpu_select.training import TrainOptions, fit, provenance
from gpu_select.wire import KMeansFile, KNNFile, SVMFile

MODELS = ["careful", "hasty"]


def trade_off(n: int = 60) -> tuple[torch.Tensor, OutcomeTable]:
    """Features, and outcomes of which the slow model has all the quality and the fast one all the speed."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, 9)).astype(np.float32)
    quality = np.column_stack([np.full(n, 0.9), np.full(n, 0.6)])
    latency = np.column_stack([rng.uniform(4.0, 5.0, n), rng.uniform(0.1, 0.2, n)])
    return torch.from_numpy(features), OutcomeTable([f"q{i}" for i in range(n)], ["law"] * n, MODELS, quality, latency)


def decisions(algorithm: str, options: TrainOptions) -> set[str]:
    features, table = trade_off()
    selector = selector_of(fit(algorithm, features, table, options, {}))
    return {selector.models[m] for m in selector(features).argmax(dim=1).tolist()}


def test_the_documented_defaults():
    assert asdict(TrainOptions()) == {
        "knn_k": 5,
        "kmeans_clusters": 8,
        "svm_kernel": "rbf",
        "svm_gamma": 1.0,
        "quality_weight": 0.9,
        "seed": 0,
    }


def test_all_problems_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        TrainOptions(
            knn_k=0, kmeans_clusters=-3, svm_kernel="poly", svm_gamma=float("nan"), quality_weight=1.5, seed=-1
        )
    assert str(caught.value).split("; ") == [
        "knn-k: expected an integer >= 1, got 0",
        "kmeans-clusters: expected an integer >= 1, got -3",
        "svm-kernel: expected rbf or linear, got 'poly'",
        "svm-gamma: expected a number > 0, got nan",
        "quality-weight: expected a number in [0, 1], got 1.5",
        "seed: expected an integer in [0, 2^63), got -1",
    ]


@pytest.mark.parametrize(
    "bad", [{"svm_gamma": 0.0}, {"svm_gamma": float("inf")}, {"quality_weight": float("nan")}, {"seed": 2**63}]
)
def test_a_value_at_the_edge_is_refused(bad):
    with pytest.raises(ConfigError, match=f"^{next(iter(bad)).replace('_', '-')}: expected "):
        TrainOptions(**bad)


@pytest.mark.parametrize(
    ("algorithm", "kernel"), [("knn", "rbf"), ("kmeans", "rbf"), ("svm", "rbf"), ("svm", "linear")]
)
def test_the_quality_weight_decides_between_quality_and_speed(algorithm, kernel):
    assert decisions(algorithm, TrainOptions(quality_weight=1.0, svm_kernel=kernel)) == {"careful"}
    assert decisions(algorithm, TrainOptions(quality_weight=0.9, svm_kernel=kernel)) == {"careful"}
    assert decisions(algorithm, TrainOptions(quality_weight=0.5, svm_kernel=kernel)) == {"hasty"}
    assert decisions(algorithm, TrainOptions(quality_weight=0.0, svm_kernel=kernel)) == {"hasty"}


@pytest.mark.parametrize(("algorithm", "kind"), [("knn", KNNFile), ("kmeans", KMeansFile), ("svm", SVMFile)])
def test_each_algorithm_gives_its_file_with_our_own_note(algorithm, kind):
    features, table = trade_off()
    document = fit(algorithm, features, table, TrainOptions(knn_k=7), {"note": 1})
    assert type(document) is kind
    assert document.own == {"note": 1}


def test_options_reach_the_files():
    features, table = trade_off()
    options = TrainOptions(knn_k=7, kmeans_clusters=3, svm_gamma=2.5)
    assert fit("knn", features, table, options, {}).k == 7
    assert len(fit("kmeans", features, table, options, {}).centroids_KD) == 3
    assert fit("svm", features, table, options, {}).gamma == 2.5
    assert fit("svm", features, table, TrainOptions(svm_kernel="linear"), {}).kernel_type == "Linear"


def test_an_unknown_algorithm_is_refused():
    features, table = trade_off()
    with pytest.raises(ConfigError, match=r"^algorithm: expected one of knn, kmeans, svm, mlp, got 'tree'$"):
        fit("tree", features, table, TrainOptions(), {})


def test_the_seed_matters_to_kmeans_alone():
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.random((300, 5)).astype(np.float32))
    table = OutcomeTable(
        [str(i) for i in range(300)], ["law"] * 300, ["a", "b", "c"], rng.random((300, 3)), rng.random((300, 3))
    )
    first, second = TrainOptions(seed=0, kmeans_clusters=9), TrainOptions(seed=1, kmeans_clusters=9)
    knn = [fit("knn", features, table, options, {}) for options in (first, second)]
    assert knn[0].labels == knn[1].labels
    np.testing.assert_array_equal(knn[0].qualities_N, knn[1].qualities_N)
    svm = [fit("svm", features, table, options, {}) for options in (first, second)]
    for one, other in zip(svm[0].rbf_classifiers, svm[1].rbf_classifiers, strict=True):
        np.testing.assert_array_equal(one.alpha_S, other.alpha_S)
        assert one.rho == other.rho
    kmeans = [fit("kmeans", features, table, options, {}).centroids_KD for options in (first, second, first)]
    np.testing.assert_array_equal(kmeans[0], kmeans[2])
    assert not np.array_equal(kmeans[0], kmeans[1])


def test_provenance_says_encoder_domains_options_and_data_and_is_plain_json():
    _, table = trade_off()
    counts = RecordCounts(records=125, queries=60, models=2, skipped=5)
    options = TrainOptions(knn_k=100)
    note = provenance(
        encoder_name="minilm", fingerprint="ab" * 32, dim=384, table=table, counts=counts, options=options
    )
    assert note == {
        "encoder": {"name": "minilm", "fingerprint": "ab" * 32, "dim": 384},
        "domains": list(WIRE_ORDER),
        "options": asdict(options),
        "data": {
            "records": 120,
            "queries": 60,
            "models": MODELS,
            "query_digests": pack_digests(query_digests(table.queries)),
        },
        "domain_models": {"law": "careful"},
    }
    assert json.loads(json.dumps(note)) == note


def test_the_best_model_of_a_domain_follows_the_quality_weight():
    _, table = trade_off()
    options = TrainOptions(quality_weight=0.0)
    note = provenance(encoder_name="x", fingerprint="", dim=1, table=table, counts=RecordCounts(), options=options)
    assert note["domain_models"] == {"law": "hasty"}
