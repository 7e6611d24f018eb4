"""The package's front: options, `fit` and what files say about themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable, RecordCounts, pack_digests, query_digests
from gpu_select.training import KMeansSettings, KNNSettings, SVMSettings, TrainOptions, fit, provenance
from gpu_select.wire import KMeansFile, KNNFile, MLPFile, SVMFile

MODELS = ["careful", "hasty"]


def trade_off(n: int = 60) -> tuple[torch.Tensor, OutcomeTable]:
    """Features, and outcomes of which the slow model has all the quality and the fast one all the speed."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, 9))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = np.hstack([rows, np.eye(14)[np.full(n, 6)]]).astype(np.float32)
    quality = np.column_stack([np.full(n, 0.9), np.full(n, 0.6)])
    latency = np.column_stack([rng.uniform(4.0, 5.0, n), rng.uniform(0.1, 0.2, n)])
    return torch.from_numpy(features), OutcomeTable([f"q{i}" for i in range(n)], ["law"] * n, MODELS, quality, latency)


def decisions(algorithm: str, options: TrainOptions) -> set[str]:
    features, table = trade_off()
    selector = selector_of(fit(algorithm, features, table, options, {}))
    return {selector.models[m] for m in selector(features).argmax(dim=1).tolist()}


@pytest.mark.parametrize(
    ("algorithm", "kernel"), [("knn", "rbf"), ("kmeans", "rbf"), ("svm", "rbf"), ("svm", "linear"), ("mlp", "rbf")]
)
def test_the_quality_weight_decides_between_quality_and_speed(algorithm, kernel):
    for weight, model in ((1.0, "careful"), (0.9, "careful"), (0.5, "hasty"), (0.0, "hasty")):
        options = TrainOptions(quality_weight=weight, svm=SVMSettings(kernel=kernel))
        assert decisions(algorithm, options) == {model}, weight


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("knn", KNNFile), ("kmeans", KMeansFile), ("svm", SVMFile), ("mlp", MLPFile)]
)
def test_each_algorithm_gives_its_file_with_our_own_note(algorithm, kind):
    features, table = trade_off()
    document = fit(algorithm, features, table, TrainOptions(knn=KNNSettings(k=7)), {"note": 1})
    assert type(document) is kind
    assert document.own == {"note": 1}


def test_options_reach_the_files():
    features, table = trade_off()
    options = TrainOptions().changed(
        {
            "knn": {"k": 7, "domain_weight": 0.5},
            "kmeans": {"clusters": 3},
            "svm": {"gamma": 2.5},
            "mlp": {"hidden_sizes": [5, 4], "members": 2, "dropout": 0.25, "epochs": 1},
        }
    )
    knn = fit("knn", features, table, options, {})
    assert (knn.k, set(knn.embeddings_ND[:, -8])) == (7, {0.5})
    assert len(fit("kmeans", features, table, options, {}).centroids_KD) == 3
    assert fit("svm", features, table, options, {}).gamma == 2.5
    linear = TrainOptions(svm=SVMSettings(kernel="linear"))
    assert fit("svm", features, table, linear, {}).kernel_type == "Linear"
    mlp = fit("mlp", features, table, options, {})
    assert (mlp.hidden_sizes, mlp.dropout) == ([10, 8], 0.25)


def test_an_unknown_algorithm_is_refused():
    features, table = trade_off()
    with pytest.raises(ConfigError, match=r"^algorithm: expected one of knn, kmeans, svm, mlp, got 'tree'$"):
        fit("tree", features, table, TrainOptions(), {})


def test_the_seed_matters_to_kmeans_and_mlp_and_to_knn_beyond_the_landmarks():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((300, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = torch.from_numpy(np.hstack([rows, np.eye(14)[rng.integers(14, size=300)]]).astype(np.float32))
    table = OutcomeTable(
        [str(i) for i in range(300)], ["law"] * 300, ["a", "b", "c"], rng.random((300, 3)), rng.random((300, 3))
    )
    first, second = (TrainOptions(seed=seed, kmeans=KMeansSettings(clusters=9)) for seed in (0, 1))
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
    mlp = [fit("mlp", features, table, options, {}).layers[0].weight_OI for options in (first, second, first)]
    np.testing.assert_array_equal(mlp[0], mlp[2])
    assert not np.array_equal(mlp[0], mlp[1])


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
@pytest.mark.parametrize("n_queries", [1, 2, 3])
@pytest.mark.parametrize("n_models", [1, 2])
def test_the_smallest_tables_make_files_that_decide(algorithm, n_queries, n_models):
    features, table = trade_off(n_queries)
    table = OutcomeTable(
        table.queries,
        table.domains,
        MODELS[:n_models],
        table.quality_QM[:, :n_models],
        table.latency_s_QM[:, :n_models],
    )
    selector = selector_of(fit(algorithm, features, table, TrainOptions(), {}))
    chosen = [selector.models[m] for m in selector(features).argmax(dim=1).tolist()]
    assert chosen == ["careful"] * n_queries


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_outcomes_that_never_differ_make_a_file_that_decides(algorithm):
    features, table = trade_off(40)
    alike = OutcomeTable(table.queries, table.domains, MODELS, np.full((40, 2), 0.5), np.full((40, 2), 1.0))
    selector = selector_of(fit(algorithm, features, alike, TrainOptions(), {}))
    assert {selector.models[m] for m in selector(features).argmax(dim=1).tolist()} == {"careful"}


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_a_model_that_nobody_asked_is_not_chosen_over_one_that_gains(algorithm):
    features, table = trade_off(200)
    quality = np.column_stack([table.quality_QM, np.full(200, np.nan)])
    unknown = OutcomeTable(table.queries, table.domains, [*MODELS, "new"], quality, np.full((200, 3), 1.0))
    selector = selector_of(fit(algorithm, features, unknown, TrainOptions(), {}))
    assert {selector.models[m] for m in selector(features).argmax(dim=1).tolist()} == {"careful"}


def test_provenance_says_encoder_domains_options_and_data_and_is_plain_json():
    _, table = trade_off()
    counts = RecordCounts(records=125, queries=60, models=2, skipped=5)
    options = TrainOptions(knn=KNNSettings(k=100))
    note = provenance(
        encoder_name="minilm", fingerprint="ab" * 32, dim=384, table=table, counts=counts, options=options
    )
    assert note == {
        "encoder": {"name": "minilm", "fingerprint": "ab" * 32, "dim": 384},
        "domains": list(WIRE_ORDER),
        "options": options.as_mapping(),
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
