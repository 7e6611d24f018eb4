"""`gpu-select download`, against a hub on this machine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

ROOT = Path(__file__).parents[2]
MODELS = "abdallah1008/semantic-router-ml-models"
DATA = "abdallah1008/ml-selection-benchmark-data"
TOKEN = "hf_reader"


@pytest.fixture(scope="session")
def model_files(write_tiny_models, tmp_path_factory) -> dict[str, bytes]:
    """A selector file of each kind and a domain head, by name."""
    own = {"encoder": {"name": "tiny", "fingerprint": "0" * 64}}
    folder = write_tiny_models(tmp_path_factory.mktemp("published"), own)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def records(data_dir) -> bytes:
    """600 records of 120 queries and 5 models."""
    return (data_dir / "train.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def contents_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_bare_download_takes_the_documented_models(cli, hub, model_files):
    repo = hub.add(MODELS, model_files | {"README.md": b"# Models", "training.log": b"done"}, large={"knn_model.json"})
    done = cli("download")
    assert (done.status, done.err) == (0, "")
    sizes = {name: f"{len(data) / 1e3:.1f} kB" for name, data in model_files.items()}
    common = "feature dimension 46, 3 models: {}, trained with encoder tiny"
    assert done.out.splitlines() == [
        f"model repository {MODELS} at {repo.commit('main')}",
        f"models/knn_model.json: {sizes['knn_model.json']}, KNN, k 4, rows 60, {common.format('c, b, a')}",
        f"models/kmeans_model.json: {sizes['kmeans_model.json']}, KMeans, clusters 12, {common.format('a, b, c')}",
        f"models/svm_model.json: {sizes['svm_model.json']}, SVM, classifiers 4, support vectors 60, "
        + common.format("a, b, c"),
        f"models/mlp_model.json: {sizes['mlp_model.json']}, MLP, hidden sizes 20, {common.format('a, b, c')}",
        f"models/domain_model.safetensors: {sizes['domain_model.safetensors']}, domain head, 14 domains, "
        "embedding dimension 32",
    ]
    assert contents_of("models") == model_files


def test_the_help_text_names_what_is_documented(cli):
    done = cli("download", "--help")
    for line in (f"models: {MODELS} (a model repository) -> models/\n", f"data:   {DATA} (a dataset) -> data/\n"):
        assert f"  {line}" in done.out


def test_models_that_are_there_are_left_alone(cli, hub, model_files):
    hub.add(MODELS, model_files)
    cli("download", "models")
    hub.requests.clear()
    done = cli("download", "models")
    assert len(hub.requests) == 1
    assert [line.endswith(" (was there already)") for line in done.out.splitlines()] == [False, *[True] * 5]


def test_data_come_from_the_documented_dataset(cli, hub, records):
    repo = hub.add(DATA, {"benchmark_data.jsonl": records, "README.md": b""}, "dataset")
    done = cli("download", "data")
    assert (done.status, done.err) == (0, "")
    names = sorted({json.loads(line)["model_name"] for line in records.splitlines()})
    first, second = done.out.splitlines()
    assert first == f"dataset repository {DATA} at {repo.commit('main')}"
    size = f"{len(records) / 1e3:.1f} kB"
    assert second.startswith(f"data/benchmark_data.jsonl: {size}, 600 records, 120 queries, 5 models: ")
    assert sorted(second.rpartition(": ")[2].split(", ")) == names
    assert contents_of("data") == {"benchmark_data.jsonl": records}


def test_what_is_odd_in_records_is_said(cli, hub, records):
    hub.add(DATA, {"a.jsonl": records + b"{}\n"}, "dataset")
    done = cli("download", "data")
    assert done.status == 0
    assert done.err.startswith("warning: data/a.jsonl: left out 1 of 601 records: line 601: ")


def test_every_documented_option_works(cli, hub, model_files):
    hub.add("mine/models", model_files, is_private=True)
    done = cli(
        *("download", "--output-dir", "my_models/", "--repo-id", "mine/models", "--file", "svm_model.json"),
        *("--token", TOKEN),
    )
    assert (done.status, done.err) == (0, "")
    assert contents_of("my_models") == {"svm_model.json": model_files["svm_model.json"]}
    assert TOKEN not in done.out


@pytest.mark.parametrize(
    ("names", "repo_id", "repo_type", "folder"),
    [
        (["a.jsonl"], DATA, "dataset", "data"),
        (["a.jsonl", "b.jsonl.gz"], DATA, "dataset", "data"),
        (["svm_model.json"], MODELS, "model", "models"),
        (["svm_model.json", "a.jsonl"], MODELS, "model", "models"),
    ],
)
def test_a_files_name_tells_where_it_is(cli, hub, records, model_files, names, repo_id, repo_type, folder):
    import gzip

    files = {"a.jsonl": records, "b.jsonl.gz": gzip.compress(records), "svm_model.json": model_files["svm_model.json"]}
    hub.add(repo_id, files, repo_type)
    done = cli("download", *(argument for name in names for argument in ("--file", name)))
    assert (done.status, done.err) == (0, "")
    assert sorted(contents_of(folder)) == sorted(names)


def test_records_in_a_model_repository(cli, hub, records):
    hub.add("mine/both", {"a.jsonl": records})
    asked = "download", "--file", "a.jsonl", "--repo-id", "mine/both"
    refused = cli(*asked)
    assert refused.status == 1
    assert refused.err.endswith(": there is none, but a model repository of that name: --repo-type model\n")
    assert cli(*asked, "--repo-type", "model").status == 0
    assert contents_of("data") == {"a.jsonl": records}


def test_a_revision_is_what_is_got_and_told(cli, hub, model_files):
    repo = hub.add(MODELS, {})
    repo.revisions["v1"] = {"svm_model.json": model_files["svm_model.json"]}
    done = cli("download", "--revision", "v1", "--json", "got.json")
    assert (done.status, done.err) == (0, "")
    (file,) = json.loads(Path("got.json").read_text())["files"]
    document = json.loads(Path("got.json").read_text()) | {"files": None}
    assert document == {
        "endpoint": hub.url(),
        "repo_id": MODELS,
        "repo_type": "model",
        "revision": "v1",
        "commit": repo.commit("v1"),
        "files": None,
        "problems": [],
    }
    holds = file.pop("holds")
    size = len(model_files["svm_model.json"])
    assert file == {"name": "svm_model.json", "path": "models/svm_model.json", "bytes": size, "is_new": True}
    assert (holds["kind"], holds["feature_dim"], holds["support_vectors"]) == ("svm", 46, 60)


def test_a_broken_file_does_not_keep_the_others_from_coming(cli, hub, model_files):
    hub.add(MODELS, model_files | {"knn_model.json": b"{}", "mlp_model.json": b"[]"})
    done = cli("download", "--json", "got.json")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: knn_model.json of abdallah1008/semantic-router-ml-models: ")
    assert (
        "; mlp_model.json of abdallah1008/semantic-router-ml-models: document: expected a JSON object, got" in done.err
    )
    assert sorted(contents_of("models")) == ["domain_model.safetensors", "kmeans_model.json", "svm_model.json"]
    document = json.loads(Path("got.json").read_text())
    assert len(document["files"]) == 3
    assert len(document["problems"]) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "error: model repository abdallah1008/semantic-router-ml-models on http"),
        (
            ["--repo-id", "no such"],
            "error: repo-id: expected organisation/name, as in a repository's address on the hu",
        ),
        (
            ["--file", "model.pkl"],
            "error: file: expected a selector file (.json), records (.jsonl), both also with .gz",
        ),
        (["--token", "my token"], "error: token: expected letters, digits and punctuation without spaces, such as hf_"),
        (["--repo-id", "mine/models", "--file", "knn.json"], "expected a file knn.json, got svm_model.json\n"),
        (["--repo-id", "mine/models", "--revision", "v9"], "no revision 'v9'; there are main\n"),
        (["--repo-id", "mine/models", "--token", "hf_x"], "the token is not accepted (401): renew the one in HF_TOKEN"),
        (["--repo-id", "mine/gated"], "is gated: ask its owner for access at http"),
        (
            ["data", "--repo-id", "mine/models"],
            ": there is none, but a model repository of that name: --repo-type model\n",
        ),
        (["--repo-id", "mine/models", "--output-dir", "file"], "error: cannot write file: File exists\n"),
    ],
)
def test_a_mistake_is_one_line(cli, hub, model_files, arguments, text):
    hub.add("mine/models", {"svm_model.json": model_files["svm_model.json"]})
    hub.add("mine/gated", {"svm_model.json": model_files["svm_model.json"]}, is_gated=True)
    Path("file").write_bytes(b"")
    done = cli("download", *arguments)
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("error: ")
    assert text in done.err
    assert not list(Path().rglob("svm_model.json"))


@pytest.mark.parametrize("arguments", [["model"], ["models", "data"], ["--repo-type", "space"]])
def test_wrong_usage_is_status_two(cli, hub, arguments):
    assert cli("download", *arguments).status == 2


def test_no_text_holds_the_token_or_a_signed_address(cli, hub, hub_server, model_files, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(MODELS, model_files, large={"knn_model.json"}, is_gated=True)
    hub.faults += [hub_server.cut(100), hub_server.cut(0), hub_server.status(503), *[hub_server.status(403)] * 2]
    failed = cli("download")
    assert failed.status == 1
    done = cli("download", "--json", "got.json", "--file", "svm_model.json")
    hub.faults.clear()
    done = cli("download", "--json", "got.json")
    assert done.status == 0
    for text in (failed.out, failed.err, done.out, done.err, Path("got.json").read_text()):
        assert TOKEN not in text
        assert "secret-of-the-address" not in text
    for request in hub.requests:
        assert request.headers.get("authorization") == (f"Bearer {TOKEN}" if request.host == "hub" else None)


def test_a_bar_shows_bytes_on_a_terminal(cli, hub, model_files):
    hub.add(MODELS, {"svm_model.json": model_files["svm_model.json"]})
    done = cli("download", terminal=True)
    size = f"{len(model_files['svm_model.json']) / 1e3:.1f}k"
    assert re.search(rf"svm_model\.json: 100%\|.*\| {size}/{size} \[.*B/s\]", done.err)
    assert "huggingface" not in done.err


def test_offline_is_one_line(cli, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = cli("download")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "error: HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or use files that are here already\n"
    )


@pytest.mark.parametrize("command", ["train", "tune", "validate"])
def test_who_has_no_records_learns_where_some_are(cli, command):
    done = cli(command, "--models-dir", "models") if command == "validate" else cli(command)
    assert done.status == 2
    assert done.err.endswith(
        "Error: Missing option '--data-file'. `gpu-select download data` gets records that somebody published.\n"
    )


# ---------------------------------------------------------------- as a process, with the environment of a user


@pytest.fixture
def start(hub, tmp_path):
    """Call with arguments (and variables of the environment): `gpu-select download` as a process of its own."""
    started = []

    def run(*arguments, **variables):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment = kept | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_ENDPOINT": hub.url(),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_select", "download", *map(str, arguments)],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def arrived() -> int:
    """How many bytes of files without a name there are."""
    return sum(path.stat().st_size for path in Path("models").rglob("*") if path.is_file())


def kill_in_the_middle(process, number: int) -> None:
    before = arrived()
    deadline = time.monotonic() + 60
    while arrived() <= before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)


def test_the_environment_names_the_hub_and_the_token(start, hub, model_files):
    hub.add(MODELS, {"svm_model.json": model_files["svm_model.json"]}, large={"svm_model.json"}, is_private=True)
    process = start(HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url() + "/")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[1].startswith("models/svm_model.json: ")
    assert {request.headers.get("authorization") for request in hub.requests} == {f"Bearer {TOKEN}", None}


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "error: HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or use files"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "error: http://127.0.0.1:9 cannot be reached ("),
        ({}, "there is none, or a private one, which needs HF_TOKEN; check --repo-id (abdallah1008/"),
    ],
)
def test_an_environment_without_a_hub_is_one_line(start, variables, text):
    process = start(**variables)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert text in err
    assert not Path("models").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_download_that_was_killed_goes_on_where_it_stopped(start, hub, hub_server, model_files, number):
    document = json.loads(model_files["svm_model.json"])
    document["notes"] = random.Random(0).randbytes(2_000_000).hex()
    data = json.dumps(document).encode()
    hub.add(MODELS, {"svm_model.json": data}, large={"svm_model.json"})
    hub.faults += [hub_server.slow(50_000, 0.05)] * 2
    for _ in range(2):
        process = start()
        kill_in_the_middle(process, number)
        _, err = process.communicate(timeout=60)
        assert err.strip() == ("" if number == signal.SIGKILL else "Aborted!")
        assert not Path("models/svm_model.json").exists()
    kept = arrived()
    process = start()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    first, second, third = hub.ranges("svm_model.json")
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) < kept
    assert third == f"bytes={kept}-"
    assert contents_of("models") == {"svm_model.json": data}
