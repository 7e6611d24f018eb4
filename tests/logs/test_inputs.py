from __future__ import annotations

import os

import pytest

from gpu_select.errors import InputError
from gpu_select.logs import find_logs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.jsonl",
        "a.csv.gz",
        "notes.md",
        "logs/day-10.jsonl",
        "logs/day-9.jsonl",
        "logs/year=2024/x.parquet",
        "logs/year=2024/_SUCCESS",
        "logs/_temporary/y.parquet",
        "logs/.hidden.jsonl",
        "logs/manifest.json",
        "empty/readme.md",
        "odd[1].jsonl",
        "odd1.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.jsonl", "a.csv.gz"], ["b.jsonl", "a.csv.gz"]),
        (["missing.jsonl"], ["missing.jsonl"]),
        (["-"], ["-"]),
        (["logs"], ["logs/day-10.jsonl", "logs/day-9.jsonl", "logs/year=2024/x.parquet"]),
        (["logs/*.jsonl"], ["logs/day-10.jsonl", "logs/day-9.jsonl"]),
        (["logs/day-?.jsonl", "b.jsonl"], ["logs/day-9.jsonl", "b.jsonl"]),
        (["log*"], ["logs/day-10.jsonl", "logs/day-9.jsonl", "logs/year=2024/x.parquet"]),
        (["logs/**/*.parquet"], ["logs/_temporary/y.parquet", "logs/year=2024/x.parquet"]),
        (["odd[1].jsonl"], ["odd[1].jsonl"]),
        (["notes.md"], ["notes.md"]),
    ],
)
def test_the_files_behind_names(folder, names, expected):
    assert find_logs(names) == expected


def test_with_a_format_every_file_of_a_folder_is_a_log(folder):
    assert find_logs(["empty"], "txt") == ["empty/readme.md"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["."], ["b.jsonl", "logs/day-9.jsonl"]),
        (["logs"], ["logs/day-9.jsonl"]),
        (["*"], ["b.jsonl", "logs/day-9.jsonl"]),
        (["**/*.jsonl"], ["b.jsonl", "logs/day-9.jsonl"]),
        (["logs/routed"], ["logs/routed/part-00000.jsonl"]),
        (["logs/routed/.."], ["logs/day-9.jsonl"]),
        (["logs/routed/*.jsonl"], ["logs/routed/part-00000.jsonl"]),
        (["logs/routed/part-00000.jsonl"], ["logs/routed/part-00000.jsonl"]),
    ],
)
def test_what_lies_in_the_output_was_not_there_when_the_run_began(tmp_path, monkeypatch, names, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "routed").mkdir(parents=True)
    for name in ("b.jsonl", "logs/day-9.jsonl", "logs/routed/part-00000.jsonl"):
        (tmp_path / name).touch()
    assert [os.path.normpath(name) for name in find_logs(names, output="logs/routed")] == expected


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["b.jsonl", "./b.jsonl"], r"^the input names ./b.jsonl twice: its rows would be routed twice$"),
        (["logs", "logs/day-*"], r"^the input names logs/day-10.jsonl twice"),
        (["-", "b.jsonl"], r"^cannot read standard input beside files: give -, or names of files$"),
        (["*.tsv"], r"^cannot read \*\.tsv: no file matches this pattern$"),
        (
            ["empty"],
            r"^cannot read empty: expected a folder with logs, got none by their names' endings; name files, or",
        ),
    ],
)
def test_names_that_stand_for_no_log(folder, names, text):
    with pytest.raises(InputError, match=text):
        find_logs(names)
