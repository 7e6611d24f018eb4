"""A file gets its name once its bytes are the hub's and it can be loaded."""

from __future__ import annotations

import gzip
import sys

import pytest

from gpu_select.download.saving import STAGING, save
from gpu_select.errors import DataError, HubError, MissingDependencyError, OutputError

KNN = "knn_model.json"


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [KNN, "old/tries/knn_model.json"])
@pytest.mark.parametrize("large", [True, False])
def test_a_file_is_saved_under_its_own_name(hub, published, model_files, tmp_path, name, large):
    repository = published({name: model_files[KNN]}, large={name} if large else set())
    told = []
    got = save(repository, repository.files[name], tmp_path, progress=told.append)
    assert (got.name, got.path, got.n_bytes, got.is_new) == (name, tmp_path / name, len(model_files[KNN]), True)
    assert got.contents.facts["kind"] == "knn"
    assert got.path.read_bytes() == model_files[KNN]
    assert everything_below(tmp_path) == [name]
    assert sum(told) == got.n_bytes
    assert not (tmp_path / STAGING).exists()


@pytest.mark.parametrize("large", [True, False])
def test_the_same_bytes_are_not_fetched_again(hub, published, model_files, tmp_path, large):
    repository = published({KNN: model_files[KNN]}, large={KNN} if large else set())
    save(repository, repository.files[KNN], tmp_path)
    hub.requests.clear()
    again = save(repository, repository.files[KNN], tmp_path)
    assert not again.is_new
    assert again.contents.facts["kind"] == "knn"
    assert hub.requests == []
    (tmp_path / KNN).write_bytes(model_files[KNN].replace(b"4", b"5", 1))
    assert save(repository, repository.files[KNN], tmp_path).is_new
    assert (tmp_path / KNN).read_bytes() == model_files[KNN]


def test_a_hub_without_checksums_is_asked_each_time(hub, published, model_files, tmp_path):
    hub.listing = lambda document: document | {"siblings": [{"rfilename": KNN}]}
    repository = published({KNN: model_files[KNN]})
    for _ in range(2):
        assert save(repository, repository.files[KNN], tmp_path).is_new


BROKEN = {
    KNN: (b'{"algorithm": "knn"}', "knn_model.json of some/repo: "),
    "kmeans_model.json": (b"\x80\x04pickle", "kmeans_model.json of some/repo: document: expected a JSON object, got "),
    "svm_model.json.gz": (b"not packed", "cannot read svm_model.json.gz of some/repo: damaged .gz data"),
    "domain_model.safetensors": (b"\xff" * 100, "domain_model.safetensors of some/repo: contents: expected a safetens"),
    "data.jsonl": (b'{"query": "q"}\n', "data.jsonl of some/repo: expected at least one record with query, model_name"),
    "data.jsonl.gz": (gzip.compress(b'{"query": "q"}\n' * 99)[:-8], "cannot read data.jsonl.gz of some/repo: damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("earlier", [True, False])
def test_a_file_that_cannot_be_loaded_is_not_kept(hub, published, tmp_path, name, earlier):
    data, beginning = BROKEN[name]
    repository = published({name: data})
    if earlier:
        (tmp_path / name).write_bytes(b"an earlier one")
    with pytest.raises(DataError) as caught:
        save(repository, repository.files[name], tmp_path)
    text = str(caught.value)
    assert text.startswith(beginning)
    assert text.endswith(
        ": the file is broken where it comes from, and it is not kept; take another --revision or --file"
    )
    assert "\n" not in text
    assert str(tmp_path) not in text
    assert everything_below(tmp_path) == ([name] if earlier else [])
    if earlier:
        assert (tmp_path / name).read_bytes() == b"an earlier one"


def test_one_algorithm_under_the_name_of_another_is_broken(published, model_files, tmp_path):
    repository = published({KNN: model_files["svm_model.json"]})
    with pytest.raises(DataError, match=r"^knn_model.json of some/repo: algorithm: expected "):
        save(repository, repository.files[KNN], tmp_path)
    repository = published({"ours.json": model_files["svm_model.json"]})
    assert save(repository, repository.files["ours.json"], tmp_path).contents.facts["kind"] == "svm"


def test_a_broken_file_that_is_there_already_is_said_to_be(published, tmp_path):
    repository = published({KNN: b"{}"})
    (tmp_path / KNN).write_bytes(b"{}")
    with pytest.raises(DataError, match=r"^knn_model.json of some/repo: .* and it stands there already; take another"):
        save(repository, repository.files[KNN], tmp_path)


@pytest.mark.parametrize("large", [True, False])
def test_damage_on_the_way_is_noticed(hub, published, model_files, tmp_path, large):
    repository = published({KNN: model_files[KNN]}, large={KNN} if large else set())

    def damaged(handler, data):
        handler.begin(data)
        handler.wfile.write(data[:-30] + b" " + data[-29:])

    hub.faults.append(damaged)
    with pytest.raises(HubError) as caught:
        save(repository, repository.files[KNN], tmp_path)
    kind, length = ("sha256", 64) if large else ("git", 40)
    assert f"knn_model.json of some/repo: expected {kind} checksum {repository.files[KNN].checksum.value}, got " in str(
        caught.value
    )
    assert len(repository.files[KNN].checksum.value) == length
    assert str(caught.value).endswith(": it was damaged on the way and is not kept; run the same command again")
    assert everything_below(tmp_path) == []
    assert save(repository, repository.files[KNN], tmp_path).is_new


def test_an_interrupted_file_has_no_name_and_goes_on(hub, hub_server, published, model_files, tmp_path):
    repository = published({KNN: model_files[KNN]})
    hub.faults += [hub_server.cut(9000), *[hub_server.status(500)] * 3]
    with pytest.raises(HubError, match="interrupted"):
        save(repository, repository.files[KNN], tmp_path)
    (arrived,) = everything_below(tmp_path)
    assert arrived.startswith(f"{STAGING}/")
    assert arrived.endswith(f".{KNN}")
    save(repository, repository.files[KNN], tmp_path)
    assert hub.ranges(KNN)[-1] == "bytes=9000-"
    assert everything_below(tmp_path) == [KNN]


def test_another_version_does_not_go_on_with_the_beginning_of_the_first(
    hub, hub_server, published, model_files, tmp_path
):
    first = published({KNN: model_files[KNN]})
    hub.faults += [hub_server.cut(9000), *[hub_server.status(500)] * 3]
    with pytest.raises(HubError, match="interrupted"):
        save(first, first.files[KNN], tmp_path)
    changed = model_files[KNN].replace(b'"k": 4', b'"k": 3')
    assert changed != model_files[KNN]
    second = published({KNN: changed})
    save(second, second.files[KNN], tmp_path)
    assert hub.ranges(KNN)[-1] is None
    assert (tmp_path / KNN).read_bytes() == changed
    assert everything_below(tmp_path) == [KNN]


@pytest.mark.parametrize("tells", [True, False])
def test_the_same_file_in_another_commit_goes_on_where_the_hub_says_that_it_is_the_same(
    hub, hub_server, published, model_files, tmp_path, tells
):
    if not tells:
        hub.listing = lambda document: document | {"siblings": [{"rfilename": KNN}]}
    first = published({KNN: model_files[KNN]})
    hub.faults += [hub_server.cut(9000), *[hub_server.status(500)] * 3]
    with pytest.raises(HubError, match="interrupted"):
        save(first, first.files[KNN], tmp_path)
    second = published({KNN: model_files[KNN], "README.md": b"new"})
    assert second.commit != first.commit
    save(second, second.files[KNN], tmp_path)
    assert hub.ranges(KNN)[-1] == ("bytes=9000-" if tells else None)
    assert everything_below(tmp_path) == [KNN]


def test_a_missing_package_does_not_cost_the_bytes(hub, published, model_files, tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard")
    name = f"{KNN}.zst"
    repository = published({name: zstandard.compress(model_files[KNN])})
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "zstandard", None)
        with pytest.raises(MissingDependencyError, match="zst file needs the package zstandard"):
            save(repository, repository.files[name], tmp_path)
    hub.requests.clear()
    assert save(repository, repository.files[name], tmp_path).is_new
    assert hub.requests == []


def test_a_folder_of_that_name_is_in_the_way(published, model_files, tmp_path):
    repository = published({KNN: model_files[KNN]})
    (tmp_path / KNN).mkdir()
    with pytest.raises(OutputError, match=rf"^cannot write {tmp_path / KNN}: it is a folder$"):
        save(repository, repository.files[KNN], tmp_path)


def test_a_file_where_a_folder_is_needed(published, model_files, tmp_path):
    repository = published({f"a/{KNN}": model_files[KNN]})
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match=rf"^cannot write {tmp_path}/a/knn_model.json: "):
        save(repository, repository.files[f"a/{KNN}"], tmp_path)


def test_where_nothing_can_be_written_is_one_line(published, model_files, tmp_path):
    repository = published({KNN: model_files[KNN]})
    (tmp_path / STAGING).write_bytes(b"")
    with pytest.raises(OutputError, match=rf"^cannot write {tmp_path}/{STAGING}/\w+/\w+\.{KNN}: "):
        save(repository, repository.files[KNN], tmp_path)
