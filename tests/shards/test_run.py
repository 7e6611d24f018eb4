"""A run with threads for processes: what is kept, what is made again, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import threading

import pytest

from gpu_select.errors import ConfigError, DeviceError, EncoderError, GpuSelectError, InputError, OutputError
from gpu_select.pipeline import RouteReport
from gpu_select.shards import RunFolder
from gpu_select.shards.routing import ShardRouter
from gpu_select.shards.run import Progress


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill: the run's first process goes no further."""


def stop_after(n_shards):
    """A progress callback that ends the run once so many rows are there."""

    def progress(so_far: Progress) -> None:
        if so_far.report.rows - so_far.rows_before >= n_shards * 10:
            raise Stopped

    return progress


def stop_run(run_job, job, n_shards, **options):
    with pytest.raises(Stopped):
        run_job(job, progress=stop_after(n_shards), **options)


@pytest.fixture
def log(write_log, embedded_rows):
    return write_log("log.jsonl", embedded_rows(73))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_all_rows_in_order_and_nothing_else_in_the_folder(
    write_log, job_of, embedded_rows, run_job, read_parts, tmp_path, kind
):
    job = job_of(write_log(f"log.{kind}", embedded_rows(73)))
    outcome = run_job(job, workers=2)
    parts = read_parts(tmp_path / "out")
    assert [len(rows) for rows in parts] == [10] * 7 + [3]
    rows = [row for part in parts for row in part]
    assert [row["id"] for row in rows] == list(range(73))
    assert {row["model"] for row in rows} == set(outcome.report.share)
    assert (outcome.report.rows, outcome.n_shards, outcome.rows_before, outcome.failed) == (73, 8, 0, {})
    expected = {"manifest.json", *(f"part-{i:05}.{kind}" for i in range(8))}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert (manifest["complete"], manifest["rows"], len(manifest["shards"])) == (True, 73, 8)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    write_log, job_of, embedded_rows, run_job, contents, tmp_path, kind, workers
):
    path = write_log(f"log.{kind}", embedded_rows(73))
    run_job(job_of(path, folder="undisturbed"))
    job, started = job_of(path), []
    stop_run(run_job, job, 2, workers=workers)
    stop_run(run_job, job, 1, workers=workers)
    outcome = run_job(job, workers=workers, started=started)
    assert outcome.rows_before >= 30
    assert outcome.report.rows == 73
    assert sum(len(worker.routed) for worker in started) == 8 - outcome.rows_before // 10
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_finished_run_has_nothing_to_do(log, job_of, run_job, contents, tmp_path):
    job, started = job_of(log), []
    first = run_job(job)
    before = contents(tmp_path / "out")
    again = run_job(job, started=started)
    assert [worker.routed for worker in started] == [[]]
    assert again.rows_before == again.report.rows == 73
    assert again.report.share == first.report.share
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_finished_shard_that_is_not_what_was_written_is_made_anew(
    log, job_of, run_job, contents, tmp_path, harm, caplog
):
    job, started = job_of(log), []
    run_job(job)
    before = contents(tmp_path / "out")
    part = tmp_path / "out" / "part-00002.jsonl"
    if harm == "remove":
        part.unlink()
    else:
        data = part.read_bytes()
        part.write_bytes(data[:-1] if harm == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    run_job(job, started=started)
    assert [worker.routed for worker in started] == [[2]]
    assert "part-00002.jsonl is not what was written: it is made anew" in caplog.text
    assert contents(tmp_path / "out") == before


def test_leftovers_go(log, job_of, run_job, tmp_path):
    job = job_of(log)
    stop_run(run_job, job, 1)
    (tmp_path / "out" / ".gpu_select.0123.tmp").write_text("half")
    run_job(job)
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_journal_that_ends_within_a_line(log, job_of, run_job, contents, tmp_path):
    run_job(job_of(log, folder="undisturbed"))
    job = job_of(log)
    stop_run(run_job, job, 3)
    journal = tmp_path / "out" / ".journal"
    data = journal.read_bytes()
    journal.write_bytes(data[:-20])
    stop_run(run_job, job, 1)
    assert journal.read_bytes().startswith(data[: data[:-20].rfind(b"\n") + 1] + b'{"number"')
    run_job(job)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_log_without_rows_makes_one_shard_without_rows(write_log, job_of, run_job, read_parts, tmp_path):
    outcome = run_job(job_of(write_log("log.jsonl", [])))
    assert read_parts(tmp_path / "out") == [[]]
    assert (outcome.report.rows, outcome.n_shards) == (0, 1)


def test_rows_that_cannot_be_routed_name_their_file_and_line(
    write_log, job_of, embedded_rows, run_job, read_parts, tmp_path
):
    pytest.importorskip("pyarrow")
    rows = embedded_rows(3)
    paths = write_log("a.jsonl", [rows[0], "no JSON", rows[1]]), write_log("b.jsonl", [rows[2] | {"embedding": [1]}])
    outcome = run_job(job_of(*paths, shard_rows=2))
    errors = [row.get("error") for part in read_parts(tmp_path / "out") for row in part]
    assert errors[0] is errors[2] is None
    assert errors[1].startswith(f"{paths[0]}: line 2: not JSON")
    assert errors[3] == "embedding: expected 8 numbers, got 1"
    assert outcome.report.errors == 2
    assert outcome.report.first_error.startswith(f"part-00000.jsonl, row 2: {paths[0]}: line 2: ")


def test_all_shards_of_a_table_have_the_columns_of_the_first_window(write_log, job_of, run_job, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    vector = [1.0] * 8
    rows = [{"embedding": vector, "n": None if i < 10 else i, "maybe": None} for i in range(30)]
    run_job(job_of(write_log("log.jsonl", rows), output_format="parquet"))
    schemas = [parquet.read_schema(path) for path in sorted((tmp_path / "out").glob("part-*"))]
    assert str(schemas[0].field("n").type) == "int64"
    assert all(schema.equals(schemas[0]) for schema in schemas)


def test_shards_of_a_routed_table_keep_the_types_of_its_results(write_log, job_of, embedded_rows, run_job, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    first = [row | {"model": i, "score": 0.5} for i, row in enumerate(embedded_rows(12))]
    log, more = write_log("log.parquet", first), write_log("more.jsonl", first)
    for number, paths in enumerate(((log,), (log, more))):  # by columns, and row by row
        folder = f"out{number}.parquet"
        run_job(job_of(*paths, folder=folder))
        for path in (tmp_path / folder).glob("part-*"):
            table = parquet.read_table(path)
            assert [table.schema.field(f"input_{name}").type for name in ("model", "score")] == [
                pa.int64(),
                pa.float64(),
            ]
            assert set(table["input_score"].to_pylist()) == {0.5}


# ---------------------------------------------------------------- processes that fail


def test_a_dead_workers_shard_goes_to_another(log, job_of, run_job, contents, death, tmp_path):
    run_job(job_of(log, folder="undisturbed"))
    started, deaths = [], []

    def before(worker, shard):
        if shard.number == 3 and not deaths:
            deaths.append(worker.seat.name)
            raise death

    outcome = run_job(job_of(log), workers=2, before=before, started=started)
    assert len(started) == 3  # its seat got another one
    other = [worker for worker in started if 3 in worker.routed]
    assert [worker.seat.name for worker in other] != deaths
    assert outcome.failed == {}
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_the_only_workers_shard_goes_to_its_successor(log, job_of, run_job, death):
    deaths = []

    def before(worker, shard):
        if shard.number == 3 and not deaths:
            deaths.append(shard)
            raise death

    assert run_job(job_of(log), before=before).failed == {}


@pytest.mark.parametrize("kind", ["dies", "fails"])
def test_a_shard_that_fails_twice_is_left_out_and_tried_again_next_time(
    log, job_of, run_job, contents, death, tmp_path, caplog, kind
):
    run_job(job_of(log, folder="undisturbed"))
    tried = []

    def before(worker, shard):
        if shard.number == 3:
            tried.append(worker.seat.name)
            raise death if kind == "dies" else EncoderError("encoder x: vectors are not finite")

    outcome = run_job(job_of(log), workers=2, before=before)
    reason = "ended by signal 9" if kind == "dies" else "encoder x: vectors are not finite"
    assert sorted(tried) == ["worker 0", "worker 1"]
    assert outcome.failed == {3: reason}
    assert (outcome.report.rows, outcome.n_shards) == (63, 8)
    assert "part-00003.jsonl failed twice (worker " in caplog.text
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert (manifest["complete"], manifest["failed"]) == (False, {"part-00003.jsonl": reason})
    started = []
    assert run_job(job_of(log), started=started).failed == {}
    assert [worker.routed for worker in started] == [[3]]
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_seat_whose_workers_keep_dying_is_given_up(log, job_of, run_job, death, caplog):
    def before(worker, shard):
        if worker.seat.name == "worker 1":
            raise death

    outcome = run_job(job_of(log), workers=2, before=before)
    assert outcome.report.rows + 10 * len(outcome.failed) == 73
    assert outcome.failed == {}


def test_no_worker_is_left(log, job_of, run_job, monkeypatch, death):
    from gpu_select.shards import routing

    def load(*arguments):
        raise death

    monkeypatch.setattr(routing, "ShardRouter", load)
    with pytest.raises(
        DeviceError, match=r"^worker [01] ended by signal 9, as did those before it, and no other is left"
    ):
        run_job(job_of(log), workers=2)


def test_a_router_that_cannot_be_loaded_leaves_no_folder(log, job_of, run_job, tmp_path):
    with pytest.raises(GpuSelectError, match=r"^pretrained model not found: nowhere"):
        run_job(job_of(log, models="nowhere"), workers=2)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- input and output that fail


def test_a_cut_off_log_stops_after_the_shards_before_and_goes_on_when_cured(
    job_of, embedded_rows, run_job, contents, tmp_path
):
    whole = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in embedded_rows(3000)))
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(whole)
    run_job(job_of(path, folder="undisturbed", shard_rows=200))
    path.write_bytes(whole[: len(whole) // 2])
    job = job_of(path, shard_rows=200)
    with pytest.raises(InputError, match=r"^cannot read .*log\.jsonl\.gz: damaged \.gz data"):
        run_job(job)
    n_kept = len(list((tmp_path / "out").glob("part-*")))
    assert 5 <= n_kept <= 10
    path.write_bytes(whole)
    started = []
    assert run_job(job_of(path, shard_rows=200), started=started).rows_before == 200 * n_kept
    assert started[0].routed == list(range(n_kept, 15))
    expected, found = contents(tmp_path / "undisturbed"), contents(tmp_path / "out")
    assert without_times(found) == without_times(expected)


def test_damage_that_is_found_before_the_router_is_loaded_is_noted(job_of, embedded_rows, run_job, tmp_path):
    whole = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in embedded_rows(3000)))
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        run_job(job_of(path, shard_rows=1000))  # the second shard already is planned beside the loading
    assert [p.name for p in (tmp_path / "out").glob("part-*")] == ["part-00000.jsonl"]
    path.write_bytes(whole)
    outcome = run_job(job_of(path, shard_rows=1000))
    assert (outcome.rows_before, outcome.report.rows) == (1000, 3000)


def without_times(files):
    manifest = json.loads(files.pop("manifest.json"))
    for file in manifest["inputs"]:
        del file["mtime_ns"]
    return files, manifest


def test_a_bad_row_group_stops_and_goes_on_when_cured(write_log, job_of, embedded_rows, run_job, contents, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = write_log("log.parquet", embedded_rows(73))
    run_job(job_of(path, folder="undisturbed"))
    good = path.read_bytes()
    column = parquet.ParquetFile(path).metadata.row_group(5).column(0)  # rows 35 to 41
    bad = bytearray(good)
    bad[column.data_page_offset : column.data_page_offset + 30] = b"\xff" * 30
    path.write_bytes(bad)
    job = job_of(path)
    with pytest.raises(GpuSelectError, match=r"^cannot read .*log\.parquet: "):
        run_job(job)
    assert sorted(p.name for p in (tmp_path / "out").glob("part-*")) == [f"part-0000{i}.parquet" for i in range(3)]
    path.write_bytes(good)
    started = []
    run_job(job_of(path), started=started)
    assert started[0].routed == [3, 4, 5, 6, 7]
    expected, found = contents(tmp_path / "undisturbed"), contents(tmp_path / "out")
    assert without_times(found) == without_times(expected)


def test_a_cured_file_with_other_rows_is_refused(job_of, embedded_rows, run_job, tmp_path):
    rows = embedded_rows(3000)
    data = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        run_job(job_of(path, shard_rows=200))
    rows[250]["id"] = -1
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    text = (
        r"log\.jsonl\.gz has changed since .*out was begun: part-00001\.jsonl was made of other rows; bring the file b"
    )
    with pytest.raises(ConfigError, match=text):
        run_job(job_of(path, shard_rows=200))


@pytest.mark.parametrize(("n_rows", "number"), [(39, 3), (31, 3), (20, 2)])
def test_a_cured_file_with_more_or_fewer_rows_than_finished_shards_took_is_refused(
    write_log, job_of, embedded_rows, run_job, tmp_path, n_rows, number
):
    rows = embedded_rows(36)
    first, second = write_log("a.jsonl", rows[:34]), write_log("b.jsonl", rows[34:])
    job = job_of(first, second)
    run_job(job)
    manifest = tmp_path / "out" / "manifest.json"
    values = json.loads(manifest.read_bytes())
    done = [record for record in values["shards"] if record["number"] >= 2]  # by workers that did not meet the damage
    manifest.write_text(json.dumps(values | {"complete": False, "shards": done}))
    (tmp_path / "out" / ".journal").write_text(json.dumps({"damaged": str(first)}) + "\n")
    write_log("a.jsonl", embedded_rows(n_rows))
    text = (
        rf"a\.jsonl has changed since .*out was begun: part-0000{number}\.jsonl was made of other rows; bring the file"
    )
    with pytest.raises(ConfigError, match=text):
        run_job(job_of(first, second))


def test_a_disk_that_is_full_stops_and_keeps_what_is_finished(log, job_of, run_job, contents, tmp_path):
    run_job(job_of(log, folder="undisturbed"))

    def before(worker, shard):
        if shard.number == 4:
            worker._say(stop="cannot write out/part-00004.jsonl: No space left on device", file=None)
            threading.Event().wait(0.2)

    with pytest.raises(GpuSelectError, match=r"^cannot write out/part-00004.jsonl: No space left on device$"):
        run_job(job_of(log), before=before)
    assert len(list((tmp_path / "out").glob("part-*"))) >= 4
    run_job(job_of(log))
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shard_rows": 11}, "--shard-rows was 10, is 11;"),
        ({"keep": ("id",)}, "--keep was not given, is ['id'];"),
        ({"candidates": ("a",)}, "--candidates was not given, is ['a'];"),
        ({"deterministic": True}, "--deterministic was False, is True;"),
        ({"output_format": "parquet"}, "--output-format was jsonl, is parquet;"),
        ({"domain_field": "query"}, "--domain-field was not given, is query;"),
    ],
)
def test_other_options_are_refused_by_name(log, job_of, run_job, change, text):
    stop_run(run_job, job_of(log), 1)
    with pytest.raises(ConfigError) as refused:
        run_job(job_of(log, **change))
    assert f"out was begun by another run: {text} go on with what it was, or give another --output" in str(
        refused.value
    )


def test_other_files_are_refused_by_name(log, write_log, job_of, embedded_rows, run_job):
    other, third = write_log("other.jsonl", embedded_rows(5)), write_log("third.jsonl", embedded_rows(5))
    run_job(job_of(log, other))
    for paths, text in (
        ((log,), rf"--input was 2 files, is 1 \(with or without {other}\);"),
        ((log, other, third), rf"--input was 2 files, is 3 \(with or without {third}\);"),
        ((log, third), rf"--input was 2 files with {other}, is 2 files with {third} in its place;"),
    ):
        with pytest.raises(ConfigError, match=text):
            run_job(job_of(*paths))


def test_a_file_of_another_size_is_refused(log, job_of, run_job):
    stop_run(run_job, job_of(log), 1)
    size = log.stat().st_size
    log.write_text(log.read_text() + "\n")
    with pytest.raises(
        ConfigError, match=rf"the size of {log} was {size:,} bytes, is {size + 1:,}; go on with what it"
    ):
        run_job(job_of(log))


def test_a_file_that_was_only_touched_is_read_again_and_let_in(log, job_of, run_job, contents, tmp_path):
    run_job(job_of(log, folder="undisturbed"))
    stop_run(run_job, job_of(log), 3)
    os.utime(log, ns=(1, 1))
    started = []
    assert run_job(job_of(log), started=started).rows_before >= 30
    assert without_times(contents(tmp_path / "out")) == without_times(contents(tmp_path / "undisturbed"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_file_of_the_same_size_with_other_rows_is_refused(write_log, job_of, embedded_rows, run_job, kind):
    rows = embedded_rows(73)
    path = write_log(f"log.{kind}", rows)
    stop_run(run_job, job_of(path), 3)
    rows[12]["query"] = rows[12]["query"][::-1]
    size = path.stat().st_size
    write_log(f"log.{kind}", rows)
    assert path.stat().st_size == size
    with pytest.raises(ConfigError, match=rf"^{path} has changed since .*: part-00001\.{kind} was made of other rows;"):
        run_job(job_of(path))


def test_another_selector_is_refused_by_name(log, job_of, run_job, shard_models, write_tiny_models, tmp_path):
    stop_run(run_job, job_of(log), 1)
    text = r"begun by another run: the selector file was kmeans_model\.json, is svm_model\.json; go on"
    with pytest.raises(ConfigError, match=text):
        run_job(job_of(log, algorithm="svm"))
    other = write_tiny_models(tmp_path / "others", {"note": 1}, dim=8)
    text = (
        r"begun by another run: the sha256 of kmeans_model\.json was [0-9a-f]{12}\.\.\., is [0-9a-f]{12}\.\.\.; go on"
    )
    with pytest.raises(ConfigError, match=text):
        run_job(job_of(log, models=str(other)))
    assert run_job(job_of(log)).report.rows == 73


def test_a_version_is_refused_by_name(log, job_of, run_job, tmp_path):
    stop_run(run_job, job_of(log), 1)
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_bytes())
    values["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"the version of torch was 1\.0, is \d\S+; go on"):
        run_job(job_of(log))


def test_workers_that_are_not_alike_stop_the_run(log, job_of, run_job, monkeypatch):
    both = threading.Event()
    found = iter(["1", "2"])

    def versions(router):
        version = next(found)
        if version == "2":
            both.set()
        return {"torch": version}

    monkeypatch.setattr(ShardRouter, "versions", versions)
    text = r"^worker [01] is not like those before it: .* the version of torch was 1, is 2; "
    with pytest.raises(ConfigError, match=text):
        run_job(job_of(log), workers=2, before=lambda worker, shard: both.wait(30))


def test_a_second_run_in_the_same_folder_is_refused(log, job_of, run_job):
    with RunFolder(job_of(log)):
        text = (
            rf"out: another process \({os.getpid()}\) is writing shards into it; wait for it, or give another --output$"
        )
        with pytest.raises(OutputError, match=text):
            run_job(job_of(log))
    run_job(job_of(log))


def test_a_folder_with_other_things_is_refused(log, job_of, run_job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(
        ConfigError, match=r"^output: expected a new or empty folder \(it holds thesis\.tex\), got '.*out'$"
    ):
        run_job(job_of(log))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_progress_counts_rows_of_this_run_and_of_those_before(log, job_of, run_job):
    stop_run(run_job, job_of(log), 2)
    seen: list[Progress] = []
    run_job(job_of(log), progress=seen.append)
    assert seen[-1].rows_before >= 20
    assert (seen[-1].report.rows, seen[-1].total) == (73, 73)
    assert all(isinstance(so_far.report, RouteReport) for so_far in seen)
    assert [so_far.report.rows for so_far in seen] == sorted(so_far.report.rows for so_far in seen)


def test_a_bug_in_planning_does_not_hang(log, job_of, run_job, monkeypatch):
    from gpu_select.shards.plan import ShardPlan

    def broken(self):
        raise ZeroDivisionError

    monkeypatch.setattr(ShardPlan, "next", broken)
    with pytest.raises(ZeroDivisionError):
        run_job(job_of(log))
