"""Which files of a repository are wanted."""

from __future__ import annotations

import pytest

from gpu_select.download.choosing import check_names, choose
from gpu_select.errors import ConfigError, HubError


def names(repository, *arguments):
    return [file.name for file in choose(repository, *arguments)]


def test_models_are_the_selectors_and_the_domain_head_of_the_top_folder(published, model_files):
    repository = published(model_files | {"README.md": b"", "config.json": b"{}", "old/knn_model.json": b""})
    selectors = ["knn_model.json", "kmeans_model.json", "svm_model.json", "mlp_model.json"]
    assert names(repository, "models") == [*selectors, "domain_model.safetensors"]


def test_of_several_forms_the_one_that_a_folder_would_be_read_by(published):
    repository = published({"svm_model.json.zst": b"", "svm_model.json.gz": b"", "knn_model.json.zst": b""})
    assert names(repository, "models") == ["knn_model.json.zst", "svm_model.json.gz"]


def test_data_are_the_records_of_the_top_folder(published):
    repository = published({"b.jsonl": b"", "a.jsonl.gz": b"", "c/d.jsonl": b"", "knn_model.json": b""})
    assert names(repository, "data") == ["a.jsonl.gz", "b.jsonl"]


@pytest.mark.parametrize("what", ["models", "data"])
def test_named_files_are_taken_from_anywhere_and_once(published, what):
    repository = published({"b.jsonl": b"", "c/d.jsonl": b"", "c/e.json": b""})
    assert names(repository, what, ["c/e.json", "b.jsonl", "c/e.json"]) == ["c/e.json", "b.jsonl"]


@pytest.mark.parametrize(
    ("what", "wanted", "expected", "cure"),
    [
        ("models", [], "one of knn_model.json, kmeans_model.json, svm_model.json, mlp_model.json in its top folder", 1),
        ("data", [], "records (.jsonl, .jsonl.gz or .jsonl.zst) in its top folder", 1),
        ("models", ["svm_model.json"], "a file svm_model.json", 0),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(published, what, wanted, expected, cure):
    repository = published({"v1/knn_model.json": b"", "README.md": b""})
    with pytest.raises(HubError) as caught:
        choose(repository, what, wanted)
    assert str(caught.value) == (
        f"model repository some/repo at {repository.commit[:12]}: expected {expected}, got README.md, "
        f"v1/knn_model.json{'; --file takes others' if cure else ''}"
    )


def test_an_empty_repository(published):
    with pytest.raises(HubError, match=r"got nothing; --file takes others$"):
        choose(published({}), "models")


def test_what_could_not_be_checked_is_refused_before_the_hub_is_asked():
    check_names(["a.json", "b.jsonl.gz", "c/domain_model.safetensors"])
    with pytest.raises(ConfigError) as caught:
        check_names(["a.json", "model.pkl"])
    assert str(caught.value) == (
        "file: expected a selector file (.json), records (.jsonl), both also with .gz or .zst, or "
        "domain_model.safetensors, got 'model.pkl'"
    )
