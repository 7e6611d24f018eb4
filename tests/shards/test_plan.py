"""The log cut into shards, whatever it is made of and wherever planning goes on."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_select.errors import ConfigError, InputError
from gpu_select.logs import LogFile, Place
from gpu_select.shards import plan_shards
from gpu_select.shards.plan import Shard, ShardPlan, Span


def rows_of(job, shard):
    rows = []
    for span in shard.spans:
        with LogFile(job.files[span.file].path) as file:
            rows += [row.fields["id"] for chunk, _ in file.part(span.start, span.end) for row in chunk]
    return rows


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    kinds=st.lists(st.sampled_from(["jsonl", "jsonl.gz", "parquet", "csv"]), min_size=5, max_size=5),
    shard_rows=st.integers(1, 12),
    known=st.sets(st.integers(0, 20)),
)
def test_shards_hold_all_rows_in_order(tmp_path_factory, job_of, embedded_rows, sizes, kinds, shard_rows, known):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder, paths, n = tmp_path_factory.mktemp("log"), [], 0
    for i, (size, kind) in enumerate(zip(sizes, kinds, strict=False)):
        path = folder / f"{i}.{kind}"
        rows = [{"id": str(j), "embedding": "[]"} for j in range(n, n + size)]
        n += size
        if kind == "parquet":
            parquet.write_table(pa.table({k: [row[k] for row in rows] for k in ("id", "embedding")}), path)
        else:
            lines = ["id,embedding"] + [f'{row["id"]},"[]\n"' for row in rows]
            data = "\n".join(lines if kind == "csv" else map(json.dumps, rows)).encode() + b"\n"
            path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
        paths.append(path)
    job = job_of(*paths, shard_rows=shard_rows)
    shards = list(plan_shards(job))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert [shard.n_rows for shard in shards] == [shard_rows] * (n // shard_rows) + [n % shard_rows] * (
        n % shard_rows > 0
    ) or (n == 0 and shards == [Shard(0, ())])
    assert [row for shard in shards for row in rows_of(job, shard)] == list(map(str, range(n)))
    with ShardPlan(job, {shard.number: shard for shard in shards if shard.number in known}) as plan:
        assert [plan.next() for _ in shards] == shards
        assert plan.next() is None


def test_known_shards_of_plain_files_are_not_read(write_log, job_of, embedded_rows, monkeypatch):
    path = write_log("log.jsonl", embedded_rows(100))
    job = job_of(path, shard_rows=20)
    shards = list(plan_shards(job))
    started = []
    row_ends = LogFile.row_ends
    monkeypatch.setattr(LogFile, "row_ends", lambda self, place: started.append(place) or row_ends(self, place))
    with ShardPlan(job, {shard.number: shard for shard in shards[:3]}) as plan:
        assert [plan.next() for _ in shards] == shards
    assert started == [shards[2].spans[-1].end]


def test_a_known_shard_that_no_longer_fits_is_planned_anew(write_log, job_of, embedded_rows):
    job = job_of(write_log("log.jsonl", embedded_rows(10)), shard_rows=5)
    first, second = plan_shards(job)
    wrong = Shard(1, (Span(0, Place(1, 0), second.spans[0].end, 5),))
    with ShardPlan(job, {1: wrong}) as plan:
        assert [plan.next(), plan.next(), plan.next()] == [first, second, None]


def test_damage_comes_after_the_shards_before_it(tmp_path, write_log, job_of, embedded_rows):
    good = write_log("a.jsonl", embedded_rows(10))
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in embedded_rows(20_000, start=10))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines)[:-1000])
    with ShardPlan(job_of(good, tmp_path / "b.jsonl.gz", shard_rows=100)) as plan:
        assert all(plan.next().n_rows == 100 for _ in range(150))
        with pytest.raises(InputError, match=r"^cannot read .*b\.jsonl\.gz: damaged \.gz data"):
            list(iter(plan.next, None))
        assert plan.file == 1


def test_a_file_without_a_column_that_an_option_names(write_log, tmp_path, job_of, embedded_rows):
    (tmp_path / "b.csv").write_text("id,query\n1,x\n")
    with ShardPlan(job_of(write_log("a.jsonl", embedded_rows(3)), tmp_path / "b.csv", shard_rows=3)) as plan:
        assert plan.next().n_rows == 3
        text = r"^embedding-field: expected one of the columns of .*b\.csv: id, query, got 'embedding'$"
        with pytest.raises(ConfigError, match=text):
            plan.next()
