from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.errors import ConfigError, FileFormatError, InputError
from gpu_select.logs import Place
from gpu_select.shards import FileIdentity, Manifest, RunFolder, ShardRecord, Span

RECORD = ShardRecord(
    number=3,
    rows=10,
    n_bytes=100,
    sha256="a" * 64,
    source_sha256="b" * 64,
    spans=(Span(0, Place(5, 1), Place(50, 8), 7), Span(1, Place(0, 0), Place(30, 3), 3)),
    errors=1,
    first_error="row 2: no",
    renamed=("model",),
    share={"a": 9},
)
MANIFEST = Manifest(
    inputs=(FileIdentity("a.jsonl", 50, 1), FileIdentity("b\udcff.jsonl", 30, 2)),
    options={"--shard-rows": 10, "--keep": ["id"]},
    router={"files": {"knn_model.json": "c" * 64}, "encoder": None, "device": "cpu"},
    versions={"torch": "2"},
    complete=True,
    shards=(RECORD,),
    failed={"part-00004.jsonl": "no"},
)


def test_a_manifest_comes_out_of_its_file_as_it_went_in():
    assert Manifest.from_bytes(MANIFEST.to_bytes(), "x") == MANIFEST
    assert json.loads(Manifest((), {}, {}, {}).to_bytes().decode())["shards"] == []


def test_the_file_tells_rows_and_errors_and_has_a_line_a_shard():
    text = MANIFEST.to_bytes().decode("utf-8", "surrogatepass")
    values = json.loads(text)
    assert (values["rows"], values["errors"], values["complete"]) == (10, 1, True)
    (line,) = (line for line in text.splitlines() if "spans" in line)
    assert json.loads(line)["number"] == 3


@given(
    data=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["format", "version", "inputs", "shards"]), x),
    ).map(lambda v: json.dumps(v).encode())
)
def test_anything_else_is_refused_in_one_line(data):
    with pytest.raises(
        FileFormatError, match=r"^x: the file: expected the manifest of shards .* give another --output, "
    ):
        Manifest.from_bytes(data, "x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shards", 0, "rows"), -1),
        (("shards", 0, "rows"), True),
        (("shards", 0, "spans", 0, 1), [1]),
        (("shards", 0, "spans", 0, 3), "7"),
        (("shards", 0, "share"), {"a": "9"}),
        (("shards", 0, "sha256"), 7),
        (("shards", 0, "more"), 7),
        (("inputs", 0, "more"), 7),
        (("options",), []),
        (("version",), 2),
    ],
)
def test_a_manifest_that_was_edited_is_refused(path, value):
    values = json.loads(MANIFEST.to_bytes().decode("utf-8", "surrogatepass"))
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FileFormatError):
        Manifest.from_bytes(json.dumps(values).encode(), "x")


def test_a_damaged_journal_names_the_cure(write_log, job_of, embedded_rows, run_job, tmp_path):
    job = job_of(write_log("log.jsonl", embedded_rows(30)))
    run_job(job)
    (tmp_path / "out" / ".journal").write_bytes(b'{"number": "three"}\n')
    text = r"^cannot read .*\.journal: damaged \(.*\); remove it to make its shards anew$"
    with pytest.raises(InputError, match=text):
        RunFolder(job)


def test_a_journal_without_a_manifest_counts_for_nothing(write_log, job_of, embedded_rows, tmp_path):
    job = job_of(write_log("log.jsonl", embedded_rows(30)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".journal").write_bytes(json.dumps(RECORD.to_json()).encode() + b"\n")
    with RunFolder(job) as folder:
        assert folder.records == {}
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ({"files": {"svm_model.json": "c" * 64}}, "the selector file was knn_model.json, is svm_model.json"),
        (
            {"files": {"knn_model.json": "d" * 64}},
            "the sha256 of knn_model.json was cccccccccccc..., is dddddddddddd...",
        ),
        ({"encoder": {"fingerprint": "e" * 64}}, "the encoder's fingerprint was not given, is eeeeeeeeeeee..."),
        ({"decisions": "f" * 64}, "the sha256 of the decisions was not given, is ffffffffffff..."),
        ({"device": "cuda"}, "the device was cpu, is cuda"),
    ],
)
def test_another_router_is_told_by_what_differs(now, text):
    assert MANIFEST.other_router({**MANIFEST.router, **now}, MANIFEST.versions) == text
    assert MANIFEST.other_router(MANIFEST.router, MANIFEST.versions) is None
    assert MANIFEST.other_router(MANIFEST.router, {"torch": "3"}) == "the version of torch was 2, is 3"


def test_a_folder_that_cannot_be_made(write_log, job_of, embedded_rows, tmp_path):
    path = write_log("log.jsonl", embedded_rows(3))
    with pytest.raises(ConfigError, match=r"^output: expected a folder, as --shard-rows writes many files"):
        job_of(path, folder="log.jsonl")
