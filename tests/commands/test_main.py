"""The command group: help, exit statuses, one line an error, and a machine without the optional packages."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpu_select
from gpu_select import commands
from gpu_select.errors import ConfigError, OutputError

ROOT = Path(__file__).parents[2]


def test_help_names_every_command(cli):
    done = cli("--help")
    assert done.status == 0
    for name in ("train", "validate", "route", "demo"):
        assert f"\n  {name} " in done.out
    assert cli("-h").out == done.out


@pytest.mark.parametrize("name", ["train", "validate", "route", "demo"])
def test_each_command_has_a_help_text(cli, name):
    done = cli(name, "--help")
    assert done.status == 0
    assert done.out.startswith(f"Usage: gpu-select {name} ")
    listed = next(line for line in cli("--help").out.splitlines() if line.startswith(f"  {name} "))
    assert len(listed) < 80


def test_version(cli):
    done = cli("--version")
    assert (done.status, done.out) == (0, f"gpu-select, version {gpu_select.__version__}\n")


@pytest.mark.parametrize("arguments", [["rout"], ["--nonesuch"], ["route", "--nonesuch"]])
def test_wrong_usage_is_status_two(cli, arguments):
    done = cli(*arguments)
    assert done.status == 2
    assert done.err.startswith("Usage: gpu-select")


@pytest.fixture
def failing(cli, monkeypatch):
    """Call with an exception (or a function): what the command line makes of it when a command raises it."""

    def run(error):
        def invoke(self, ctx):
            raise error

        monkeypatch.setattr(commands._Group, "invoke", invoke)
        return cli("route")

    return run


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("knn-k", 0, "an integer >= 1"), "error: knn-k: expected an integer >= 1, got 0\n"),
        (OutputError("cannot write a\n\n  b"), "error: cannot write a b\n"),
        (MemoryError(), "error: out of memory; use a smaller --token-budget, fewer rows or a larger machine\n"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            "error: device out of memory outside the encoder; free memory on it or use --device cpu\n",
        ),
    ],
)
def test_an_error_is_one_line_and_status_one(failing, error, text):
    done = failing(error)
    assert (done.status, done.out, done.err) == (1, "", text)


def test_an_interrupt_is_no_traceback(failing):
    done = failing(KeyboardInterrupt())
    assert done.status == 1
    assert done.err.strip() == "Aborted!"


@pytest.mark.parametrize("error", [RuntimeError("our own bug"), TypeError("our own bug")])
def test_a_bug_of_ours_is_not_hidden(failing, error):
    with pytest.raises(type(error), match="our own bug"):
        failing(error)


def test_the_librarys_warnings_come_as_one_line_each(cli, monkeypatch):
    def invoke(self, ctx):
        logging.getLogger("gpu_select").warning("device %s: out of memory", "cpu")
        logging.getLogger("gpu_select").info("fetching %s", "a model")

    monkeypatch.setattr(commands._Group, "invoke", invoke)
    assert cli("route").err == "warning: device cpu: out of memory\ninfo: fetching a model\n"


# ---------------------------------------------------------------- without optional packages

OPTIONAL = ("orjson", "faiss", "pyarrow", "zstandard")


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """Call with arguments: `python -m gpu_select` from the source tree, with none of the optional packages."""
    folder = tmp_path_factory.mktemp("bare")
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n"
    (folder / "sitecustomize.py").write_text(blocked)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "kernels")))}

    def run(*arguments: object, python: tuple[str, ...] = ("-m", "gpu_select")) -> subprocess.CompletedProcess[str]:
        process = subprocess.run(
            [sys.executable, *python, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in process.stderr
        return process

    return run


def test_the_packages_are_really_not_there(bare):
    code = f"import importlib.util as u; print([u.find_spec(name) for name in {OPTIONAL}])"
    assert bare(code, python=("-c",)).stdout == "[None, None, None, None]\n"


def test_without_optional_packages_training_and_routing_work_and_decide_the_same(
    bare, data_dir, models_dir, tiny_encoder_path, tmp_path, cli
):
    encoder = "--embedding-model", tiny_encoder_path
    trained = bare(
        *("train", "--data-file", data_dir / "train.jsonl", "--output-dir", tmp_path / "models", *encoder),
        *("--device", "cpu", "--cache-dir", tmp_path / "cache"),
    )
    assert trained.returncode == 0, trained.stderr
    log = tmp_path / "log.csv.gz"
    rows = [f"what is number {i} of the city,law" for i in range(40)]
    log.write_bytes(gzip.compress("\n".join(["query,domain", *rows]).encode()))
    routed = bare(
        *("route", "--input", log, "--output", "-", "--models-dir", tmp_path / "models", "--algorithm", "svm"),
        *(*encoder, "--device", "cpu"),
    )
    assert routed.returncode == 0, routed.stderr
    usual = cli("route", "--input", log, "--output", "-", "--models-dir", models_dir, "--algorithm", "svm", *encoder)
    here, there = ([json.loads(line)["model"] for line in text.splitlines()] for text in (usual.out, routed.stdout))
    assert len(here) == 40
    assert here == there


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--input", "log.parquet", "--output", "out.jsonl"],
            "needs the package pyarrow, which is not installed: pip install 'gpu-select[parquet]'",
        ),
        (
            ["--input", "log.jsonl.zst", "--output", "out.jsonl"],
            "error: a .zst file needs the package zstandard, which is not installed: pip install 'gpu-select[zst]'",
        ),
        (
            ["--input", "log.jsonl", "--output", "out.jsonl", "--knn-backend", "faiss"],
            "error: the KNN backend faiss needs the package faiss, which is not installed: pip install 'gpu-select[",
        ),
    ],
    ids=["parquet", "zst", "faiss"],
)
def test_a_missing_package_is_named_where_it_is_needed(bare, models_dir, tmp_path, arguments, text):
    for name in ("log.parquet", "log.jsonl.zst", "log.jsonl"):
        (tmp_path / name).write_bytes(b"")
    arguments = [tmp_path / name if "." in name else name for name in arguments]
    process = bare("route", "--models-dir", models_dir, "--device", "cpu", *arguments)
    assert process.returncode == 1
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert text in process.stderr
    assert not (tmp_path / "out.jsonl").exists()
