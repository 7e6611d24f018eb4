"""Real routing outcomes: the whole way from records to a table of figures."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_select.artifacts import load_selector, selector_of
from gpu_select.config import read_config
from gpu_select.decision_router import DecisionRouter
from gpu_select.domains import DOMAIN_NAMES
from gpu_select.encoder import EmbeddingCache, embed, load_encoder
from gpu_select.features import build_features
from gpu_select.records import OutcomeTable, query_digests, read_outcomes
from gpu_select.replay import ExpectedOutcomes
from gpu_select.replay.outcomes import mean_interval
from gpu_select.router import route_features
from gpu_select.training import TrainOptions, fit
from gpu_select.training.tuning.folds import assign_folds

ALGORITHMS = ("knn", "kmeans", "svm", "mlp")


@pytest.fixture(scope="session")
def data(shared_dir: Path) -> Path:
    folder = shared_dir / "data"
    if not folder.is_dir():
        pytest.skip("needs the real routing outcomes in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def minilm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder where the embeddings of the slow tests are shared: they take minutes."""
    return tmp_path_factory.mktemp("minilm")


def features_of(table: OutcomeTable, encoder_path: Path, cache_dir: Path) -> np.ndarray:
    encoder = load_encoder(str(encoder_path))
    with EmbeddingCache(cache_dir, encoder.fingerprint, "float32", encoder.dim) as cache:
        vectors = embed(encoder, table.queries, cache=cache).vectors
    return build_features(vectors, torch.from_numpy(table.domain_indices())).numpy()


def figures(path: Path) -> dict[str, float]:
    return {row["name"]: row["mean_quality"] for row in json.loads(path.read_bytes())["strategies"]}


@pytest.mark.parametrize(
    ("name", "n_queries", "n_models", "n_repeated"),
    [
        ("mmlu_pro_train", 4976, 6, 144),
        ("mmlu_pro_dev", 1495, 6, 30),
        ("llmrouter_train", None, 9, None),
    ],
)
def test_all_records_are_usable(data, name, n_queries, n_models, n_repeated):
    table, counts = read_outcomes(data / f"{name}.jsonl.gz", strict=True)
    assert counts.skipped == counts.failed_calls == 0
    assert len(table.models) == n_models
    assert np.isfinite(table.quality_QM).any(axis=1).all()
    if n_queries is not None:
        assert (len(table.queries), counts.repeated, counts.holes) == (n_queries, n_repeated, 0)


@pytest.mark.parametrize("name", ["mmlu_pro_train", "llmrouter_train"])
def test_the_path_from_records_to_a_table(cli, data, tiny_encoder_path, tmp_path, engine, name):
    source = data / f"{name}.jsonl.gz"
    held_out = tmp_path / "held_out.jsonl"
    with gzip.open(source, "rb") as stream:
        held_out.write_bytes(b"".join(islice(stream, 3000, 4200)))
    shared = "--embedding-model", tiny_encoder_path, "--cache-dir", tmp_path / "cache"
    trained = cli("train", "--data-file", source, "--output-dir", tmp_path / "models", "--limit", 300, *shared)
    assert trained.status == 0, trained.err
    assert trained.out.startswith("trained knn, kmeans, svm, mlp on 300 queries x ")
    table_path = tmp_path / "table.json"
    validated = cli(
        *("validate", "--data-file", held_out, "--models-dir", tmp_path / "models", "--json", table_path), *shared
    )
    assert validated.status == 0, validated.err
    found = figures(table_path)
    assert max(found.values()) == found["oracle"]
    table, _ = read_outcomes(held_out)
    features = features_of(table, tiny_encoder_path, tmp_path / "cache")[:50]
    for algorithm in ALGORITHMS:
        path = tmp_path / "models" / f"{algorithm}_model.json"
        assert route_features(load_selector(path).selector, features).models == engine.decide(path, features)


TUNED = """
knn: {k: 5, domain_weight: 1.0, gamma: 2.0, ridge: 3.0}
kmeans: {clusters: 128, domain_weight: 0.25, shrinkage: 300.0, gamma: 1.0, ridge: 10.0}
svm: {kernel: rbf, gamma: 1.0, c: 3.0, label_gamma: 2.0, label_ridge: 3.0}
mlp: {hidden_sizes: [64], label_gamma: 2.0, label_ridge: 3.0}
"""
"""As `tune` chooses on mmlu_pro_train."""


@pytest.mark.slow
def test_every_selector_is_at_least_as_good_as_the_best_single_model(
    cli, data, minilm_path, minilm_cache, tmp_path, engine
):
    """Minutes on two cores: 6,471 queries through the real MiniLM."""
    models, table_path, config = tmp_path / "models", tmp_path / "table.json", tmp_path / "tuned.yaml"
    config.write_text(TUNED)
    shared = "--cache-dir", minilm_cache, "--device", "cpu"
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        trained = cli(
            *("train", "--data-file", data / "mmlu_pro_train.jsonl.gz", "--output-dir", models),
            *("--embedding-model", "minilm", "--config", config, "--no-check", *shared),
        )
        assert trained.status == 0, trained.err
        validated = cli(
            *("validate", "--data-file", data / "mmlu_pro_dev.jsonl.gz", "--models-dir", models),
            *("--json", table_path, "--keep-training-queries", *shared),
        )
    finally:
        torch.set_num_threads(before)
    assert validated.status == 0, validated.err
    found = figures(table_path)
    single = max(value for name, value in found.items() if name.startswith("always:"))
    assert single == pytest.approx(0.4395, abs=5e-5)
    assert found["random"] == pytest.approx(0.405, abs=1e-3)
    assert found["oracle"] == pytest.approx(0.749, abs=1e-3)
    assert found["knn"] >= 0.452
    assert found["kmeans"] >= 0.445
    assert found["svm"] >= 0.456
    assert found["mlp"] >= 0.440
    table, _ = read_outcomes(data / "mmlu_pro_dev.jsonl.gz")
    features = features_of(table, minilm_path, minilm_cache)
    assert len(features) == 1495
    for algorithm in ALGORITHMS:
        path = models / f"{algorithm}_model.json"
        assert route_features(load_selector(path).selector, features).models == engine.decide(path, features)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_model_of_which_thirty_outcomes_are_known_gets_neither_nothing_nor_everything(
    data, minilm_path, minilm_cache, algorithm
):
    """The best model and the poorest one, with all but thirty outcomes hidden, in six draws."""
    table, _ = read_outcomes(data / "mmlu_pro_train.jsonl.gz", limit=3500)
    features = torch.from_numpy(features_of(table, minilm_path, minilm_cache))
    options = TrainOptions(quality_weight=1.0).changed({"knn": {"k": 25}, "kmeans": {"clusters": 32}})
    best, poorest = table.quality_QM.mean(axis=0).argmax(), table.quality_QM.mean(axis=0).argmin()
    n_train = 2500

    def share(model: int, known) -> float:
        quality = table.quality_QM[:n_train].copy()
        hidden = np.ones(n_train, bool)
        hidden[known] = False
        quality[hidden, model] = np.nan
        seen = replace(table.take(np.arange(n_train)), quality_QM=quality)
        selector = selector_of(fit(algorithm, features[:n_train], seen, options, {}))
        chosen = np.array(selector.models)[selector(features[n_train:]).argmax(dim=1).numpy()]
        return float((chosen == table.models[model]).mean())

    draws = [np.random.default_rng(seed).choice(n_train, 30, replace=False) for seed in range(6)]
    of_best, of_poorest = ([share(model, known) for known in draws] for model in (best, poorest))
    # thirty outcomes of right or wrong leave a standard error of nine points, between models of two points' difference:
    # single draws may be far off, the mean of several may not
    assert 0.05 < np.mean(of_best) < 0.6
    assert np.median(of_best) < 0.6
    assert sum(0.001 < s < 0.9 for s in of_best) >= 2
    assert max(of_poorest) < 0.3
    assert np.mean(of_poorest) < 0.1


@pytest.mark.slow
def test_domains_are_predicted_where_queries_come_without(cli, data, minilm_path, minilm_cache, tmp_path):
    """Trained on MMLU-Pro's records, and judged through decisions on queries that were held out."""
    models, config = tmp_path / "models", tmp_path / "config.yaml"
    trained = cli(
        *("train", "--data-file", data / "mmlu_pro_train.jsonl.gz", "--output-dir", models, "--algorithm", "kmeans"),
        *("--embedding-model", "minilm", "--cache-dir", minilm_cache, "--device", "cpu", "--no-check"),
    )
    assert trained.status == 0, trained.err
    assert "trained a domain head on 4976 queries of 14 categories" in trained.out
    table, _ = read_outcomes(data / "mmlu_pro_dev.jsonl.gz")
    rule = "{{name: {0}, rules: {{type: domain, name: {0}}}, algorithm: {{type: kmeans}}, modelRefs: [{1}]}}"
    refs = ", ".join(f"{{model: '{model}'}}" for model in table.models)
    config.write_text(
        f"model_selection: {{ml: {{models_path: '{models}'}}}}\n"
        f"embedding_models: {{qwen3_model_path: '{minilm_path}'}}\n"
        f"decisions: [{', '.join(rule.format(name, refs) for name in DOMAIN_NAMES)}]\n"
    )
    router = DecisionRouter.from_config(read_config(config), encoder="minilm", device="cpu", needs_domains=True)
    with EmbeddingCache(minilm_cache, router.encoder.fingerprint, "float32", router.encoder.dim) as cache:
        prepared = router.prepare(table.queries, tokenize=False)
        decided = router.decide_prepared(prepared, cache=cache).routes().decided()
    assert all(one.decision == one.domain and not one.domain_given for one in decided)
    accuracy = np.mean([one.domain == name for one, name in zip(decided, table.domains, strict=True)])
    assert len(decided) == 1495
    assert accuracy >= 0.77


@pytest.mark.slow
def test_what_replay_expects_comes_true_on_held_out_queries(data, minilm_path, minilm_cache, tmp_path):
    """Records and selectors of four fifths of the queries, judged on the last one, five times."""
    both = tmp_path / "both.jsonl"
    parts = [gzip.decompress((data / f"mmlu_pro_{name}.jsonl.gz").read_bytes()) for name in ("train", "dev")]
    both.write_bytes(b"".join(parts))
    table, _ = read_outcomes(both)
    features = torch.from_numpy(features_of(table, minilm_path, minilm_cache))
    fold_Q, digests_Q = assign_folds(table.queries, 5, seed=0), query_digests(table.queries)
    found: dict[str, list[np.ndarray]] = {}
    for fold in range(5):
        learned, held_out = np.flatnonzero(fold_Q != fold), np.flatnonzero(fold_Q == fold)
        records = table.take(learned)
        names = [table.domains[q] for q in held_out]
        expected = ExpectedOutcomes(features[learned], records).of(features[held_out], names, digests_Q[held_out])
        quality_HM, outcome_HM = expected.quality_BM.double().numpy(), table.quality_QM[held_out]
        rows = np.arange(len(held_out))
        selector = selector_of(fit("kmeans", features[learned], records, TrainOptions(), {}))
        column = np.array([table.models.index(model) for model in selector.models])
        choices = {"kmeans": column[selector(features[held_out]).argmax(dim=1).numpy()]}
        choices["best-expected"] = quality_HM.argmax(axis=1)
        choices |= {model: np.full(len(rows), m) for m, model in enumerate(table.models)}
        for name, choice in choices.items():
            found.setdefault(name, []).append(outcome_HM[rows, choice] - quality_HM[rows, choice])
    for name, differences in found.items():
        difference = np.concatenate(differences)
        low, high = mean_interval(difference, np.arange(len(difference)))
        assert abs(difference.mean()) < 0.01, name
        assert low < 0 < high, name


@pytest.mark.slow
def test_a_replay_of_records_is_judged_by_their_own_outcomes(cli, data, minilm_path, minilm_cache, tmp_path):
    """The dev queries as a log: what the policies really score is what validate says."""
    models, out, table_path = tmp_path / "models", tmp_path / "replay.json", tmp_path / "table.json"
    shared = "--cache-dir", minilm_cache, "--device", "cpu"
    log, records = (str(data / f"mmlu_pro_{name}.jsonl.gz") for name in ("dev", "train"))
    runs = (
        ("train", "--data-file", records, "--output-dir", models, "--embedding-model", "minilm", "--no-check"),
        ("validate", "--data-file", log, "--models-dir", models, "--json", table_path, "--keep-training-queries"),
        ("replay", log, "--data-file", records, "--models-dir", models, "--json", out),
    )
    for arguments in runs:
        done = cli(*arguments, *shared)
        assert done.status == 0, done.err
    document, validated = json.loads(out.read_bytes()), figures(table_path)
    assert (document["queries"], document["queries_in_records"]) == (9000, 102)
    for policy in document["policies"]:
        (quality,) = [found for found in policy["outcomes"] if found["figure"] == "quality"]
        if policy["name"] in validated:
            # 5 queries stand in the log twice
            assert quality["rows"] == 1500
            assert quality["realised"] == pytest.approx(validated[policy["name"]], abs=3e-3)
        # these 1,495 queries are harder than the records' by about as much as chance allows
        assert abs(quality["realised"] - quality["expected"]) < 0.045, policy["name"]
    logged = document["policies"][0]
    assert logged["name"] == "as logged"
    for found in logged["outcomes"]:
        assert found["rows"] == 9000
        low, high = found["ci95"]
        assert low < 0 < high
    check = document["check"]
    assert abs(check["realised"] - check["expected"]) < 0.01
