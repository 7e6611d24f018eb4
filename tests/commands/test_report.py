from __future__ import annotations

import builtins
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from gpu_select.commands.report import command


@pytest.fixture(scope="session")
def documents():
    """The documents of tests/report."""
    path = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_documents", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(documents, tmp_path):
    """validation.json, tuned.json and replay.json of a folder."""
    for name, document in (
        ("validation.json", documents.validation_document()),
        ("tuned.json", documents.tuning_document()),
        ("replay.json", documents.replay_document()),
    ):
        (tmp_path / name).write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def check_failed(done, text):
    assert done.status == 1
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert text in done.err


def test_the_documented_options():
    options = {name: option for option in command.params for name in option.opts}
    assert list(options) == ["--validation", "--tuning", "--replay", "--output"]
    assert options["--validation"].multiple
    assert options["--output"].default == "report.html"


def test_one_page_of_all_files(cli, files):
    pytest.importorskip("plotly")
    out = files / "new folder" / "report.html"
    validation = files / "validation.json"
    done = cli(
        *("report", "--validation", validation, "--validation", validation),
        *("--tuning", files / "tuned.json", "--replay", files / "replay.json", "--output", out),
    )
    assert done.status == 0, done.err
    assert done.err == ""
    assert done.out == f"{out}: {out.stat().st_size / 1e6:.1f} MB, open it in a browser\n"
    assert out.stat().st_size < 6_000_000
    assert out.read_text(encoding="utf-8").count("<h2 ") == 4


def test_a_compressed_file_is_read(cli, files):
    import gzip

    pytest.importorskip("plotly")
    packed = files / "validation.json.gz"
    packed.write_bytes(gzip.compress((files / "validation.json").read_bytes()))
    done = cli("report", "--validation", packed, "--output", files / "report.html")
    assert done.status == 0, done.err


def test_without_a_file_there_is_nothing_to_report(cli, tmp_path):
    done = cli("report", "--output", tmp_path / "report.html")
    check_failed(done, "--validation: expected a file of gpu-select validate --json, or --tuning with one of tune")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--validation", "tuned.json"), "format: expected 'gpu_select.validation'"),
        (("--tuning", "validation.json"), "got 'gpu_select.validation'; give this file as --validation"),
        (("--validation", "replay.json"), "got 'gpu_select.replay'; give this file as --replay"),
        (
            ("--replay", "tuned.json"),
            "format: expected 'gpu_select.replay', the JSON that gpu-select replay --json writes",
        ),
        (("--validation", "missing.json"), "cannot read "),
        (("--validation", "cut.json"), "expected the JSON that gpu-select validate --json writes"),
    ],
)
def test_a_wrong_file_is_one_line_and_leaves_no_page(cli, files, options, text):
    (files / "cut.json").write_bytes((files / "validation.json").read_bytes()[:5000])
    out = files / "report.html"
    done = cli("report", options[0], files / options[1], "--output", out)
    check_failed(done, text)
    assert str(files / options[1]) in done.err
    assert not out.exists()


def test_an_input_is_not_overwritten(cli, files):
    before = (files / "validation.json").read_bytes()
    done = cli("report", "--validation", files / "validation.json", "--output", f"{files}/./validation.json")
    check_failed(done, "--output: expected a file other than those that are read, got ")
    assert (files / "validation.json").read_bytes() == before


def test_an_output_that_cannot_be_written_is_known_before_anything_is_read(cli, files):
    (files / "file").write_text("", encoding="utf-8")
    done = cli("report", "--validation", files / "missing.json", "--output", files / "file" / "report.html")
    check_failed(done, "cannot write ")


def test_a_folder_is_no_page(cli, files):
    pytest.importorskip("plotly")
    done = cli("report", "--validation", files / "validation.json", "--output", files)
    check_failed(done, f"cannot write {files}: it is a folder")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(cli, files):
    closed = files / "closed"
    closed.mkdir(mode=0o500)
    done = cli("report", "--validation", files / "validation.json", "--output", closed / "report.html")
    check_failed(done, "Permission denied")


def test_without_plotly_the_cure_is_named(cli, files, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name.partition(".")[0] == "plotly":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    done = cli("report", "--validation", files / "validation.json", "--output", files / "report.html")
    check_failed(
        done,
        "a report needs the package plotly, which is not installed: pip install 'gpu-select[report]'",
    )


def test_the_page_goes_to_standard_output_if_told_so(cli, files):
    pytest.importorskip("plotly")
    done = cli("report", "--validation", files / "validation.json", "--output", "-")
    assert done.status == 0, done.err
    assert done.out.startswith("<!DOCTYPE html>")
    assert done.out.rstrip().endswith("</html>")
