from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import click
import numpy as np
import pytest

from gpu_select import jsonio
from gpu_select.commands.tune import command
from gpu_select.records import read_outcomes
from gpu_select.report import read_tuning
from gpu_select.training import TrainOptions, read_settings
from gpu_select.training.tuning.grids import kmeans_grid
from gpu_select.wire import RBFClassifier, read_selector_file
from gpu_select.yamlio import load_yaml

DOCUMENTED = {
    "--data-file": None,
    "--output": "tuned.yaml",
    "--embedding-model": "qwen3",
    "--cache-dir": ".cache/",
    "--algorithm": "all",
    "--folds": 5,
    "--quality-weight": 0.9,
    "--device": "auto",
    "--limit": None,
    "--seed": 0,
    "--strict": False,
}
ALGORITHMS = ("knn", "kmeans", "svm", "mlp")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tune(cli, data_dir, tiny_encoder_path, cache):
    """Call with an output file and further options, which win over the usual ones."""

    def run(output, *options, data_file=data_dir / "train.jsonl", quick=True):
        usual = "--data-file", data_file, "--embedding-model", tiny_encoder_path, "--cache-dir", cache
        speed = ("--algorithm", "kmeans", "--folds", 2, "--limit", 60) if quick else ()
        return cli("tune", *usual, *speed, "--output", output, *options)

    return run


@pytest.fixture(scope="module")
def tuned(cli, data_dir, tiny_encoder_path, cache, tmp_path_factory):
    """Everything tuned once: what was said, and the file."""
    output = tmp_path_factory.mktemp("tuned") / "tuned.yaml"
    done = cli(
        *("tune", "--data-file", data_dir / "train.jsonl", "--embedding-model", tiny_encoder_path),
        *("--cache-dir", cache, "--folds", 3, "--output", output, "--seed", 2, "--quality-weight", 0.8),
    )
    assert done.status == 0, done.err
    return done, output


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_options_have_the_documented_names_and_defaults():
    options = {name: option for option in command.params for name in option.opts}
    context = click.Context(command)
    no_default = {name for name, default in DOCUMENTED.items() if default is None}
    found = {name: options[name].get_default(context) for name in DOCUMENTED if name not in no_default}
    assert found | dict.fromkeys(no_default) == DOCUMENTED
    assert {name for name in DOCUMENTED if options[name].required} == {"--data-file"}
    assert list(options["--algorithm"].type.choices) == ["all", *ALGORITHMS]


def test_it_writes_settings_and_the_table_and_says_so(tuned, data_dir):
    done, output = tuned
    assert done.err == "warning: 116 queries are longer than the encoder takes and were truncated\n"
    assert files_in(output.parent) == ["tuned.json", "tuned.yaml"]
    lines = done.out.splitlines()
    assert lines[0].startswith("120 queries, 3 folds; ")
    assert lines[1].startswith("oracle 0.")
    assert lines[2].startswith("always sim-")
    assert "*: chosen; the default settings, unless others do better by more than chance" in lines
    shown = [line for line in lines if line.startswith("* ")]
    assert [line.split()[1] for line in shown] == list(ALGORITHMS)
    n_trials = len(json.loads(output.with_suffix(".json").read_bytes())["trials"])
    assert f"tried {n_trials} settings -> {output}, the table -> {output.with_suffix('.json')}" in lines
    assert lines[-1].startswith(f"next: gpu-select train --config {output} --data-file {data_dir / 'train.jsonl'} ")


def test_the_settings_are_those_that_were_chosen(tuned):
    _, output = tuned
    document = json.loads(output.with_suffix(".json").read_bytes())
    settings = load_yaml(output)
    assert list(settings) == [*ALGORITHMS, "quality_weight", "seed"]
    assert (settings["quality_weight"], settings["seed"]) == (0.8, 2)
    assert document["chosen"] == {name: settings[name] for name in ALGORITHMS}
    for name in ALGORITHMS:
        (chosen,) = (t for t in document["trials"] if t["algorithm"] == name and t["chosen"])
        assert chosen["settings"] == settings[name]
    assert read_settings(output) == TrainOptions().changed(settings)


def test_the_table_follows_the_documented_form(tuned, data_dir):
    _, output = tuned
    document = json.loads(output.with_suffix(".json").read_bytes())
    table, _ = read_outcomes(data_dir / "train.jsonl")
    assert {name: document[name] for name in ("format", "version", "encoder", "queries", "folds", "seed")} == {
        "format": "gpu_select.tuning",
        "version": 1,
        "encoder": "tiny-bert",
        "queries": 120,
        "folds": 3,
        "seed": 2,
    }
    assert set(document) == {
        *("format", "version", "data_file", "encoder", "queries", "models", "folds", "seed", "quality_weight"),
        *("baselines", "chosen", "trials"),
    }
    assert document["data_file"] == str(data_dir / "train.jsonl")
    assert document["models"] == table.models
    assert document["baselines"]["oracle"] == pytest.approx(np.nanmax(table.quality_QM, axis=1).mean())
    assert set(document["baselines"]) == {"oracle", "best_single", "per_domain", "random"}
    assert set(document["baselines"]["best_single"]) == {"model", "quality"}
    for trial in document["trials"]:
        assert set(trial) == {
            *("algorithm", "settings", "quality", "utility", "gain", "gain_ci95", "folds", "chosen"),
        }
        assert len(trial["folds"]) == 3
        assert trial["quality"] <= document["baselines"]["oracle"]


def test_report_reads_the_table(tuned):
    _, output = tuned
    found = read_tuning(str(output.with_suffix(".json")))
    assert found.algorithms == ALGORITHMS
    assert (found.queries, found.folds, found.seed) == (120, 3, 2)
    assert {name: dict(values) for name, values in found.chosen.items()}["mlp"]["hidden_sizes"] in ("32", "64")
    assert sum(trial.chosen for trial in found.trials) == 4


def test_a_page_is_drawn_from_it(cli, tuned, tmp_path):
    _, output = tuned
    done = cli("report", "--tuning", output.with_suffix(".json"), "--output", tmp_path / "page.html")
    assert done.status == 0, done.err
    assert "hidden_sizes" in (tmp_path / "page.html").read_text()


def test_train_takes_the_file_and_its_settings_land_in_the_selectors(cli, tuned, data_dir, tiny_encoder_path, tmp_path):
    _, output = tuned
    settings = load_yaml(output)
    usual = "--data-file", data_dir / "train.jsonl", "--embedding-model", tiny_encoder_path, "--cache-dir", tmp_path
    done = cli("train", *usual, "--config", output, "--output-dir", tmp_path / "out", "--no-check")
    assert done.status == 0, done.err
    knn, kmeans, svm, mlp = (read_selector_file(tmp_path / "out" / f"{name}_model.json") for name in ALGORITHMS)
    assert knn.k == settings["knn"]["k"]
    one_hot = knn.embeddings_ND[:, -14:]
    np.testing.assert_array_equal(one_hot.max(axis=1), np.float32(settings["knn"]["domain_weight"]))
    assert len(kmeans.centroids_KD) <= settings["kmeans"]["clusters"]
    assert isinstance(svm.rbf_classifiers[0], RBFClassifier)
    assert {c.gamma for c in svm.rbf_classifiers} == {settings["svm"]["gamma"]}
    norms = np.linalg.norm(svm.rbf_classifiers[0].support_vectors_SD[:, -14:], axis=1)
    np.testing.assert_allclose(norms, settings["svm"]["domain_weight"] * 0.5**0.5, rtol=1e-5)
    assert mlp.hidden_sizes == [n * settings["mlp"]["members"] for n in settings["mlp"]["hidden_sizes"]]
    for document in (knn, kmeans, svm, mlp):
        assert document.own["options"] == TrainOptions().changed(settings).as_mapping()


def test_options_of_the_command_line_win_over_the_file(cli, tuned, data_dir, tiny_encoder_path, tmp_path):
    _, output = tuned
    usual = "--data-file", data_dir / "train.jsonl", "--embedding-model", tiny_encoder_path, "--cache-dir", tmp_path
    own = "--knn-k", 3, "--svm-gamma", 0.125, "--seed", 0, "--no-check"
    done = cli("train", *usual, "--config", output, *own, "--output-dir", tmp_path / "out")
    assert done.status == 0, done.err
    expected = load_yaml(output)
    expected["knn"]["k"], expected["svm"]["gamma"], expected["seed"] = 3, 0.125, 0  # a default that is given, too
    for name in ALGORITHMS:
        document = read_selector_file(tmp_path / "out" / f"{name}_model.json")
        assert document.own["options"] == TrainOptions().changed(expected).as_mapping()
    assert read_selector_file(tmp_path / "out" / "knn_model.json").k == 3


def test_one_algorithm_writes_its_settings_alone(tune, tmp_path):
    done = tune(tmp_path / "one.yml")
    assert done.status == 0, done.err
    assert list(load_yaml(tmp_path / "one.yml")) == ["kmeans", "quality_weight", "seed"]
    document = json.loads((tmp_path / "one.json").read_bytes())
    assert list(document["chosen"]) == ["kmeans"]
    assert len(document["trials"]) == len(kmeans_grid(30))
    assert document["queries"] == 60


def test_the_same_seed_gives_the_same_bytes(tune, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert tune(tmp_path / name / "tuned.yaml", "--seed", 5).status == 0
    for name in ("tuned.yaml", "tuned.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_that_is_not_there_is_made(tune, tmp_path):
    assert tune(tmp_path / "new" / "deep" / "tuned.yaml").status == 0
    assert files_in(tmp_path / "new" / "deep") == ["tuned.json", "tuned.yaml"]


def test_a_bar_shows_what_is_tuned(cli, data_dir, tiny_encoder_path, cache, tmp_path):
    done = cli(
        *("tune", "--data-file", data_dir / "train.jsonl", "--embedding-model", tiny_encoder_path),
        *("--cache-dir", cache, "--algorithm", "knn", "--folds", 2, "--limit", 60),
        *("--output", tmp_path / "tuned.yaml"),
        terminal=True,
    )
    assert done.status == 0
    assert "tuning knn: " in done.err


def check_failed(done, folder: Path, text: str) -> None:
    assert done.status == 1
    assert done.out == ""
    assert done.err.startswith(f"error: {text}")
    assert done.err.count("\n") == 1
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--folds", 1], "folds: expected an integer >= 2, got 1"),
        (["--limit", 0], "limit: expected an integer >= 1, got 0"),
        (["--limit", 19], "expected at least 20 different queries to tune on, got 19"),
        (["--folds", 40], "expected at least 80 different queries to tune on, got 60"),
        (["--quality-weight", "nan"], "quality_weight: expected a number in [0, 1], got nan"),
        (["--seed", -1], "seed: expected an integer in [0, 2^63), got -1"),
        (["--device", "tpu"], "device: expected cpu, cuda, cuda:N or mps, got 'tpu'"),
        (["--data-file", "nonesuch.jsonl"], "cannot read nonesuch.jsonl: No such file or directory"),
        (["--embedding-model", "nonesuch"], "encoder 'nonesuch': no such folder, and not a hub id"),
    ],
)
def test_a_bad_option_is_one_line(tune, tmp_path, options, text):
    check_failed(tune(tmp_path / "out" / "tuned.yaml", *options), tmp_path / "out", text)


@pytest.mark.parametrize("name", ["tuned.json", "tuned", "tuned.yaml.gz"])
def test_a_name_that_is_not_yaml(tune, tmp_path, monkeypatch, name):
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)  # before any work
    text = f"output: expected a name that ends in .yaml or .yml, got {tmp_path / 'out' / name}"
    check_failed(tune(tmp_path / "out" / name), tmp_path / "out", text)


def test_places_that_cannot_be_written_are_noticed_before_any_work(tune, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)
    (tmp_path / "file").write_text("mine")
    check_failed(tune(tmp_path / "file" / "tuned.yaml"), tmp_path / "none", f"cannot write {tmp_path / 'file'}")
    for name in ("tuned.yaml", "tuned.json"):
        folder = tmp_path / f"below {name}"
        (folder / name).mkdir(parents=True)
        done = tune(folder / "tuned.yaml")
        assert done.status == 1
        assert done.err == f"error: cannot write {folder / name}: it is a folder\n"


def test_a_folder_without_the_right_to_write(tune, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    touch = Path.touch

    def refuse(path, *args, **kwargs):  # tests may run as root, whom no permission stops
        if path.parent == out:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return touch(path, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)
    check_failed(tune(out / "tuned.yaml"), out, f"cannot write {out}: Permission denied")


def test_a_disk_that_fills_up_leaves_nothing_half_written(tune, tmp_path, monkeypatch):
    assert tune(tmp_path / "warm.yaml").status == 0

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = tune(tmp_path / "out" / "tuned.yaml")
    assert done.status == 1
    assert done.err == f"error: cannot write {tmp_path / 'out' / 'tuned.json'}: No space left on device\n"
    assert files_in(tmp_path / "out") == []


def test_an_interrupt_leaves_nothing_behind(tune, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(jsonio, "dumps", interrupted)
    done = tune(tmp_path / "out" / "tuned.yaml")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize("arguments", [[], ["--data-file", "x", "--folds", "many"], ["--knn-k", "5"]])
def test_wrong_usage_is_status_two(cli, arguments):
    done = cli("tune", *arguments)
    assert done.status == 2
    assert done.err.startswith("Usage: gpu-select tune ")
