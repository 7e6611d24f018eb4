"""The hub of the tests is one: the library that everybody uses gets the same from it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

FILES = {"small.json": b"small", "folder/large file.json": b"large" * 1000}


@pytest.fixture(autouse=True)
def _for_the_library(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url() + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_the_library_lists_and_downloads(hub, tmp_path, repo_type):
    repo = hub.add("some/repo", FILES, repo_type, large={"folder/large file.json"}, is_private=True)
    info = HfApi().repo_info("some/repo", repo_type=repo_type, revision="main", files_metadata=True, token="hf_reader")
    assert info.sha == repo.commit("main")
    assert {s.rfilename: s.size for s in info.siblings} == {name: len(data) for name, data in FILES.items()}
    assert info.siblings[1].lfs.sha256 == hashlib.sha256(FILES["folder/large file.json"]).hexdigest()
    for name, data in FILES.items():
        path = hf_hub_download("some/repo", name, repo_type=repo_type, token="hf_reader", local_dir=tmp_path / "got")
        assert Path(path).read_bytes() == data


def test_the_library_knows_its_refusals(hub):
    hub.add("some/gated", FILES, is_gated=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().repo_info("some/repo")
    with pytest.raises(RevisionNotFoundError):
        HfApi().repo_info("some/gated", revision="v1")
    with pytest.raises(GatedRepoError):
        hf_hub_download("some/gated", "small.json")
    assert [branch.name for branch in HfApi().list_repo_refs("some/gated").branches] == ["main"]
