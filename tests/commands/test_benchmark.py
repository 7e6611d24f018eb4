"""The options of `gpu-select benchmark`, and mistakes that end before the first call. Calls: tests/benchmark."""

from __future__ import annotations

import importlib.util
import os
import time

import click
import pytest

pytest.importorskip("aiohttp")

from gpu_select.benchmark.progress import ModelProgress, Progress
from gpu_select.commands import benchmark_progress
from gpu_select.commands.benchmark import command
from gpu_select.commands.benchmark_progress import ShownProgress

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks")

# names and defaults as documented; None: no default
DOCUMENTED = {
    "--queries": None,
    "--models": None,
    "--model-config": None,
    "--endpoint": "http://localhost:8000/v1",
    "--api-key": None,
    "--output": "benchmark_output.jsonl",
    "--concurrency": 4,
    "--limit": None,
    "--max-tokens": 1024,
    "--temperature": 0.0,
    "--timeout": 600.0,
    "--retries": 5,
    "--concise": None,
    "--interleave": None,
    "--no-progress": None,
}


def test_the_options_have_the_documented_names_and_defaults():
    options = {name: option for option in command.params for name in option.opts}
    context = click.Context(command)
    with_default = {name: default for name, default in DOCUMENTED.items() if default is not None}
    assert {name: options[name].get_default(context) for name in with_default} == with_default
    assert {name for name in DOCUMENTED if options[name].is_flag} == {"--concise", "--interleave", "--no-progress"}
    assert {name for name in DOCUMENTED if options[name].required} == {"--queries"}


def test_the_help_text_names_every_option_and_its_default(cli):
    done = cli("benchmark", "--help")
    assert done.status == 0
    words = " ".join(done.out.split())
    for name, default in DOCUMENTED.items():
        assert name in words
        assert default is None or f"[default: {default}" in words, name


@pytest.fixture
def queries(tmp_path, write_lines):
    return write_lines(tmp_path / "queries.jsonl", [{"query": "q"}])


@pytest.mark.parametrize("models", [[], ["--models", "a", "--model-config", "b"]])
def test_models_are_named_in_one_way(cli, queries, models):
    done = cli("benchmark", "--queries", queries, *models)
    assert done.status == 2
    assert "expected either --models NAMES or --model-config FILE" in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--concurrency", 0], "--concurrency': 0 is not in the range 1<=x<=10000"),
        (["--limit", 0], "--limit': 0 is not in the range x>=1"),
        (["--retries", -1], "--retries': -1 is not in the range 0<=x<=100"),
        (["--timeout", 0], "--timeout': 0.0 is not in the range"),
        (["--timeout", "nan"], "--timeout': 'nan' is not a number"),
        (["--temperature", "nan"], "--temperature': 'nan' is not a number"),
        (["--max-tokens", "many"], "--max-tokens': 'many' is not a valid integer range"),
    ],
)
def test_numbers_that_cannot_be(cli, queries, options, text):
    done = cli("benchmark", "--queries", queries, "--models", "a", *options)
    assert done.status == 2
    assert text in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--models", ","], "error: models: expected names of models with commas between, each once, got ''\n"),
        (["--models", "a,b,a"], "error: models: expected names of models with commas between, each once, got 'a'\n"),
        (
            ["--models", "a", "--endpoint", "localhost:8000"],
            "error: endpoint: expected an address such as http://localhost:8000/v1, got 'localhost:8000'\n",
        ),
        (["--models", "a", "--api-key", "a\nb"], "error: api-key: expected a text of one line that is not empty\n"),
        (["--model-config", "absent.yaml"], "error: cannot read absent.yaml: No such file or directory\n"),
        (
            ["--models", "a", "--output", "out.jsonl.gz"],
            "error: cannot write out.jsonl.gz: expected the name of a plain .jsonl file, as records are appended\n",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(cli, queries, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    done = cli("benchmark", "--queries", queries, *options)
    assert (done.status, done.out, done.err) == (1, "", text)
    assert [path.name for path in tmp_path.iterdir()] == ["queries.jsonl"]


def test_bad_queries_end_it_before_the_file_is_made(cli, tmp_path, write_lines, monkeypatch):
    monkeypatch.chdir(tmp_path)
    queries = write_lines(tmp_path / "queries.jsonl", [{"query": "q", "category": "maths"}])
    done = cli("benchmark", "--queries", queries, "--models", "a")
    assert done.status == 1
    assert done.err.startswith(f"error: {queries}: line 1: category: expected one of biology, business, chemistry,")
    assert done.err.endswith(", got 'maths'\n")
    assert not (tmp_path / "benchmark_output.jsonl").exists()


def test_a_variable_that_is_not_set_ends_it(cli, queries, tmp_path, monkeypatch):
    monkeypatch.delenv("NONESUCH", raising=False)
    config = tmp_path / "models.yaml"
    config.write_text("models: [{name: a, headers: {X-Key: 'k ${NONESUCH}'}}]\n")
    done = cli("benchmark", "--queries", queries, "--model-config", config)
    text = f"error: {config}: models[0].headers.X-Key: the environment variable NONESUCH is not set\n"
    assert (done.status, done.err) == (1, text)


def test_aiohttp_is_asked_for_where_it_is_needed(cli, queries, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiohttp" else find(name))
    done = cli("benchmark", "--queries", queries, "--models", "a")
    assert done.err == (
        "error: gpu-select benchmark needs the package aiohttp, which is not installed: "
        "pip install 'gpu-select[benchmark]'\n"
    )


# ---------------------------------------------------------------- progress


@pytest.fixture
def a():
    return ModelProgress("a", 4)


def test_a_bar_on_a_terminal(a, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ShownProgress(shown=True) as shown:
        shown.begin(Progress([a]), 6)
        a.answered, a.failed = 2, 1
        shown.change()
        time.sleep(0.2)
        shown.say("something else")
        a.answered = 3
        shown.change()
    err = capsys.readouterr().err
    assert "6 of 10 answers are there already\n" in err
    assert "4/4" in err
    assert "a 1 failed" in err
    assert "warning: something else\n" in err


def test_lines_elsewhere(a, capsys, monkeypatch):
    monkeypatch.setattr(benchmark_progress, "_LINE_S", 0.0)
    with ShownProgress(shown=True) as shown:
        shown.begin(Progress([a]), 0)
        a.answered = 1
        shown.change()
        a.answered = 4
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" calls")[0] for line in lines] == ["1 of 4", "4 of 4"]


def test_lines_come_now_and_then(a, capsys):
    with ShownProgress(shown=True) as shown:
        shown.begin(Progress([a]), 0)
        for _ in range(4):
            a.answered += 1
            shown.change()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_nothing_but_warnings_where_none_is_wanted(a, capsys):
    with ShownProgress(shown=False) as shown:
        shown.begin(Progress([a]), 0)
        a.answered = 4
        shown.change()
        shown.say("but this")
    assert capsys.readouterr().err == "warning: but this\n"
