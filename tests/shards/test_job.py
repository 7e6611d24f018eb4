from __future__ import annotations

import json
import os

import pytest

from gpu_select.errors import ConfigError, InputError
from gpu_select.shards import FileIdentity, Job


def test_a_job_comes_out_of_json_as_it_went_in(write_log, job_of, embedded_rows):
    path = write_log("log.jsonl", embedded_rows(3))
    job = job_of(path, keep=("id", "query"), candidates=("a",), output_format="parquet", deterministic=True)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    ("names", "folder", "expected"),
    [
        (["a.jsonl"], "out", "jsonl"),
        (["a.parquet"], "out", "parquet"),
        (["a.parquet", "a.jsonl"], "out", "jsonl"),
        (["a.jsonl"], "out.parquet", "parquet"),
        (["a.parquet"], "out.jsonl/", "jsonl"),
    ],
)
def test_the_format_of_the_shards(tmp_path, job_of, names, folder, expected):
    for name in names:
        (tmp_path / name).touch()
    job = job_of(*(tmp_path / name for name in names), folder=folder)
    assert job.output_format == expected
    assert job.part_path(3).name == f"part-00003.{expected}"


def test_what_cannot_be_written_or_read(tmp_path, write_log, job_of, embedded_rows):
    path = write_log("log.jsonl", embedded_rows(3))
    with pytest.raises(ConfigError, match=r"^output-format: expected jsonl or parquet, .*, got 'csv'$"):
        job_of(path, output_format="csv")
    with pytest.raises(ConfigError, match=r"^output: expected a folder, as --shard-rows writes many files \(it is a f"):
        job_of(path, folder="log.jsonl")
    with pytest.raises(ConfigError, match=r"^output: expected a folder without the input's files \(it holds .*log"):
        job_of(path, folder=".")
    with pytest.raises(InputError, match=r"^cannot read .*none.jsonl: No such file or directory$"):
        job_of(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"^cannot write shards of standard input, which cannot be read again: name "):
        job_of("-")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match=r"^cannot write shards of .*, which cannot be read again: expected a regular"):
        job_of(tmp_path / "pipe.jsonl")


def test_a_file_that_changes_is_noticed(write_log, embedded_rows):
    path = write_log("log.jsonl", embedded_rows(3))
    identity = FileIdentity.of(str(path))
    identity.check()
    path.write_text(path.read_text() + "\n")
    with pytest.raises(InputError, match=r"^cannot read .*log.jsonl: it has changed while it was read$"):
        identity.check()
