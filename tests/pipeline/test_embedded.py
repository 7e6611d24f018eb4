"""Rows that bring their embedding: row by row and column by column the same decisions, errors and output."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
import torch

from gpu_select.artifacts import load_selector
from gpu_select.domains import DOMAIN_NAMES, domain_index
from gpu_select.errors import CandidateError, ConfigError, OutputError
from gpu_select.features import build_features
from gpu_select.logs import open_log, open_writer
from gpu_select.pipeline import RouteOptions
from gpu_select.pipeline.embedded import EmbeddedRouter
from gpu_select.pipeline.log_router import LogRouter
from gpu_select.pipeline.windows import UNUSABLE_VECTOR, vector_in
from gpu_select.selectors import choose

DIM = 8


@pytest.fixture(scope="module")
def models(write_tiny_models, tmp_path_factory):
    return write_tiny_models(tmp_path_factory.mktemp("models"), {}, dim=DIM)


def vectors_of(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def route(tmp_path, models, log, out, **options):
    """Report and output rows."""
    settings = RouteOptions(**{"models": str(models), "algorithm": "svm", "embedding_field": "e", **options})
    with (
        open_log(str(log)) as reader,
        LogRouter(settings, torch.device("cpu")) as router,
        open_writer(
            str(tmp_path / out),
            columns=router.kept_columns(reader.columns),
            schema=router.kept_schema(reader.schema),
        ) as writer,
    ):
        report = router.route(reader, writer)
    if out.endswith(".parquet"):
        return report, pytest.importorskip("pyarrow.parquet").read_table(tmp_path / out).to_pylist()
    rows = [json.loads(line) for line in (tmp_path / out).read_text().splitlines()]
    return report, [{"error": None, **row} for row in rows]


def write_json(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, columns, kind="list"):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    types = {
        "list": pa.list_(pa.float32()),
        "fixed": pa.list_(pa.float32(), DIM),
        "large": pa.large_list(pa.float64()),
        "half": pa.list_(pa.float16()),
    }
    values = columns["e"]
    if kind == "half":
        values = [None if v is None else [None if x is None else np.float16(x) for x in v] for v in values]
    parquet.write_table(pa.table({**columns, "e": pa.array(values, types[kind])}), path, row_group_size=50)
    return path


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_decisions_are_those_of_the_selector_on_unit_vectors(models, algorithm):
    selector = load_selector(models, algorithm=algorithm).selector
    vectors, domains = vectors_of(100), [DOMAIN_NAMES[i % 14] for i in range(100)]
    router = EmbeddedRouter(selector)
    chosen = router.choose(router.prepare([*(5 * vectors)], domains))
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1)
    expected = choose(selector(build_features(unit, torch.tensor([domain_index(name) for name in domains]))))
    assert torch.equal(chosen.model, expected.model)
    torch.testing.assert_close(chosen.score, expected.score, rtol=1e-4, atol=1e-5)
    assert len(set(chosen.model.tolist())) > 1


def test_no_domain_is_other_and_candidates_restrict_the_choice(models):
    selector = load_selector(models, algorithm="svm").selector
    router = EmbeddedRouter(selector, ["b"])
    prepared = router.prepare([*vectors_of(3)], [None, "other", "law"])
    assert prepared.slot_B.tolist() == [domain_index("other"), domain_index("other"), domain_index("law")]
    assert {selector.models[m] for m in router.choose(prepared).model.tolist()} == {"b"}
    assert router.prepare([], []).vectors_Bd.shape == (0, DIM)
    with pytest.raises(CandidateError):
        EmbeddedRouter(selector, ["nobody"])


@pytest.mark.parametrize("kind", ["list", "fixed", "large", "half"])
def test_parquet_to_parquet_is_as_row_by_row(tmp_path, models, kind):
    vectors: list = vectors_of(130).tolist()
    vectors[3] = None
    vectors[60][2] = None
    vectors[61] = [0.0] * DIM
    vectors[62][0] = math.inf if kind != "half" else 1.0
    if kind != "fixed":
        vectors[5] = [1.0] * (DIM - 1)
        vectors[6] = []
    domains = ["law", "math", "", None, "health"] * 26
    domains[10] = "astrology"
    columns = {"id": range(130), "e": vectors, "domain": domains, "category": ["physics"] * 130, "score": ["x"] * 130}
    log = write_parquet(tmp_path / "log.parquet", columns, kind)
    by_column, as_columns = route(tmp_path, models, log, "out.parquet")
    by_row, as_rows = route(tmp_path, models, log, "out.jsonl")
    assert [(row["id"], row["model"], row["error"]) for row in as_columns] == [
        (row["id"], row["model"], row["error"]) for row in as_rows
    ]
    for name in ("score", "margin"):
        found = [[row[name] for row in rows if row["error"] is None] for rows in (as_columns, as_rows)]
        assert found[0] == pytest.approx(found[1], rel=1e-5)
        assert all((row[name] is None) == (row["error"] is not None) for row in as_columns)
    assert as_columns[0]["input_score"] == "x"
    faults = {row["id"]: row["error"] for row in as_columns if row["error"] is not None}
    assert sorted(faults) == sorted([3, 10, 60, 61] + [62] * (kind != "half") + [5, 6] * (kind != "fixed"))
    assert faults[3] == f"e: expected a list of {DIM} numbers, got None"
    assert faults[61] == f"e: {UNUSABLE_VECTOR}"
    for name in ("rows", "errors", "first_error", "without_domain", "renamed", "share"):
        assert getattr(by_column, name) == getattr(by_row, name), name
    assert by_column.without_domain == 0


def test_json_lines_hold_embeddings_too(tmp_path, models):
    vectors = vectors_of(20).tolist()
    rows = [{"e": vector, "domain": "law", "query": 7} for vector in vectors]
    report, out = route(tmp_path, models, write_json(tmp_path / "log.jsonl", rows), "out.jsonl")
    columns = {"e": vectors, "domain": ["law"] * 20}
    _, expected = route(tmp_path, models, write_parquet(tmp_path / "log.parquet", columns), "out.parquet")
    assert [row["model"] for row in out] == [row["model"] for row in expected]
    assert (report.errors, report.tokens, report.truncated) == (0, 0, 0)


def test_embeddings_come_out_of_a_csv_file_as_they_went_in(tmp_path, models):
    rows = [{"e": vector, "domain": "law"} for vector in vectors_of(20).tolist()]
    log = write_json(tmp_path / "log.jsonl", rows)
    with open_log(str(log)) as reader, open_writer(str(tmp_path / "log.csv"), result_fields=()) as writer:
        writer.write([row.fields for window in reader.windows(100) for row in window])
    assert (
        route(tmp_path, models, tmp_path / "log.csv", "a.jsonl")[0].share
        == route(tmp_path, models, log, "b.jsonl")[0].share
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "e: expected a list of 3 numbers, got None"),
        ("no", "e: expected a list of 3 numbers, got 'no'"),
        ([1, 2], "e: expected 3 numbers, got 2"),
        ([1, 2, "3"], "e: expected a list of 3 numbers, got [1, 2, '3']"),
        ([1, 2, True], "e: expected a list of 3 numbers, got [1, 2, True]"),
        ([1, 2, [3]], "e: expected a list of 3 numbers, got [1, 2, [3]]"),
        ([1, 2, None], f"e: {UNUSABLE_VECTOR}"),
        ([1, 2, 1e300], f"e: {UNUSABLE_VECTOR}"),
        ([1, 2, 10**400], f"e: {UNUSABLE_VECTOR}"),
        ([0, 0, 0], f"e: {UNUSABLE_VECTOR}"),
        ([1e-20, 0, 0], f"e: {UNUSABLE_VECTOR}"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_vector(value, text):
    assert vector_in("e", 3)({"e": value}) == (None, text)


def test_what_is_a_vector():
    for value in ([1, 2.5, -3], "[1, 2.5, -3]"):
        vector, fault = vector_in("e", 3)({"e": value})
        assert fault is None
        assert (vector.dtype, vector.tolist()) == (np.float32, [1, 2.5, -3])
    assert vector_in("e", 3)({})[1] == "e: expected a list of 3 numbers, got no such field"


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl"])
def test_a_column_that_can_hold_no_such_vectors_is_refused_at_once(tmp_path, models, out):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for kind, value in ((pa.string(), "x"), (pa.list_(pa.string()), ["x"]), (pa.list_(pa.float32(), 3), [1.0] * 3)):
        parquet.write_table(pa.table({"e": pa.array([value], kind)}), tmp_path / "log.parquet")
        text = (
            r"^embedding-field: expected a column with lists of 8 floating-point numbers, which is what the selector t"
        )
        with pytest.raises(ConfigError, match=text):
            route(tmp_path, models, tmp_path / "log.parquet", out)
        assert not (tmp_path / out).exists()


def test_a_later_file_with_other_columns(tmp_path, models):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from gpu_select.logs import open_logs

    columns = {"e": vectors_of(3).tolist(), "n": [1, 2, 3]}
    write_parquet(tmp_path / "a.parquet", columns)
    for extra, text in (
        ({"n": ["x", "y", "z"]}, r"rows 4 to 6, column 'n': expected int64, got string"),
        ({"n": [4, 5, 6], "new": [1, 2, 3]}, r"there is a column 'new', which the first file of the log does not have"),
    ):
        parquet.write_table(pa.table({"e": columns["e"], **extra}), tmp_path / "b.parquet")
        paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
        settings = RouteOptions(models=str(models), algorithm="svm", embedding_field="e")
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_logs(paths))
            router = stack.enter_context(LogRouter(settings, torch.device("cpu")))
            stack.enter_context(pytest.raises(OutputError, match=text))
            kept = {"columns": reader.columns, "schema": reader.schema}
            writer = stack.enter_context(open_writer(str(tmp_path / "out.parquet"), **kept))
            router.route(reader, writer)


def test_columns_that_are_renamed_keep_their_types(tmp_path, models):
    log = write_parquet(tmp_path / "log.parquet", {"e": vectors_of(3).tolist(), "model": [1, 2, 3], "score": [0.5] * 3})
    _, rows = route(tmp_path, models, log, "out.parquet")
    assert [(row["input_model"], row["input_score"]) for row in rows] == [(1, 0.5), (2, 0.5), (3, 0.5)]


def test_only_some_columns_are_kept(tmp_path, models):
    columns = {"id": range(5), "e": vectors_of(5).tolist(), "domain": ["law"] * 5}
    log = write_parquet(tmp_path / "log.parquet", columns)
    _, rows = route(tmp_path, models, log, "out.parquet", keep=("id", "domain"))
    assert [*rows[0]] == ["id", "domain", "model", "score", "margin", "error"]
