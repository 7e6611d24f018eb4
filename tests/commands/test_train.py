from __future__ import annotations

import errno
import json
import os
import re
from itertools import islice
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from gpu_select import jsonio
from gpu_select.artifacts import load_selector
from gpu_select.commands.train import command
from gpu_select.domain_file import read_domain_file
from gpu_select.domain_head import DomainHead
from gpu_select.domains import KNOWN_DOMAINS, WIRE_ORDER
from gpu_select.encoder import embed, load_encoder
from gpu_select.features import build_features
from gpu_select.records import unpack_digests
from gpu_select.router import route_features
from gpu_select.simulation import MODEL_NAMES, benchmark_records
from gpu_select.training import TrainOptions

HEAD = "domain_model.safetensors"
FILES = {name: f"{name}_model.json" for name in ("knn", "kmeans", "svm", "mlp")}

# names and defaults as documented; None: no default
DOCUMENTED = {
    "--data-file": None,
    "--output-dir": "models/",
    "--embedding-model": "qwen3",
    "--cache-dir": ".cache/",
    "--knn-k": 5,
    "--kmeans-clusters": 8,
    "--svm-kernel": "rbf",
    "--svm-gamma": 1.0,
    "--quality-weight": 0.9,
    "--batch-size": 32,
    "--device": "auto",
    "--limit": None,
    "--algorithm": "all",
    "--seed": 0,
    "--config": None,
}


@pytest.fixture
def train(cli, data_dir, tiny_encoder_path, tmp_path):
    """Call with an output folder and further options, which win over the usual ones."""

    def run(output_dir, *options, data_file=data_dir / "train.jsonl", cache_dir=tmp_path / "cache"):
        usual = "--data-file", data_file, "--embedding-model", tiny_encoder_path, "--cache-dir", cache_dir
        return cli("train", *usual, "--output-dir", output_dir, *options)

    return run


@pytest.fixture(scope="module")
def held_out(tiny_encoder_path) -> np.ndarray:
    """(230, 46) features of queries that no training has seen."""
    rows = list(islice(benchmark_records(500, seed=9), 0, 230 * len(MODEL_NAMES), len(MODEL_NAMES)))
    domains = torch.tensor([WIRE_ORDER.index(row["category"].replace("engineering", "other")) for row in rows])
    embedded = embed(load_encoder(str(tiny_encoder_path)), [row["query"] for row in rows])
    return build_features(embedded.vectors, domains).numpy()


def read(folder: Path, algorithm: str) -> dict:
    return json.loads((folder / FILES[algorithm]).read_bytes())


def without_own(document: dict) -> dict:
    return {key: value for key, value in document.items() if key != "gpu_select"}


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_options_have_the_documented_names_and_defaults():
    options = {name: option for option in command.params for name in option.opts}
    context = click.Context(command)
    no_default = {name for name, default in DOCUMENTED.items() if default is None}
    found = {name: options[name].get_default(context) for name in DOCUMENTED if name not in no_default}
    assert found | dict.fromkeys(no_default) == DOCUMENTED
    assert {name for name in DOCUMENTED if options[name].required} == {"--data-file"}
    assert list(options["--svm-kernel"].type.choices) == ["rbf", "linear"]
    assert list(options["--algorithm"].type.choices) == ["all", "knn", "kmeans", "svm", "mlp"]


def test_the_help_text_names_every_option_and_its_default(cli):
    done = cli("train", "--help")
    assert done.status == 0
    words = " ".join(done.out.split())
    for name, default in DOCUMENTED.items():
        assert name in words
        assert default in (None, "auto") or f"[default: {default}]" in words, name


def test_folders_default_to_models_and_cache_where_the_command_is_run(
    cli, data_dir, tiny_encoder_path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = cli("train", "--data-file", data_dir / "train.jsonl", "--embedding-model", tiny_encoder_path)
    assert done.status == 0
    assert files_in(tmp_path / "models") == sorted([*FILES.values(), HEAD])
    assert list((tmp_path / ".cache" / "embeddings").glob("*/*.safetensors"))
    assert files_in(tmp_path) == [".cache", "models"]


def test_four_files_and_no_domain_head_of_one_category(train, tmp_path, write_lines):
    out, data = tmp_path / "out", tmp_path / "short.jsonl"
    record = {"category": "law", "performance": 0.5, "response_time": 1.0}
    write_lines(data, [record | {"query": f"why {i}?", "model_name": name} for i in range(9) for name in "ab"])
    done = train(out, data_file=data)
    assert (done.status, done.err) == (0, "")
    assert files_in(out) == sorted(FILES.values())
    assert done.out.splitlines() == [
        f"trained knn, kmeans, svm, mlp on 9 queries x 2 models with encoder tiny-bert -> {out}",
        f"no {HEAD}: the records name fewer than two of the documented categories",
    ]


def test_the_domain_head_of_an_earlier_training_is_removed(train, tmp_path, write_lines):
    out, data = tmp_path / "out", tmp_path / "short.jsonl"
    out.mkdir()
    (out / HEAD).write_bytes(b"of another training")
    record = {"category": "law", "performance": 0.5, "response_time": 1.0, "model_name": "a"}
    write_lines(data, [record | {"query": f"why {i}?"} for i in range(9)])
    done = train(out, "--algorithm", "knn", data_file=data)
    assert (done.status, done.err) == (0, "")
    assert files_in(out) == [FILES["knn"]]
    assert done.out.splitlines()[1] == (
        f"no {HEAD}: the records name fewer than two of the documented categories; the one of an earlier training is "
        "removed"
    )


def test_the_domain_head_knows_the_categories_of_the_records(train, tmp_path, write_lines, tiny_encoder_path):
    out, data = tmp_path / "out", tmp_path / "short.jsonl"
    record = {"model_name": "a", "performance": 0.5, "response_time": 1.0}
    texts = {"what is the law of the court {}": "law", "solve number {} number": "engineering", "why {}": None}
    rows = [record | {"query": text.format(i), "category": name} for i in range(9) for text, name in texts.items()]
    write_lines(data, [*rows, record | {"query": "mind", "category": "unknown"}])
    done = train(out, "--algorithm", "knn", data_file=data)
    assert done.status == 0
    assert done.out.splitlines()[1] == f"trained a domain head on 18 queries of 2 categories -> {out / HEAD}"
    document = read_domain_file(out / HEAD)
    assert document.domains == ("engineering", "law")
    assert document.own["encoder"] == read(out, "knn")["gpu_select"]["encoder"]
    encoder = load_encoder(str(tiny_encoder_path))
    vectors = embed(encoder, ["what is the law of the court 77", "solve number 77 number"]).vectors
    with torch.no_grad():
        assert [KNOWN_DOMAINS[i] for i in DomainHead(document).predict(vectors)] == ["law", "engineering"]


def test_one_algorithm_leaves_the_other_files_alone(train, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "knn_model.json").write_text("mine")
    assert train(out, "--algorithm", "svm").status == 0
    assert files_in(out) == [HEAD, "knn_model.json", "svm_model.json"]
    assert (out / "knn_model.json").read_text() == "mine"


def test_the_same_seed_gives_the_same_bytes_with_a_cold_and_a_warm_cache(train, tmp_path):
    for folder in ("cold", "warm"):
        assert train(tmp_path / folder, "--seed", 4).status == 0
    for name in [*FILES.values(), HEAD]:
        assert (tmp_path / "cold" / name).read_bytes() == (tmp_path / "warm" / name).read_bytes(), name


def test_another_seed_changes_kmeans_and_mlp_and_nothing_else(train, tmp_path):
    for seed in (0, 1):
        assert train(tmp_path / str(seed), "--seed", seed).status == 0
    for algorithm in FILES:
        first, second = (read(tmp_path / seed, algorithm) for seed in "01")
        assert (without_own(first) == without_own(second)) is (algorithm in ("knn", "svm"))
        assert first["gpu_select"]["options"].pop("seed") == 0
        assert second["gpu_select"]["options"].pop("seed") == 1
        assert first["gpu_select"] == second["gpu_select"]


def test_everything_of_ours_stands_under_one_key(train, tmp_path):
    assert train(tmp_path / "rbf").status == train(tmp_path / "linear", "--svm-kernel", "linear").status == 0
    svm = {"algorithm", "trained", "model_names", "kernel_type", "gamma", "linear_classifiers", "rbf_classifiers"}
    standard = {
        "knn": {"algorithm", "trained", "k", "embeddings", "labels", "qualities"},
        "kmeans": {"algorithm", "trained", "num_clusters", "centroids", "cluster_models"},
        "svm": svm,
        "mlp": {"algorithm", "trained", "model_names", "feature_dim", "hidden_sizes", "n_classes", "dropout", "layers"},
    }
    for algorithm, keys in standard.items():
        assert set(read(tmp_path / "rbf", algorithm)) == {*keys, "gpu_select"}
    assert set(read(tmp_path / "linear", "svm")) == {*svm, "gpu_select"}


def test_a_file_says_where_it_comes_from(train, tmp_path, tiny_encoder_path):
    assert train(tmp_path / "out", "--knn-k", 7, "--seed", 3, "--limit", 40).status == 0
    encoder = load_encoder(str(tiny_encoder_path))
    for algorithm in FILES:
        own = read(tmp_path / "out", algorithm)["gpu_select"]
        assert own["encoder"] == {"name": "tiny-bert", "fingerprint": encoder.fingerprint, "dim": 32}
        assert own["domains"] == list(WIRE_ORDER)
        assert own["options"] == TrainOptions().changed({"knn": {"k": 7}, "seed": 3}).as_mapping()
        assert len(unpack_digests(own["data"].pop("query_digests"))) == 40
        assert own["data"] == {"records": 200, "queries": 40, "models": list(MODEL_NAMES)}
        assert set(own["domain_models"].values()) <= set(MODEL_NAMES)
        assert str(tmp_path) not in json.dumps(own)


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("knn", []),
        ("knn", ["--knn-k", 1]),
        ("knn", ["--knn-k", 500]),
        ("kmeans", []),
        ("kmeans", ["--kmeans-clusters", 30]),
        ("svm", []),
        ("svm", ["--svm-gamma", 10]),
        ("svm", ["--svm-kernel", "linear"]),
        ("mlp", []),
    ],
    ids=lambda value: "-".join(map(str, value)).strip("-") or "default" if isinstance(value, list) else value,
)
def test_an_engine_decides_from_the_file_as_our_selector_does(train, tmp_path, held_out, engine, algorithm, options):
    assert train(tmp_path, "--algorithm", algorithm, *options).status == 0
    path = tmp_path / FILES[algorithm]
    routes = route_features(load_selector(path).selector, held_out)
    assert len(routes.models) == 230
    assert routes.models == engine.decide(path, held_out)
    assert len(set(routes.models)) > (1 if options != ["--knn-k", 500] else 0)


@pytest.mark.parametrize("algorithm", FILES)
def test_the_quality_weight_shifts_decisions_from_the_best_to_the_fastest(train, tmp_path, held_out, algorithm):
    chosen = {}
    for weight in (0, 1):
        assert train(tmp_path / str(weight), "--algorithm", algorithm, "--quality-weight", weight).status == 0
        selector = load_selector(tmp_path / str(weight) / FILES[algorithm]).selector
        chosen[weight] = route_features(selector, held_out).models
    # at 0 only the time counts, and sim-small-1b is the fastest by far on every kind of query
    assert set(chosen[0]) == {"sim-small-1b"}
    assert set(chosen[1]) != {"sim-small-1b"}


def test_options_reach_the_files(train, tmp_path):
    options = ["--knn-k", 9, "--kmeans-clusters", 3, "--svm-kernel", "linear", "--svm-gamma", 0.25]
    assert train(tmp_path / "out", *options).status == 0
    assert read(tmp_path / "out", "knn")["k"] == 9
    assert read(tmp_path / "out", "kmeans")["num_clusters"] == 3
    svm = read(tmp_path / "out", "svm")
    assert (svm["kernel_type"], svm["gamma"], svm["rbf_classifiers"]) == ("Linear", 0.25, [])


def test_batch_size_bounds_what_the_encoder_takes_at_once(train, tmp_path, monkeypatch):
    from gpu_select.encoder import Encoder

    rows = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, batch: (rows.append(len(batch.lengths)), encode(self, batch))[1]
    )
    assert train(tmp_path / "out", "--batch-size", 7, "--algorithm", "knn").status == 0
    assert max(rows) == 7
    assert sum(rows) == 120


def test_one_query_and_one_model_are_enough(train, tmp_path, write_lines, engine):
    record = {"query": "why?", "category": "law", "model_name": "only", "performance": 0.5, "response_time": 1.0}
    data = write_lines(tmp_path / "one.jsonl", [record])
    for kernel in ("rbf", "linear"):
        assert train(tmp_path / kernel, "--svm-kernel", kernel, data_file=data).status == 0
        for name in FILES.values():
            features = np.ones((3, 46), np.float32)
            assert engine.decide(tmp_path / kernel / name, features) == ["only"] * 3


def test_what_was_noticed_is_said_in_one_line_each(train, tmp_path, write_lines):
    record = {"category": "law", "performance": 0.5, "response_time": 1.0}
    rows = [record | {"query": f"what is number {i}?", "model_name": name} for i in range(6) for name in "ab"]
    rows[3] = {"query": "no model"}
    rows.append(record | {"query": "list " * 500, "model_name": "a"})
    data = write_lines(tmp_path / "data.jsonl", rows)
    done = train(tmp_path / "out", data_file=data)
    assert done.status == 0
    assert done.err.splitlines() == [
        f"warning: {data}: left out 1 of 13 records: line 4: model_name: expected a text that is not empty, got None",
        f"warning: {data}: 2 of 14 (query, model) pairs have no outcome; means are over what is there",
        "warning: 1 queries are longer than the encoder takes and were truncated",
    ]


def check_failed(done, folder, text: str) -> None:
    """One line on standard error, and nothing in the folder."""
    assert done.status == 1
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert text in done.err
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--device", "tpu"], "error: device: expected cpu, cuda, cuda:N or mps, got 'tpu'"),
        (["--device", "cuda:99"], "error: device cuda:99: PyTorch sees "),
        (["--embedding-model", "nonesuch"], "error: encoder 'nonesuch': no such folder, and not a hub id"),
        (["--data-file", "nonesuch.jsonl"], "error: cannot read nonesuch.jsonl: No such file or directory"),
        (["--quality-weight", "nan"], "error: quality_weight: expected a number in [0, 1], got nan"),
        (["--limit", "0"], "error: limit: expected an integer >= 1, got 0"),
        (["--cache-dir", "/dev/null/cache"], "error: cannot write to the cache folder /dev/null/cache"),
    ],
)
def test_a_bad_option_is_one_line(train, tmp_path, options, text):
    check_failed(train(tmp_path / "out", *options), tmp_path / "out", text)


def test_all_bad_values_are_listed_at_once(train, tmp_path):
    bad = ["--knn-k", 0, "--kmeans-clusters", 0, "--svm-gamma", -1, "--quality-weight", 2, "--seed", -1]
    done = train(tmp_path / "out", *bad, "--batch-size", 0, "--limit", -5)
    check_failed(done, tmp_path / "out", "error: knn.k: expected an integer >= 1, got 0; kmeans.clusters: expected")
    for name in ("svm.gamma", "quality_weight", "seed", "batch-size", "limit"):
        assert f"; {name}: expected " in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "expected at least one record with query, model_name and performance, got 0 records"),
        (b"\n\n", "got 0 records of which none is usable"),
        (b"{broken\n", "got 1 records of which none is usable (line 1: not JSON: "),
        (
            b'{"query": "q", "model_name": "m", "performance": 1.5}\n',
            "performance: expected a number in [0, 1], got 1.5",
        ),
    ],
)
def test_no_usable_record_is_one_line(train, tmp_path, content, text):
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    check_failed(train(tmp_path / "out", data_file=data), tmp_path / "out", text)


def test_strict_stops_at_the_first_bad_record(train, tmp_path, data_dir):
    lines = (data_dir / "train.jsonl").read_bytes().splitlines(keepends=True)
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"".join([*lines[:2], b"{broken\n", *lines[2:]]))
    assert train(tmp_path / "lax", "--algorithm", "knn", data_file=data).status == 0
    done = train(tmp_path / "out", "--strict", data_file=data)
    check_failed(done, tmp_path / "out", f"error: {data}: line 3: not JSON: ")


def test_an_output_folder_that_is_a_file(train, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = train(tmp_path / "out")
    check_failed(done, tmp_path / "nothing", f"error: cannot write {tmp_path / 'out'}: it is a file, and a folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_folder_below_a_file(train, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = train(tmp_path / "file" / "out")
    check_failed(done, tmp_path / "nothing", f"error: cannot write {tmp_path / 'file' / 'out'}: Not a directory")


def test_an_output_folder_without_the_right_to_write_is_noticed_before_any_work(train, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    touch = Path.touch

    def refuse(path, *args, **kwargs):  # tests may run as root, whom no permission stops
        if path.parent == out:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return touch(path, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)
    check_failed(train(out), out, f"error: cannot write {out}: Permission denied")


def test_a_disk_that_fills_up_leaves_nothing_half_written(train, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert train(tmp_path / "warm").status == 0
    monkeypatch.setattr(os, "fsync", full)
    done = train(tmp_path / "out")
    check_failed(done, tmp_path / "out", f"error: cannot write {tmp_path / 'out' / 'knn_model.json'}: No space left")


def test_an_interrupt_leaves_nothing_half_written(train, tmp_path, monkeypatch):
    written = []
    dumps = jsonio.dumps_float32

    def interrupted(row):
        written.append(row)
        if len(written) == 50:
            raise KeyboardInterrupt
        return dumps(row)

    monkeypatch.setattr(jsonio, "dumps_float32", interrupted)
    done = train(tmp_path / "out")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert len(written) == 50
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["--data-file", "x", "--knn-k", "many"], ["--data-file", "x", "--algorithm", "tree"], ["--no-such-option"]],
)
def test_wrong_usage_is_status_two_and_no_traceback(cli, arguments):
    done = cli("train", *arguments)
    assert done.status == 2
    assert done.err.startswith("Usage: gpu-select train ")


# ---------------------------------------------------------------- settings from a file


@pytest.fixture
def write_config(tmp_path):
    def run(text: str) -> Path:
        (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "settings.yaml"

    return run


def test_settings_of_a_file_reach_the_selectors(train, tmp_path, write_config):
    config = write_config("knn: {k: 3, domain_weight: 0.25}\nsvm:\n  kernel: linear\nquality_weight: 1\n")
    assert train(tmp_path / "out", "--config", config, "--no-check").status == 0
    knn = read(tmp_path / "out", "knn")
    assert knn["k"] == 3
    assert {max(row[-14:]) for row in knn["embeddings"]} == {0.25}
    assert read(tmp_path / "out", "svm")["kernel_type"] == "Linear"
    own = read(tmp_path / "out", "kmeans")["gpu_select"]["options"]
    expected = {"knn": {"k": 3, "domain_weight": 0.25}, "svm": {"kernel": "linear"}, "quality_weight": 1}
    assert own == TrainOptions().changed(expected).as_mapping()


def test_an_option_wins_over_the_file_even_if_it_is_the_default(train, tmp_path, write_config):
    config = write_config("knn: {k: 3}\nkmeans: {clusters: 2}\nseed: 7\n")
    assert train(tmp_path / "out", "--config", config, "--knn-k", 5, "--seed", 8, "--no-check").status == 0
    own = read(tmp_path / "out", "knn")["gpu_select"]["options"]
    assert (own["knn"]["k"], own["kmeans"]["clusters"], own["seed"]) == (5, 2, 8)


def test_mistakes_in_the_file_are_listed_at_once_with_its_name(train, tmp_path, write_config):
    config = write_config("knn: {k: 0, neighbors: 3}\nforest: {}\nquality_weight: 7\n")
    done = train(tmp_path / "out", "--config", config, "--batch-size", 0)
    check_failed(done, tmp_path / "out", f"error: {config}: knn.neighbors: no such setting; expected one of ")
    for text in ("knn.k: expected an integer >= 1, got 0", "forest: no such setting", "quality_weight: expected a "):
        assert f"; {config}: {text}" in done.err
    assert "; batch-size: expected an integer >= 1, got 0" in done.err


def test_a_file_of_settings_that_is_missing_or_broken_is_one_line(train, tmp_path, write_config):
    done = train(tmp_path / "out", "--config", tmp_path / "nonesuch.yaml")
    check_failed(done, tmp_path / "out", f"error: cannot read {tmp_path / 'nonesuch.yaml'}: No such file or directory")
    done = train(tmp_path / "out", "--config", config := write_config("knn: [unclosed"))
    check_failed(done, tmp_path / "out", f"error: {config}: line 1, column ")


# ---------------------------------------------------------------- the check at the end


def test_a_line_a_selector_says_what_it_gains_on_held_out_queries(train, tmp_path):
    done = train(tmp_path / "out")
    first, second, *lines, last = done.out.splitlines()
    assert len(lines) + done.err.count("held-out queries: with these settings it loses") == 4
    assert first.startswith("trained knn, kmeans, svm, mlp on 120 queries x 5 models")
    assert second.startswith("trained a domain head on 120 queries of ")
    assert re.fullmatch(r"domain head: \d+\.\d% of 24 held-out queries in their category", last)
    for line in lines:
        assert line.split(":")[0] in FILES
        assert " mean utility over always choosing sim-" in line
        assert line.endswith(", on 24 held-out queries")


@pytest.fixture
def noise_file(tmp_path, write_lines) -> Path:
    """Outcomes by chance: the first model does better on average, and nothing tells where."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(1000):
        query = {"query": f"what is number {rng.integers(10**9)}?", "category": str(rng.choice(WIRE_ORDER))}
        for name, mean in (("steady", 0.6), ("shaky", 0.4)):
            performance = min(1.0, max(0.0, rng.normal(mean, 0.2)))
            rows.append(query | {"model_name": name, "performance": performance, "response_time": 1.0})
    return write_lines(tmp_path / "noise.jsonl", rows)


def test_settings_that_lose_are_warned_of_in_one_line(train, tmp_path, write_config, noise_file):
    # as many clusters as queries, each of which believes its one outcome
    config = write_config("kmeans: {clusters: 10000, shrinkage: 0.001, gamma: 100000.0, ridge: 0.001}\n")
    done = train(tmp_path / "out", "--config", config, "--algorithm", "kmeans", data_file=noise_file)
    assert done.status == 0
    (line,) = done.err.splitlines()
    assert line.startswith("warning: kmeans: -0.0")
    assert "mean utility over always choosing steady, on 200 held-out queries: with these settings it loses; " in line
    assert "`gpu-select tune`" in line
    assert "kmeans" not in "".join(done.out.splitlines()[1:])
    assert files_in(tmp_path / "out") == [HEAD, "kmeans_model.json"]


def test_settings_that_do_not_lose_are_not_warned_of(train, tmp_path, noise_file):
    done = train(tmp_path / "out", "--algorithm", "kmeans", data_file=noise_file)
    assert (done.status, done.err) == (0, "")
    assert sum(line.startswith("kmeans: ") for line in done.out.splitlines()) == 1


@pytest.mark.parametrize(("limit", "option", "n_lines"), [(50, [], 4), (49, [], 2), (50, ["--no-check"], 2)])
def test_the_check_needs_fifty_queries_and_can_be_left_out(train, tmp_path, noise_file, limit, option, n_lines):
    options = "--algorithm", "svm", "--limit", limit, *option
    done = train(tmp_path / "out", *options, data_file=noise_file)
    assert done.status == 0
    assert len((done.out + done.err).splitlines()) == n_lines
    assert ("held-out" in done.out + done.err) is (n_lines == 4)


def test_the_check_changes_nothing_in_the_files(train, tmp_path):
    assert train(tmp_path / "with").status == train(tmp_path / "without", "--no-check").status == 0
    for name in [*FILES.values(), HEAD]:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_one_query_in_many_spellings_is_not_checked(train, tmp_path, write_lines):
    record = {"category": "law", "model_name": "a", "performance": 0.5, "response_time": 1.0}
    data = write_lines(tmp_path / "data.jsonl", [record | {"query": "why?" + " " * i} for i in range(60)])
    done = train(tmp_path / "out", "--algorithm", "knn", data_file=data)
    assert done.status == 0, done.err
    assert "held-out" not in done.out
