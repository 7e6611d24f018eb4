"""One shard, routed by itself: the unit that everything else is made of."""

from __future__ import annotations

import hashlib

import pytest
import torch

from gpu_select.errors import InputError
from gpu_select.logs import open_log, open_writer
from gpu_select.pipeline.log_router import LogRouter
from gpu_select.shards import plan_shards
from gpu_select.shards.routing import ShardRouter
from gpu_select.shards.sources import SourceFiles

CPU = torch.device("cpu")


def route_all(job):
    job.part_path(0).parent.mkdir(exist_ok=True)
    with ShardRouter(job, CPU) as router:
        return [router.route(shard)[0] for shard in plan_shards(job)]


def route_whole(job, path):
    """The same without shards."""
    with (
        open_log(job.paths[0]) as log,
        LogRouter(job.options, CPU) as router,
        open_writer(
            str(path),
            columns=router.kept_columns(log.columns),
            schema=log.schema,
            result_fields=router.result_fields,
        ) as out,
    ):
        router.route(log, out)
    return path.read_bytes()


@pytest.mark.parametrize("kinds", ["jsonl jsonl", "jsonl parquet", "parquet parquet", "parquet jsonl"])
def test_one_shard_of_all_rows_is_the_whole_log(tmp_path, write_log, job_of, embedded_rows, kinds):
    kind, out = kinds.split()
    job = job_of(write_log(f"log.{kind}", embedded_rows(50)), output_format=out, shard_rows=50)
    (record,) = route_all(job)
    assert job.part_path(0).read_bytes() == route_whole(job, tmp_path / f"whole.{out}")
    assert (record.rows, record.errors, sum(record.share.values())) == (50, 0, 50)


def test_a_shard_hangs_on_its_rows_alone(write_log, job_of, embedded_rows):
    job = job_of(write_log("log.parquet", embedded_rows(50)), shard_rows=11)
    records = route_all(job)
    shards = list(plan_shards(job))
    with ShardRouter(job, CPU) as router:
        assert [router.route(shards[i])[0] for i in (4, 0, 3)] == [records[4], records[0], records[3]]


def test_a_record_tells_of_the_file_and_of_the_rows(write_log, job_of, embedded_rows):
    path = write_log("log.jsonl", embedded_rows(25))
    job = job_of(path)
    sources = SourceFiles(job)
    for record in route_all(job):
        data = job.part_path(record.number).read_bytes()
        assert (record.n_bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert record.source_sha256 == sources.digest(record.shard)
        (span,) = record.spans
        rows = path.read_bytes()[span.start.offset : span.end.offset]
        assert record.source_sha256 == hashlib.sha256(rows).hexdigest()
    sources.close()


def test_texts_and_decisions(tmp_path, write_log, job_of, tiny_encoder_path, write_tiny_models):
    models = write_tiny_models(tmp_path / "models", {})
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model_selection: {{ml: {{models_path: {models}}}}}\n"
        "decisions:\n"
        "  - name: law\n"
        "    rules: {operator: AND, conditions: [{type: domain, name: law}]}\n"
        "    algorithm: {type: svm}\n"
        "    modelRefs: [{model: a}, {model: b}]\n"
        "default: c\n"
    )
    rows = [{"query": f"what is the {word}", "domain": "law"} for word in ("law", "court", "war", "year", "city")]
    texts = {"embedding_field": None, "embedding_model": str(tiny_encoder_path), "deterministic": True}
    job = job_of(write_log("log.jsonl", rows), shard_rows=2, config=str(config), models="", algorithm=None, **texts)
    records = route_all(job)
    assert [record.decisions for record in records] == [{"law": 2}, {"law": 2}, {"law": 1}]
    whole = route_whole(job, tmp_path / "whole.jsonl")
    assert b"".join(job.part_path(i).read_bytes() for i in range(3)) == whole
    with ShardRouter(job, CPU) as router:
        told = router.router.fingerprints()
        assert sorted(told["files"]) == ["domain_model.safetensors", "svm_model.json"]
        assert told["encoder"]["precision"] == "float32-deterministic"
        config.write_text(config.read_text().replace("default: c", "default: a"))
    with ShardRouter(job, CPU) as router:
        assert router.router.fingerprints()["decisions"] != told["decisions"]


def test_a_file_that_changes_meanwhile(write_log, job_of, embedded_rows):
    path = write_log("log.jsonl", embedded_rows(25))
    job = job_of(path)
    first, second, _ = plan_shards(job)
    job.part_path(0).parent.mkdir()
    with ShardRouter(job, CPU) as router:
        router.route(first)
        path.write_text(path.read_text() + "\n")
        with pytest.raises(InputError, match=r"log\.jsonl: it has changed while it was read$"):
            router.route(second)
        assert not job.part_path(1).exists()


def test_after_an_error_the_next_shard_is_read_anew(write_log, job_of, embedded_rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write_log("log.parquet", embedded_rows(49))
    column = parquet.ParquetFile(path).metadata.row_group(2).column(0)  # rows 14 to 20
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 30] = b"\xff" * 30
    path.write_bytes(data)
    job = job_of(path, shard_rows=7)
    shards = list(plan_shards(job))
    job.part_path(0).parent.mkdir()
    with ShardRouter(job, CPU) as router:
        router.route(shards[1])
        with pytest.raises(InputError, match=r"^cannot read .*log\.parquet: "):
            router.route(shards[2])
        assert router.route(shards[3])[0].rows == 7
