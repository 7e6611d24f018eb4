"""What a hub says a repository holds, and what it says instead."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.download import repository as module
from gpu_select.download.connection import Connection
from gpu_select.download.repository import listed, open_repository
from gpu_select.errors import ConfigError, HubError

FILES = {"knn_model.json": b"{}", "notes/of this.txt": b"text"}


def error_of(*arguments, token=None, **settings) -> str:
    with pytest.raises(HubError) as caught:
        open_repository(Connection(token), *arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_alone(document):
    return document | {"siblings": [{"rfilename": sibling["rfilename"]} for sibling in document["siblings"]]}


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_a_repository_lists_its_files(hub, repo_type):
    repo = hub.add("some/repo", FILES, repo_type, large={"knn_model.json"})
    found = open_repository(Connection(), "some/repo", repo_type)
    assert found.commit == repo.commit("main")
    assert {name: file.n_bytes for name, file in found.files.items()} == {"knn_model.json": 2, "notes/of this.txt": 4}
    large, small = (file.checksum for file in found.files.values())
    assert (large.kind, large.value) == ("sha256", hashlib.sha256(b"{}").hexdigest())
    assert (small.kind, small.value) == ("git", hashlib.sha1(b"blob 4\0text").hexdigest())


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub):
    repo = hub.add("some/repo", FILES)
    repo.revisions["v1.0/old"] = {"a.json": b"1"}
    for revision, name in (
        ("v1.0/old", "a.json"),
        (repo.commit("v1.0/old"), "a.json"),
        ("main", "knn_model.json"),
    ):
        assert name in open_repository(Connection(), "some/repo", "model", revision).files


def test_a_hub_may_tell_neither_sizes_nor_checksums(hub):
    hub.add("some/repo", FILES)
    hub.listing = names_alone
    files = open_repository(Connection(), "some/repo", "model").files.values()
    assert [(file.n_bytes, file.checksum) for file in files] == [(None, None)] * 2


ODD = [
    *(
        "../knn_model.json",
        "a/../../b",
        "..",
        ".",
        "a/./b",
        "/etc/passwd",
        "a//b",
        "a/",
        "",
        "a\\b",
        "..\\b",
        "C:b",
        "a/c:",
    ),
    *("a\0b", "a\nb", "\x1b[2J", "\u202egnp.exe", "x" * 201, "/".join(["folder"] * 200)),
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_leads_out_of_a_folder_refuses_the_repository(hub, name):
    hub.add("some/repo", FILES)
    hub.listing = lambda document: document | {"siblings": [*document["siblings"], {"rfilename": name}]}
    text = error_of("some/repo", "model")
    assert text.startswith("some/repo: expected file names that stay within a folder, got '")
    assert text.endswith(("': nothing of it is taken", "...: nothing of it is taken"))


@given(st.text(max_size=30))
def test_no_plain_name_leads_out_of_a_folder(tmp_path_factory, name):
    if module._is_plain(name):
        folder = tmp_path_factory.getbasetemp()
        path = folder.joinpath(*name.split("/"))
        assert path.is_relative_to(folder)
        assert path != folder
        assert ".." not in path.parts


@pytest.mark.parametrize(
    "change",
    [
        {"sha": "../../main"},
        {"sha": None},
        {"siblings": None},
        {"siblings": "all"},
        {"siblings": [{"name": "knn_model.json"}]},
        {"siblings": ["knn_model.json"]},
    ],
)
def test_a_listing_that_is_none_is_refused(hub, change):
    hub.add("some/repo", FILES)
    hub.listing = lambda document: document | change
    assert error_of("some/repo", "model").endswith(": check HF_ENDPOINT")


def test_a_listing_has_a_bound(hub, monkeypatch):
    monkeypatch.setattr(module, "_MAX_FILES", 1)
    hub.add("some/repo", FILES)
    assert error_of("some/repo", "model") == "some/repo: expected at most 1 files, got 2"


@pytest.mark.parametrize(
    "repo_id", ["", "a b", "a/b/c", "../b", "a/..", "https://huggingface.co/a/b", "a/b?x", "a\n/b"]
)
def test_a_repo_id_that_cannot_be_one_is_refused(hub, repo_id):
    with pytest.raises(
        ConfigError, match=r"^repo-id: expected organisation/name, as in a repository's address on the h"
    ):
        open_repository(Connection(), repo_id, "model")
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["", " ", "a\nb", "x" * 256, "..", ".", "../../x"])
def test_a_revision_that_cannot_be_one_is_refused(hub, revision):
    with pytest.raises(ConfigError, match=r"^revision: expected a branch, a tag or a commit, got "):
        open_repository(Connection(), "some/repo", "model", revision)


def test_no_such_repository(hub):
    what = f"model repository some/repo on {hub.url()}"
    assert error_of("some/repo", "model") == (
        f"{what}: there is none, or a private one, which needs HF_TOKEN; check --repo-id (some/repo)"
    )
    assert error_of("some/repo", "model", token="hf_guest") == (
        f"{what}: there is none, or one that the token may not read; check --repo-id (some/repo)"
    )


@pytest.mark.parametrize(
    ("asked", "other", "cure"),
    [
        ("model", "dataset", "gpu-select download data, or --repo-type dataset"),
        ("dataset", "model", "--repo-type model"),
    ],
)
def test_a_repository_of_the_other_type_is_pointed_to(hub, asked, other, cure):
    hub.add("some/repo", FILES, other)
    assert error_of("some/repo", asked) == (
        f"{asked} repository some/repo on {hub.url()}: there is none, but a {other} repository of that name: {cure}"
    )


def test_a_private_repository_needs_a_token(hub):
    hub.add("some/repo", FILES, is_private=True)
    assert "or a private one, which needs HF_TOKEN" in error_of("some/repo", "model")
    assert "knn_model.json" in open_repository(Connection("hf_guest"), "some/repo", "model").files


def test_a_token_that_the_hub_does_not_know(hub):
    hub.add("some/repo", FILES)
    assert error_of("some/repo", "model", token="hf_old") == (
        f"model repository some/repo on {hub.url()}: the token is not accepted (401): renew the one in HF_TOKEN, "
        "--token or `hf auth login`"
    )


def test_no_such_revision_names_those_there_are(hub):
    repo = hub.add("some/repo", FILES)
    repo.revisions["v1"] = {}
    assert error_of("some/repo", "model", "v2") == (
        f"model repository some/repo on {hub.url()}: no revision 'v2'; there are main, v1"
    )


def test_names_are_sorted_and_bounded():
    assert listed(["b", "a"]) == "a, b"
    assert listed(f"{i:02}" for i in range(30)).endswith(", 18, 19 and 10 more")
    assert listed([]) == "nothing"
