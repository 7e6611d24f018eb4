"""What files hold, for people and for programs."""

from __future__ import annotations

import json

import pytest

from gpu_select import wire
from gpu_select.download.contents import kind_of, load_contents


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("knn_model.json", "selector"),
        ("folder/knn_model.json.gz", "selector"),
        ("MINE.JSON.ZST", "selector"),
        ("data.jsonl", "records"),
        ("train/data.jsonl.gz", "records"),
        ("domain_model.safetensors", "domain head"),
        ("old/domain_model.safetensors", "domain head"),
        ("model.safetensors", None),
        ("model.pkl", None),
        ("README.md", None),
        (".gz", None),
    ],
)
def test_a_name_tells_what_a_file_is(name, kind):
    assert kind_of(name) == kind


@pytest.fixture
def contents(model_files, tmp_path):
    """Call with the name of a file: what it is said to hold."""

    def load(name):
        (tmp_path / name).write_bytes(model_files[name])
        return load_contents(tmp_path / name, name, name)

    return load


COMMON = {"feature_dim": 46, "encoder": "tiny"}


@pytest.mark.parametrize(
    ("algorithm", "models", "facts", "words"),
    [
        ("knn", ["c", "b", "a"], {"k": 4, "rows": 60}, "KNN, k 4, rows 60"),  # in the order of its rows
        ("kmeans", ["a", "b", "c"], {"clusters": 12}, "KMeans, clusters 12"),
        ("svm", ["a", "b", "c"], {"classifiers": 4, "support_vectors": 60}, "SVM, classifiers 4, support vectors 60"),
        ("mlp", ["a", "b", "c"], {"hidden_sizes": [20]}, "MLP, hidden sizes 20"),
    ],
)
def test_selectors(contents, algorithm, models, facts, words):
    got = contents(wire.file_name(algorithm))
    assert got.facts == {"kind": algorithm} | COMMON | facts | {"models": models}
    assert got.words == (f"{words}, feature dimension 46, 3 models: {', '.join(models)}, trained with encoder tiny")
    assert got.warnings == []


def test_a_file_of_another_program_names_no_encoder(tmp_path, model_files):
    document = json.loads(model_files["kmeans_model.json"])
    del document["gpu_select"]
    (tmp_path / "theirs.json").write_text(json.dumps(document))
    got = load_contents(tmp_path / "theirs.json", "theirs.json", "theirs.json")
    assert got.words == "KMeans, clusters 12, feature dimension 46, 3 models: a, b, c"
    assert "encoder" not in got.facts


def test_a_domain_head(contents):
    got = contents("domain_model.safetensors")
    assert got.words == "domain head, 14 domains, embedding dimension 32"
    assert (len(got.facts["domains"]), got.facts["embedding_dim"]) == (14, 32)


def test_records(tmp_path):
    rows = [
        {"query": q, "category": "math", "model_name": m, "performance": 1.0, "response_time": 1.0}
        for q in ("one", "two")
        for m in ("m1", "m2")
    ]
    rows += [{"query": "one", "model_name": "m1", "performance": 7}, {"query": "two", "error": "503"}]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = load_contents(path, "data.jsonl", "shown.jsonl")
    assert got.words == "6 records, 2 queries, 2 models: m1, m2"
    assert got.facts == {
        "kind": "records",
        "records": 6,
        "usable_records": 4,
        "queries": 2,
        "models": ["m1", "m2"],
    }
    assert [text.partition(":")[0] for text in got.warnings] == ["shown.jsonl"] * 2


def test_names_of_models_are_bounded_and_cannot_steer_the_terminal(tmp_path):
    models = ["\x1b[2Jwiped", "x" * 500, *map(str, range(9))]
    rows = [{"query": "q", "model_name": m, "performance": 1.0} for m in models]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = load_contents(path, "data.jsonl", "data.jsonl")
    assert got.words.isprintable()
    assert got.words.startswith("11 records, 1 queries, 11 models: '\\x1b[2Jwiped', 'xxx")
    assert got.words.endswith(", 0, 1, 2, 3, 4, 5 and 3 more")
    assert got.facts["models"] == models
