from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_select import pipeline
from gpu_select.commands.route_summary import stages
from gpu_select.domains import DOMAIN_NAMES
from gpu_select.encoder import Encoder, embed
from gpu_select.pipeline import log_router
from gpu_select.router import Router

ROOT = Path(__file__).parents[2]
WORDS = ("city", "law", "disease", "cell", "energy", "war", "market", "mind", "number", "function", "patient", "year")
QUERIES = [f"{how} {a} and {b}?" for how in ("what is", "why") for a, b in itertools.permutations(WORDS, 2)]


@pytest.fixture
def route(cli, models_dir, tiny_encoder_path, tmp_path):
    """Call with rows (written as JSON lines) or a path; further options win. Gives the result and the output's rows."""

    def run(log, *options, output="out.jsonl", selector=("--models-dir", models_dir), **call):
        if not isinstance(log, str | Path):
            rows, log = log, tmp_path / "log.jsonl"
            log.write_bytes(
                b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
            )
        output = output if output == "-" else tmp_path / output
        usual = "--input", log, "--output", output, *selector, "--embedding-model", tiny_encoder_path
        done = cli("route", *usual, *options, **call)
        return done, read_rows(output) if output != "-" and done.status in (0, 3) else []

    return run


@pytest.fixture(scope="module")
def expected(models_dir, tiny_encoder_path):
    """Call with texts, domains and an algorithm: what the Python interface decides."""

    def decide(texts, domains=None, algorithm="knn", **options):
        router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path), algorithm=algorithm)
        return router.route(texts, domains, **options)

    return decide


def unpack(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
    return content


def read_rows(path: Path) -> list[dict]:
    """The rows of an output, as texts where the format has only those; read without the package."""
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    text = unpack(path).decode()
    kind = path.name.split(".")[1]
    if kind == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if kind == "txt":
        return [{"model": line} for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text), delimiter="\t" if kind == "tsv" else ","))


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A log in the format of its name; written without the package."""
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    kind = path.name.split(".")[1]
    text = io.StringIO()
    if kind == "jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    elif kind == "txt":
        text.writelines(row["query"] + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    path.write_bytes(content)
    return path


def log_rows(n: int) -> list[dict]:
    return [{"id": i, "query": QUERIES[i], "domain": DOMAIN_NAMES[i % 14]} for i in range(n)]


def check_failed(done, text: str, folder: Path | None = None, *, output: str = "out.jsonl") -> None:
    """Status 1, one line on standard error, nothing on standard output, no output file."""
    assert done.status == 1
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, done.err
    assert errors[0].startswith("error: ")
    assert text in errors[0]
    if folder is not None:
        left = {path.name for path in folder.iterdir()}
        assert output not in left
        assert not [name for name in left if name.endswith(".tmp")]


# ---------------------------------------------------------------- the same decisions whatever the way


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_each_row_gets_what_the_python_interface_decides(route, expected, algorithm):
    rows = log_rows(60)
    done, out = route(rows, "--algorithm", algorithm)
    routes = expected([row["query"] for row in rows], [row["domain"] for row in rows], algorithm)
    assert done.status == 0
    assert [row["id"] for row in out] == list(range(60))
    assert [row["model"] for row in out] == routes.models
    np.testing.assert_allclose([row["score"] for row in out], routes.scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([row["margin"] for row in out], routes.margins, rtol=1e-3, atol=1e-4)
    assert list(out[0]) == ["id", "query", "domain", "model", "score", "margin"]
    assert len({row["model"] for row in out}) > 1


def test_knn_is_the_default(route, expected):
    rows = log_rows(30)
    assert [row["model"] for row in route(rows)[1]] == expected(
        [row["query"] for row in rows], [row["domain"] for row in rows], "knn"
    ).models


@pytest.mark.parametrize(
    ("log", "output"),
    [
        ("log.jsonl", "out.csv"),
        ("log.jsonl.gz", "out.parquet"),
        ("log.jsonl.zst", "out.tsv.gz"),
        ("log.csv", "out.jsonl.gz"),
        ("log.csv.gz", "out.csv.zst"),
        ("log.tsv", "out.jsonl.zst"),
        ("log.tsv.zst", "out.txt"),
        ("log.parquet", "out.parquet"),
        ("log.parquet", "out.jsonl"),
        ("log.txt", "out.csv"),
        ("log.txt.gz", "out.txt.gz"),
    ],
)
def test_every_format_by_name(route, expected, tmp_path, log, output):
    rows = [
        {"id": i, "query": f'{row["query"]} "quoted", ünd', "domain": row["domain"]}
        for i, row in enumerate(log_rows(25))
    ]
    done, out = route(write_rows(tmp_path / log, rows), output=output)
    domains = None if ".txt" in log else [row["domain"] for row in rows]
    assert done.status == 0, done.err
    assert [row["model"] for row in out] == expected([row["query"] for row in rows], domains).models
    if ".txt" not in output:
        assert [row["query"] for row in out] == [row["query"] for row in rows]
        columns = ["query"] if ".txt" in log else ["id", "query", "domain"]
        assert list(out[0])[: len(columns) + 3] == [*columns, "model", "score", "margin"]
        assert all(float(row["score"]) >= float(row["margin"]) >= 0 for row in out)
    if output == "out.parquet" and log == "log.parquet":
        assert [row["id"] for row in out] == list(range(25))


def test_a_format_can_be_named_where_the_file_does_not_tell(route, tmp_path):
    write_rows(tmp_path / "log.csv", log_rows(5)).rename(tmp_path / "log.data")
    formats = "--input-format", "csv", "--output-format", "txt"
    done, _ = route(tmp_path / "log.data", *formats, output="out.data")
    assert done.status == 0
    assert len((tmp_path / "out.data").read_text().splitlines()) == 5


def test_several_files_by_pattern_and_folder_are_one_log(route, cli, models_dir, tiny_encoder_path, tmp_path):
    rows = log_rows(30)
    expected = [row["model"] for row in route(rows)[1]]
    (tmp_path / "days").mkdir()
    for name, part in (("a.csv", rows[:10]), ("days/1.jsonl.gz", rows[10:20]), ("days/2.jsonl", rows[20:])):
        write_rows(tmp_path / name, part)
    inputs = "--input", tmp_path / "a.c*", "--input", tmp_path / "days"
    models = "--models-dir", models_dir, "--embedding-model", tiny_encoder_path
    done = cli("route", *inputs, *models, "--output", tmp_path / "out.jsonl")
    assert done.status == 0, done.err
    assert [row["model"] for row in read_rows(tmp_path / "out.jsonl")] == expected


@pytest.mark.parametrize(("log", "output"), [("log.jsonl", "out.csv"), ("log.parquet", "out.parquet")])
def test_rows_that_bring_their_embedding(route, cli, models_dir, tiny_encoder_path, tmp_path, log, output):
    rows = log_rows(30)
    expected = [row["model"] for row in route(rows)[1]]
    router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path))
    vectors = embed(router.encoder, [row["query"] for row in rows]).vectors.tolist()
    write_rows(tmp_path / log, [row | {"vector": v} for row, v in zip(rows, vectors, strict=True)])
    options = "--input", tmp_path / log, "--models-dir", models_dir, "--embedding-field", "vector", "--keep", "id"
    done = cli("route", *options, "--output", tmp_path / output)
    assert done.status == 0, done.err
    assert "tokens/s" not in done.err
    assert [row["model"] for row in read_rows(tmp_path / output)] == expected


def test_a_routed_table_keeps_the_types_of_its_results(cli, write_tiny_models, tmp_path):
    models = write_tiny_models(tmp_path / "models", {}, dim=2)
    write_rows(tmp_path / "log.parquet", [{"vector": [1.0, 0.0], "domain": "law"}])
    options = "--models-dir", models, "--algorithm", "kmeans", "--embedding-field", "vector"
    for log, out in (("log", "once"), ("once", "twice")):
        done = cli("route", *options, "--input", tmp_path / f"{log}.parquet", "--output", tmp_path / f"{out}.parquet")
        assert done.status == 0, done.err
    [first], [second] = read_rows(tmp_path / "once.parquet"), read_rows(tmp_path / "twice.parquet")
    assert [second[f"input_{name}"] for name in ("model", "score")] == [first["model"], first["score"]]


def test_one_file_instead_of_folder_and_algorithm(route, models_dir, tmp_path):
    rows = log_rows(20)
    chosen = [row["model"] for row in route(rows, "--algorithm", "svm")[1]]
    packed = tmp_path / "mine.json.gz"
    packed.write_bytes(gzip.compress((models_dir / "svm_model.json").read_bytes()))
    for path in (models_dir / "svm_model.json", packed):
        done, out = route(rows, selector=("--model", path))
        assert done.status == 0
        assert [row["model"] for row in out] == chosen


def test_models_are_looked_for_in_models_by_default(route, models_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models_dir, tmp_path / "models")
    assert route(log_rows(3), selector=())[0].status == 0


def test_faiss_decides_like_torch(route):
    pytest.importorskip("faiss")
    assert route(log_rows(60), "--knn-backend", "faiss")[1] == route(log_rows(60))[1]


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_the_token_budget_bounds_batches_and_decides_nothing(route, monkeypatch, budget):
    rows = log_rows(40)
    _, usual = route(rows)
    encode, batches = Encoder.encode, []

    def noting(self, batch, *domains, **options):
        batches.append((len(batch.lengths), batch.lengths.sum()))
        return encode(self, batch, *domains, **options)

    monkeypatch.setattr(Encoder, "encode", noting)
    done, out = route(rows, "--token-budget", budget)
    assert done.status == 0
    assert all(n_rows == 1 or n_tokens <= budget for n_rows, n_tokens in batches)
    assert len(batches) == {1: 40, 100_000: 1}.get(budget, len(batches))
    assert [row["model"] for row in out] == [row["model"] for row in usual]
    np.testing.assert_allclose([row["score"] for row in out], [row["score"] for row in usual], rtol=1e-4)


def test_less_memory_decides_nothing(route, monkeypatch):
    rows = log_rows(40)
    _, usual = route(rows)
    encode, sizes = Encoder.encode, []

    def limited(self, batch, *domains, **options):
        sizes.append(batch.lengths.sum())
        if sizes[-1] > 50:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode(self, batch, *domains, **options)

    monkeypatch.setattr(Encoder, "encode", limited)
    done, out = route(rows)
    assert done.status == 0
    assert [row["model"] for row in out] == [row["model"] for row in usual]
    assert max(sizes) > 50 >= sizes[-1]
    warnings = [line for line in done.err.splitlines() if "out of memory" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: device cpu: out of memory; going on with batches of ")


def test_not_even_one_query_fits(route, monkeypatch, tmp_path):
    def full(self, batch, *domains, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Encoder, "encode", full)
    done, _ = route(log_rows(5))
    check_failed(done, "error: device cpu: out of memory on a single text of ", tmp_path)


def test_a_cache_saves_the_encoder_and_decides_nothing(route, monkeypatch, tmp_path):
    rows = log_rows(30)
    _, usual = route(rows)
    first = route(rows, "--cache-dir", tmp_path / "cache")
    monkeypatch.setattr(Encoder, "encode", None)
    second = route(rows, "--cache-dir", tmp_path / "cache")
    for done, out in (first, second):
        assert done.status == 0
        assert [row["model"] for row in out] == [row["model"] for row in usual]


def test_equal_queries_are_embedded_once_a_window(route, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 50)
    encode, embedded = Encoder.encode, []

    def counting(self, batch, *domains, **options):
        embedded.append((len(batch.lengths), batch.lengths.sum()))
        return encode(self, batch, *domains, **options)

    monkeypatch.setattr(Encoder, "encode", counting)
    rows = [{"query": QUERIES[i % 5], "domain": "law"} for i in range(100)]
    done, out = route(rows)
    assert done.status == 0
    assert sum(n for n, _ in embedded) == 2 * 5
    n_tokens = sum(n for _, n in embedded)
    embedded.clear()
    route(rows[:5])
    assert n_tokens == 2 * sum(n for _, n in embedded)
    assert [row["model"] for row in out] == [row["model"] for row in out[:5]] * 20


# ---------------------------------------------------------------- rows


def test_a_row_that_cannot_be_routed_keeps_its_place(route):
    log = [
        {"id": 0, "query": QUERIES[0]},
        b"{broken\n",
        {"id": 2, "query": ""},
        {"id": 3, "query": QUERIES[1], "domain": "maths"},
        b'{"query": "\xff\xfe"}\n',
        {"id": 5, "query": 42},
        b"[1, 2]\n",
        {"id": 7, "text": "no query"},
        {"id": 8, "query": QUERIES[2], "domain": "law"},
    ]
    done, out = route(log)
    assert done.status == 3
    assert [row["model"] is None for row in out] == [False, *[True] * 7, False]
    assert [row.get("id") for row in out] == [0, None, 2, 3, None, 5, None, 7, 8]
    errors = [row.get("error", "") for row in out]
    assert [error.split(":")[0] for error in errors] == [
        *("", "line 2", "query", "domain", "line 5", "query", "line 7", "query", "")
    ]
    assert "not JSON" in errors[1]
    assert "not UTF-8" in errors[4]
    assert "got 42" in errors[5]
    assert f"7 rows could not be routed and have `error` set; the first: row 2: {errors[1]}\n" in done.err
    assert "routed 2 of 9 rows" in done.err


def test_a_log_without_any_usable_row(route):
    done, out = route([b"{broken\n", {"query": " "}])
    assert done.status == 3
    assert [row["model"] for row in out] == [None, None]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet", "out.txt"])
def test_an_empty_log(route, tmp_path, output):
    done, out = route([], output=output)
    assert done.status == 0
    assert out == []
    assert (tmp_path / output).exists()
    assert "routed 0 of 0 rows" in done.err


@pytest.mark.parametrize("output", ["out.csv", "out.parquet", "out.txt"])
def test_error_rows_in_every_format(route, output):
    done, out = route([{"query": QUERIES[0]}, {"query": ""}, {"query": QUERIES[1]}], output=output)
    assert done.status == 3
    assert [bool(row["model"]) for row in out] == [True, False, True]
    if output != "out.txt":
        assert [bool(row["error"]) for row in out] == [False, True, False]


def test_without_domains_it_says_so_once(route, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 4)
    rows = [{"query": query} for query in QUERIES[:10]]
    rows[3]["category"] = "law"
    done, _ = route(rows)
    assert [line for line in done.err.splitlines() if line.startswith("warning: ")] == [
        "warning: 9 of 10 rows have no domain or category: their domain counts as 'other'"
    ]
    done, _ = route(rows, "--domain-field", "category")
    assert "warning: 9 of 10 rows have no category: their domain counts as 'other'\n" in done.err


def test_with_domains_it_says_nothing(route):
    assert "warning" not in route(log_rows(20))[0].err


def test_the_domain_matters(route, expected):
    texts = QUERIES[:40]
    by_category = [row["model"] for row in route([{"query": text, "category": "math"} for text in texts])[1]]
    assert by_category == expected(texts, ["math"] * 40).models
    assert by_category != expected(texts).models
    named = [{"query": text, "topic": "math", "domain": "law"} for text in texts]
    assert [row["model"] for row in route(named, "--domain-field", "topic")[1]] == by_category


def test_another_field_can_hold_the_query(route):
    rows = [{"prompt": row["query"], "domain": row["domain"], "query": "not this"} for row in log_rows(20)]
    done, out = route(rows, "--query-field", "prompt")
    assert done.status == 0
    assert [row["model"] for row in out] == [row["model"] for row in route(log_rows(20))[1]]


@pytest.mark.parametrize("log", ["log.jsonl", "log.csv"])
def test_only_some_fields_are_kept(route, tmp_path, log):
    rows = write_rows(tmp_path / log, log_rows(5))
    for keep, names in (("domain, id", {"domain", "id"}), ("id", {"id"}), ("", set())):
        for output in ("out.jsonl", "out.csv"):
            done, out = route(rows, "--keep", keep, output=output)
            assert done.status == 0
            assert set(out[0]) - {"error"} == {*names, "model", "score", "margin"}


@pytest.mark.parametrize(
    ("option", "value"), [("--keep", "id,nonesuch"), ("--query-field", "nonesuch"), ("--domain-field", "nonesuch")]
)
def test_a_column_that_is_not_there_is_an_error(route, tmp_path, option, value):
    log = write_rows(tmp_path / "log.csv", log_rows(3))
    text = f"error: {option[2:]}: expected one of the columns of {log}: id, query, domain, got 'nonesuch'"
    check_failed(route(log, option, value)[0], text, tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_fields_that_carry_an_output_name_are_kept_under_another(route, tmp_path, kind):
    rows = [row | {"model": "gpt", "score": 7} for row in log_rows(4)]
    done, out = route(write_rows(tmp_path / f"log.{kind}", rows), output=f"out.{kind}")
    assert done.status == 0
    assert [row["input_model"] for row in out] == ["gpt"] * 4
    assert [int(row["input_score"]) for row in out] == [7] * 4
    assert all(row["model"].startswith("sim-") for row in out)
    assert "warning: the input's field 'model' is kept as 'input_model'\n" in done.err
    assert "warning: the input's field 'score' is kept as 'input_score'\n" in done.err


def test_the_output_of_one_run_can_be_the_input_of_the_next(route, tmp_path):
    first, _ = route(log_rows(10))
    second, out = route(tmp_path / "out.jsonl", "--algorithm", "svm", output="again.csv")
    assert (first.status, second.status) == (0, 0)
    assert [row["input_model"] for row in out] == [row["model"] for row in read_rows(tmp_path / "out.jsonl")]


def test_a_log_can_be_replaced_by_its_own_output(route, tmp_path):
    done, out = route(log_rows(10), output="log.jsonl")
    assert done.status == 0
    assert [row["id"] for row in out] == list(range(10))
    assert all(row["model"] for row in out)


def test_an_output_that_is_one_of_several_inputs_is_refused(route, tmp_path):
    (tmp_path / "logs").mkdir()
    write_rows(tmp_path / "logs" / "a.jsonl", log_rows(3))
    write_rows(tmp_path / "logs" / "out.jsonl", log_rows(3))
    done, _ = route(tmp_path / "logs", output="logs/out.jsonl")
    assert done.status == 1
    assert re.fullmatch(r"error: output: expected a file that is none of the input's, got '.*out\.jsonl'\n", done.err)
    assert len(read_rows(tmp_path / "logs" / "out.jsonl")) == 3


def test_a_long_text_is_truncated_and_counted(route, tmp_path):
    rows = [*log_rows(3), {"query": "law and " * 300_000, "domain": "law"}]
    done, out = route(rows, "--keep", "id")
    assert done.status == 0
    assert all(row["model"] for row in out)
    assert "warning: 1 queries are longer than the encoder takes and were truncated\n" in done.err


def test_the_summary_names_rows_speeds_and_shares(route, tmp_path):
    done, out = route(log_rows(50))
    first, *shares = done.err.splitlines()
    assert first.startswith(f"routed 50 of 50 rows to {tmp_path / 'out.jsonl'} in ")
    assert " rows/s, " in first
    assert first.endswith(" tokens/s")
    counted = {line.split()[0]: int(line.split()[1]) for line in shares}
    models = [row["model"] for row in out]
    assert counted == {model: models.count(model) for model in set(models)}
    assert sum(float(line.split()[2].rstrip("%")) for line in shares) == pytest.approx(100, abs=0.3)


def test_the_time_of_each_stage_is_told_when_asked(route, route_vectors, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 10)
    assert "stages" not in route(log_rows(50))[0].err
    done, _ = route(log_rows(50), "--timings")
    line = done.err.splitlines()[-1]
    number = r"\d+\.\d\d s"
    stages = "".join(
        rf"{stage} {number} \(\d+%\), " for stage in ("read", "tokenise", "transfer", "encode", "select", "write")
    )
    assert re.fullmatch(rf"stages: {stages}they add up to {number} in {number}(: they overlap)?", line), line
    done, _ = route_vectors(some_features(30), "--timings")
    line = done.err.splitlines()[-1]
    stages = "".join(rf"{stage} {number} \(\d+%\), " for stage in ("read", "select", "write"))
    assert re.fullmatch(rf"stages: {stages}they add up to {number} in {number}(: they overlap)?", line), line


@pytest.mark.parametrize(
    ("seconds", "clock", "text"),
    [
        (
            {"read": 2.0, "encode": 5.0, "write": 1.0, "transfer": 0.0},
            5.2,
            "stages: read 2.00 s (25%), encode 5.00 s (62%), write 1.00 s (12%), "
            "they add up to 8.00 s in 5.20 s: they overlap",
        ),
        ({"encode": 1.0}, 1.5, "stages: encode 1.00 s (100%), they add up to 1.00 s in 1.50 s"),
        ({"read": 0.0}, 0.0, "stages: they add up to 0.00 s in 0.00 s"),
    ],
)
def test_the_line_ofstages(seconds, clock, text):
    assert stages(pipeline.RouteReport(seconds=clock, stage_seconds=seconds)) == text


def test_a_progress_bar_shows_on_a_terminal_alone(route, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 10)
    assert "routing" not in route(log_rows(30))[0].err
    shown = route(log_rows(30), terminal=True)[0].err
    assert "routing: " in shown
    assert "30.0row" in shown
    assert "tokens/s" in shown.split("routed ")[0]


# ---------------------------------------------------------------- candidates


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_candidates_restrict_the_choice(route, expected, algorithm):
    rows = log_rows(40)
    _, free = route(rows, "--algorithm", algorithm)
    allowed = sorted({row["model"] for row in free})[:2]
    done, out = route(rows, "--algorithm", algorithm, "--candidates", ", ".join(allowed))
    assert done.status == 0
    assert {row["model"] for row in out} <= set(allowed)
    texts, domains = [row["query"] for row in rows], [row["domain"] for row in rows]
    assert [row["model"] for row in out] == expected(texts, domains, algorithm, candidates=allowed).models


def test_a_single_candidate_has_no_margin(route):
    done, out = route(log_rows(3), "--algorithm", "svm", "--candidates", "sim-math-7b")
    assert done.status == 0
    assert [(row["model"], row["margin"]) for row in out] == [("sim-math-7b", None)] * 3


@pytest.mark.parametrize(
    ("candidates", "text"),
    [("sim-math-7b,gpt-9", "names out of sim-"), ("", "at least one of sim-"), (" , ", "at least one of sim-")],
)
def test_bad_candidates_are_noticed_before_the_encoder_loads(route, tmp_path, monkeypatch, candidates, text):
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)
    done, _ = route(log_rows(3), "--algorithm", "svm", "--candidates", candidates)
    check_failed(done, f"error: candidates: expected {text}", tmp_path)


# ---------------------------------------------------------------- ready vectors


@pytest.fixture
def route_vectors(cli, models_dir, tmp_path):
    """Call with an array (or a path) and options; gives the result and the output's rows."""

    def run(features, *options, model=models_dir / "svm_model.json"):
        if not isinstance(features, Path):
            np.save(tmp_path / "features.npy", features)
            features = tmp_path / "features.npy"
        done = cli("route", "--features", features, "--model", model, "--output", tmp_path / "out.jsonl", *options)
        return done, read_rows(tmp_path / "out.jsonl") if done.status in (0, 3) else []

    return run


def some_features(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, 32))
    return np.hstack([rows / np.linalg.norm(rows, axis=1, keepdims=True), np.eye(14)[rng.integers(14, size=n)]])


@pytest.mark.parametrize("name", ["knn_model.json", "kmeans_model.json", "svm_model.json", "mlp_model.json"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4"])
def test_ready_vectors_are_decided_like_the_engine_and_without_encoder(
    route_vectors, models_dir, engine, monkeypatch, name, dtype
):
    monkeypatch.setattr("gpu_select.encoder.load_encoder", None)
    features = some_features(70).astype(np.float32).astype(dtype)
    done, out = route_vectors(features, model=models_dir / name)
    assert done.status == 0
    assert [row["row"] for row in out] == list(range(70))
    assert [row["model"] for row in out] == engine.decide(models_dir / name, features)
    assert "tokens/s" not in done.err


def test_a_vector_that_is_not_finite_keeps_its_place(route_vectors):
    features = some_features(20)
    features[[4, 11], [0, 40]] = np.nan, np.inf
    done, out = route_vectors(features)
    assert done.status == 3
    assert [row["row"] for row in out if row["model"] is None] == [4, 11]
    assert "2 rows could not be routed and have `error` set; the first: row 4: features: expected " in done.err


def test_no_vectors(route_vectors):
    done, out = route_vectors(np.empty((0, 46)))
    assert done.status == 0
    assert out == []


def test_candidates_restrict_ready_vectors(route_vectors):
    done, out = route_vectors(some_features(30), "--candidates", "sim-coder-13b,sim-small-1b")
    assert done.status == 0
    assert {row["model"] for row in out} <= {"sim-coder-13b", "sim-small-1b"}


@pytest.mark.parametrize(
    ("features", "found"),
    [
        (np.zeros((3, 45)), "expected vectors of D = 46, as "),
        (np.zeros((0, 45)), "expected vectors of D = 46, as "),
        (np.zeros(46), "got shape (46,) of float64"),
        (np.zeros((2, 3, 46)), "got shape (2, 3, 46) of float64"),
        (np.zeros((3, 46), np.int64), "got shape (3, 46) of int64"),
        (np.zeros((3, 46), np.complex64), "got shape (3, 46) of complex64"),
    ],
)
def test_vectors_of_another_kind(route_vectors, tmp_path, features, found):
    done, _ = route_vectors(features)
    check_failed(done, f"error: {tmp_path / 'features.npy'}: expected ", tmp_path)
    assert found in done.err


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


def test_pickled_vectors_are_refused_unopened(route_vectors, tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    path = tmp_path / "features.npy"
    np.save(path, np.array([[_Bomb()] * 46], dtype=object), allow_pickle=True)
    check_failed(
        route_vectors(path)[0], f"error: {path}: expected a .npy file with a (B, D) array of float16", tmp_path
    )
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array", b"\x80\x04N.", b"PK\x03\x04"])
def test_a_file_that_holds_no_array(route_vectors, tmp_path, content):
    path = tmp_path / "features.npy"
    path.write_bytes(content)
    check_failed(
        route_vectors(path)[0], f"error: {path}: expected a .npy file with a (B, D) array of float16", tmp_path
    )


def test_an_archive_is_no_array(route_vectors, tmp_path):
    np.savez(tmp_path / "features.npz", a=some_features(3))
    (tmp_path / "features.npz").rename(tmp_path / "features.npy")
    check_failed(route_vectors(tmp_path / "features.npy")[0], "expected a .npy file with a (B, D) array", tmp_path)


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_is_one_line(route_vectors, tmp_path, data):
    path = tmp_path / "damaged.npy"
    np.save(path, np.zeros((2, 46)))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=4)):
        content[place] = data.draw(st.one_of(st.sampled_from(b"()[]{}'\"-,:1 9\n\\"), st.integers(0, 255)))
    path.write_bytes(content)
    done, out = route_vectors(path)
    if done.status:
        check_failed(done, f"error: {path}: expected ")
    else:
        assert len(out) <= 2


@pytest.mark.parametrize(
    "shape", ["(-2, 46)", "(2, -46)", f"({10**30}, 46)", f"({2**62}, 46)", "(" * 400, "(2, 46, 1e9)"]
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_hostile_shape_is_one_line(route_vectors, tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(1000) + b"\n"
    path = tmp_path / "hostile.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(1000))
    check_failed(route_vectors(path)[0], f"error: {path}: expected a .npy file with a (B, D) array", tmp_path)


def test_vectors_that_are_cut_off(route_vectors, tmp_path):
    np.save(tmp_path / "features.npy", some_features(30))
    (tmp_path / "features.npy").write_bytes((tmp_path / "features.npy").read_bytes()[:-100])
    check_failed(route_vectors(tmp_path / "features.npy")[0], "expected a .npy file with a (B, D) array", tmp_path)


def test_vectors_that_are_not_there(route_vectors, tmp_path):
    check_failed(route_vectors(tmp_path / "no.npy")[0], f"error: cannot read {tmp_path / 'no.npy'}: no such file")


# ---------------------------------------------------------------- errors


def test_a_missing_models_folder_names_the_cure(route, tmp_path):
    done, _ = route(log_rows(3), selector=("--models-dir", tmp_path / "none"))
    check_failed(done, f"error: pretrained model not found: {tmp_path / 'none'} holds none of knn_model.json", tmp_path)
    assert f"gpu-select train --data-file RECORDS.jsonl --output-dir {tmp_path / 'none'})" in done.err


def test_a_missing_algorithm_names_its_file(route, models_dir, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(models_dir / "knn_model.json", folder)
    done, _ = route(log_rows(3), "--algorithm", "svm", selector=("--models-dir", folder))
    check_failed(
        done, f"error: pretrained model not found: {folder / 'svm_model.json'} (train it: gpu-select", tmp_path
    )


def test_a_file_of_another_algorithm_under_that_name(route, models_dir, tmp_path):
    shutil.copy(models_dir / "kmeans_model.json", tmp_path / "knn_model.json")
    done, _ = route(log_rows(3), selector=("--models-dir", tmp_path))
    check_failed(done, f"{tmp_path / 'knn_model.json'}: algorithm: expected 'knn', got 'kmeans'", tmp_path)


def test_another_encoder_is_an_error_that_names_both(route, write_tiny_bert, tmp_path):
    other = write_tiny_bert(tmp_path / "other-bert", num_hidden_layers=1)
    done, _ = route(log_rows(3), "--embedding-model", other)
    check_failed(done, "knn_model.json: trained with encoder 'tiny-bert' (fingerprint ", tmp_path)
    assert "got 'other-bert' (fingerprint " in done.err


def test_a_file_without_note_takes_any_encoder_of_its_width(route, models_dir, write_tiny_bert, tmp_path):
    document = json.loads((models_dir / "svm_model.json").read_bytes())
    del document["gpu_select"]
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(document))
    assert route(log_rows(3), selector=("--model", plain))[0].status == 0
    wide = write_tiny_bert(tmp_path / "wide-bert", hidden_size=48)
    done, _ = route(log_rows(3), "--embedding-model", wide, selector=("--model", plain))
    check_failed(done, "error: embedding dimension mismatch: file has D = 46 (32 + 14), encoder gives 62 (48 + 14)")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--device", "abacus"], "error: device: expected cpu, cuda, cuda:N or mps, got 'abacus'"),
        (["--embedding-model", "no/such/encoder"], "error: encoder 'no/such/encoder': no such folder"),
        (["--token-budget", "0"], "error: token-budget: expected an integer >= 1, got 0"),
        (["--input", "nonesuch.jsonl"], "error: cannot read nonesuch.jsonl: No such file or directory"),
        (["--input", "log.xlsx"], "error: log.xlsx: unknown kind of log; expected a name that ends in .jsonl"),
        (["--output", "out.xlsx"], "error: out.xlsx: unknown kind of log"),
        (["--output", "out.parquet.gz"], "error: out.parquet.gz: Parquet is compressed inside"),
        (["--output", "/dev/null/out.jsonl"], "error: cannot write /dev/null/out.jsonl: "),
        (["--cache-dir", "/dev/null/cache"], "error: cannot write to the cache folder /dev/null/cache"),
    ],
)
def test_a_bad_option_is_one_line(route, tmp_path, options, text):
    check_failed(route(log_rows(3), *options)[0], text, tmp_path)


def test_damaged_input_leaves_no_output(route, tmp_path):
    log = write_rows(tmp_path / "log.jsonl.gz", log_rows(200))
    log.write_bytes(log.read_bytes()[:-20])
    check_failed(route(log)[0], f"error: cannot read {log}: damaged .gz data", tmp_path)


def test_a_later_row_with_a_new_field_leaves_no_table(route, tmp_path, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 4)
    rows = [*log_rows(6), {"query": QUERIES[0], "domain": "law", "new": 1}]
    done, _ = route(rows, output="out.csv")
    check_failed(done, "row 7 has the field 'new'", tmp_path, output="out.csv")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "o.jsonl"],
        ["--input", "a.jsonl"],
        ["--input", "a.jsonl", "--features", "f.npy", "--output", "o.jsonl"],
        ["--input", "a.jsonl", "--output", "o.jsonl", "--model", "m.json", "--algorithm", "knn"],
        ["--input", "a.jsonl", "--output", "o.jsonl", "--model", "m.json", "--models-dir", "models"],
        ["--features", "f.npy", "--output", "o.jsonl", "--embedding-model", "minilm"],
        ["--features", "f.npy", "--output", "o.jsonl", "--cache-dir", "c"],
        ["--features", "f.npy", "--output", "o.jsonl", "--domain-field", "d"],
        ["--features", "f.npy", "--output", "o.jsonl", "--keep", "d"],
        ["--features", "f.npy", "--output", "o.jsonl", "--token-budget", "9"],
        ["--input", "a.jsonl", "--output", "o.jsonl", "--algorithm", "tree"],
        ["--input", "a.jsonl", "--output", "o.jsonl", "--output-format", "xlsx"],
        ["--input", "a.jsonl", "--output", "o.jsonl", "--token-budget", "many"],
    ],
)
def test_wrong_usage_is_status_two_and_no_traceback(cli, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = cli("route", *arguments)
    assert done.status == 2
    assert done.err.startswith("Usage: gpu-select route ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [None, b"an older output\n"])
def test_an_interrupt_leaves_nothing_half_written(route, tmp_path, monkeypatch, before):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 10)
    encode, calls = Encoder.encode, []

    def interrupted(self, batch, *domains, **options):
        calls.append(len(batch.lengths))
        if sum(calls) > 20:
            raise KeyboardInterrupt
        return encode(self, batch, *domains, **options)

    monkeypatch.setattr(Encoder, "encode", interrupted)
    n_threads = threading.active_count()
    if before is not None:
        (tmp_path / "out.jsonl").write_bytes(before)
    done, _ = route(log_rows(60))
    assert threading.active_count() == n_threads
    assert sum(calls) > 20
    assert done.status == 1
    assert "Traceback" not in done.err
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"log.jsonl"} if before is None else {"log.jsonl", "out.jsonl"})
    assert before is None or (tmp_path / "out.jsonl").read_bytes() == before


# ---------------------------------------------------------------- streams


def test_standard_input_and_output(route):
    rows = log_rows(20)
    stdin = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done, _ = route("-", output="-", stdin=stdin)
    assert done.status == 0
    assert [json.loads(line) for line in done.out.splitlines()] == route(rows)[1]
    assert done.err.startswith("routed 20 of 20 rows to - in ")


def command(models_dir, tiny_encoder_path, *arguments) -> list[str]:
    usual = "route", "--models-dir", models_dir, "--embedding-model", tiny_encoder_path, "--device", "cpu"
    return [sys.executable, "-m", "gpu_select", *map(str, (*usual, *arguments))]


def test_a_real_pipe_through_the_real_command(models_dir, tiny_encoder_path, route):
    rows = [*log_rows(20), {"query": ""}]
    stdin = "".join(json.dumps(row) + "\n" for row in rows).encode()
    arguments = command(models_dir, tiny_encoder_path, "--input", "-", "--output", "-", "--output-format", "txt")
    process = subprocess.run(arguments, input=stdin, capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert process.returncode == 3, process.stderr
    assert process.stdout.decode().split("\n") == [*(row["model"] for row in route(rows)[1][:20]), "", ""]
    assert b"routed 20 of 21 rows to - in " in process.stderr
    assert b"Traceback" not in process.stderr


def test_a_reader_that_goes_away_ends_in_one_line(models_dir, tiny_encoder_path):
    arguments = command(models_dir, tiny_encoder_path, "--input", "-", "--output", "-")
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    process.stdout.close()
    rows = [{"query": QUERIES[0], "domain": "law", "padding": "x" * 100_000}] * 40
    _, stderr = process.communicate("".join(json.dumps(row) + "\n" for row in rows).encode(), timeout=120)
    assert process.returncode == 1
    assert stderr == b"error: cannot write standard output: Broken pipe\n"


def heed_interrupts() -> None:
    """A shell without job control has what it runs in the background ignore interrupts, the tests' children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def waiting(models_dir, tiny_encoder_path):
    """A real process that routes standard input, of which one window has come and no end. Gives it, and a first row."""
    process = subprocess.Popen(
        command(models_dir, tiny_encoder_path, "--input", "-", "--output", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=heed_interrupts,
    )
    rows = [{"query": QUERIES[i % 9], "domain": "law", "id": i} for i in range(pipeline.WINDOW_ROWS)]
    # the reader takes blocks of 256 KiB: what lies behind the window is only there to fill one
    rows += [{"query": QUERIES[0], "padding": "x" * 1000}] * 500
    process.stdin.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_slow_pipe_is_answered_window_by_window_and_can_be_interrupted(waiting):
    answered = [json.loads(waiting.stdout.readline()) for _ in range(pipeline.WINDOW_ROWS)]
    assert [row["id"] for row in answered] == list(range(pipeline.WINDOW_ROWS))
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=60) == 1
    assert waiting.stdout.read() == b""
    assert waiting.stderr.read().strip() == b"Aborted!"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_while_nobody_reads_the_output(waiting):
    waiting.stdout.readline()  # the rest fills the pipe
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=60) == 1
    assert waiting.stderr.read().strip() == b"Aborted!"


def test_a_reader_that_goes_away_ends_it_while_the_pipe_is_idle(waiting):
    waiting.stdout.close()
    assert waiting.wait(timeout=60) == 1
    assert waiting.stderr.read() == b"error: cannot write standard output: Broken pipe\n"


def test_memory_does_not_grow_with_the_log(route, tmp_path, monkeypatch):
    monkeypatch.setattr(log_router, "WINDOW_ROWS", 1000)
    directions_32 = torch.arange(32.0)

    def quick(self, batch, domain_B, *, n_domains):
        first_B1 = batch.ids_T[batch.offsets_B1[:-1].long(), None]
        unit_Bd = torch.nn.functional.normalize(first_B1 + directions_32, dim=1)
        return torch.cat([unit_Bd, torch.nn.functional.one_hot(domain_B, n_domains)], dim=1)

    monkeypatch.setattr(Encoder, "encode", quick)

    def peak(n_rows: int) -> int:
        with open(tmp_path / "log.jsonl", "w") as stream:
            for i in range(n_rows):
                stream.write(f'{{"id": {i}, "query": "question {i}", "domain": "law"}}\n')
        tracemalloc.start()
        try:
            done, _ = route(tmp_path / "log.jsonl", output="out.txt")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert done.status == 0

    peak(1_000)
    assert peak(40_000) < 1.1 * peak(10_000)  # up to eight windows are on their way


@pytest.mark.slow
@pytest.mark.parametrize("way", ["texts", "features"])
def test_resident_memory_does_not_grow_with_the_log(models_dir, tiny_encoder_path, tmp_path, way):
    def peak_bytes(n_rows: int) -> int:
        if way == "texts":
            log = tmp_path / "log.jsonl"
            with open(log, "w") as stream:
                stream.writelines(f'{{"query": "number {i}", "domain": "law"}}\n' for i in range(n_rows))
            arguments = command(models_dir, tiny_encoder_path, "--input", log, "--output", tmp_path / "out.jsonl")
        else:
            np.save(tmp_path / "f.npy", np.tile(some_features(1000).astype(np.float32), (n_rows // 1000, 1)))
            features = "--features", str(tmp_path / "f.npy"), "--output", str(tmp_path / "out.jsonl")
            model = "--model", str(models_dir / "knn_model.json")
            arguments = [sys.executable, "-m", "gpu_select", "route", *features, *model]
        process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    # a mapped file counts as resident: 46 float32 a row
    mapped = 120_000 * 46 * 4 if way == "features" else 0
    assert peak_bytes(120_000) < peak_bytes(66_000) + mapped + (24 << 20)
