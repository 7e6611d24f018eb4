"""`gpu-select route --config`: a log through decisions, as the gateway would decide."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest

from gpu_select.config import read_config
from gpu_select.decision_router import Decided, DecisionRouter, Query
from gpu_select.encoder import load_encoder
from gpu_select.yamlio import dump_yaml

RESULTS = ["decision", "domain", "model", "score", "margin", "error"]
ROWS = [
    {"id": 0, "query": "what is the number of the city", "domain": "math"},
    {"id": 1, "query": "explain the law in a court", "category": "law"},
    {"id": 2, "query": "write a function asap", "domain": "computer science"},
    {"id": 3, "query": "how many cells", "domain": "biology"},
    {"id": 4, "query": "why is the market", "domain": ""},
    {"id": 5, "query": "list the disease of the mind"},
    {"id": 6, "query": "", "domain": "law"},
    {"id": 7, "query": "solve", "domain": "magic"},
]


def domain(name):
    return {"type": "domain", "name": name}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory, tiny_encoder_path, write_tiny_models):
    encoder = load_encoder(str(tiny_encoder_path))
    own = {"encoder": {"name": str(tiny_encoder_path), "fingerprint": encoder.fingerprint}}
    return write_tiny_models(tmp_path_factory.mktemp("models"), own, models="abcd")


@pytest.fixture
def document(models_dir):
    refs = [{"model": name} for name in "abcd"]
    return {
        "model_selection": {"ml": {"enabled": True, "models_path": str(models_dir)}},
        "keyword_rules": [{"name": "urgent", "operator": "OR", "keywords": ["asap"]}],
        "decisions": [
            {
                "name": "exact",
                "priority": 5,
                "rules": {"operator": "OR", "conditions": [domain("math"), domain("physics"), domain("business")]},
                "algorithm": {"type": "knn", "knn": {"k": 9}},
                "modelRefs": refs[:3],
            },
            {"name": "law", "rules": domain("law"), "algorithm": {"type": "svm"}, "modelRefs": refs[1:]},
            {"name": "now", "priority": 9, "rules": {"type": "keyword", "name": "urgent"}, "modelRefs": refs[2:]},
        ],
    }


@pytest.fixture
def route(cli, tmp_path):
    """Call with a configuration and further options: what came of routing ROWS."""

    def run(document, *options, rows=ROWS, output="out.jsonl"):
        (tmp_path / "config.yaml").write_text(dump_yaml(document))
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        where = "--input", tmp_path / "log.jsonl", "--output", tmp_path / output
        return cli("route", "--config", tmp_path / "config.yaml", *where, *options)

    return run


def rows_of(path):
    """A row without an error has no such field in JSON lines."""
    return [{"error": None, **json.loads(line)} for line in path.read_text().splitlines()]


def test_rows_get_what_the_router_decides(route, document, tmp_path):
    done = route(document)
    assert done.status == 3
    rows = rows_of(tmp_path / "out.jsonl")
    router = DecisionRouter.from_config(read_config(tmp_path / "config.yaml"))
    queries = [Query(row["query"], row.get("domain") or row.get("category")) for row in ROWS]
    for given, row, decided in zip(ROWS, rows, router.decide(queries), strict=True):
        assert [name for name in row if name in RESULTS[:-1]] == RESULTS[:-1]
        assert {k: v for k, v in row.items() if k not in RESULTS} == {
            ("input_domain" if name == "domain" else name): value for name, value in given.items()
        }
        if isinstance(decided, Decided):
            found = decided.decision, decided.domain, decided.model, None
            assert (row["decision"], row["domain"], row["model"], row["error"]) == found
            assert row["score"] == pytest.approx(decided.score, abs=2e-5)
            assert row["margin"] == pytest.approx(decided.margin, abs=4e-5)
        else:
            assert {row[name] for name in RESULTS[:-1]} == {None}
            assert row["error"] == str(decided) or row["id"] == 6
    assert [row["decision"] for row in rows[:4]] == ["exact", "law", "now", None]
    assert rows[6]["error"] == "query: expected a text that is not empty, got ''"
    predicted = [row["domain"] for row in rows if row["id"] in (4, 5) and row["error"] is None]
    assert len(predicted) > 0


def test_what_is_said(route, document, tmp_path):
    done = route(document)
    lines = done.err.splitlines()
    counts = Counter(row["decision"] for row in rows_of(tmp_path / "out.jsonl"))
    assert lines[0] == "2 of 8 rows have no domain or category: their domain was predicted"
    assert lines[1] == "warning: the input's field 'domain' is kept as 'input_domain'"
    assert lines[2].startswith(f"routed {8 - counts[None]} of 8 rows to {tmp_path / 'out.jsonl'} in ")
    at = lines.index("by decision:")
    said = {line.split()[0]: int(line.split()[1]) for line in lines[at + 1 : -1]}
    assert said == {name: count for name, count in counts.items() if name}
    assert lines[-1] == (
        f"{counts[None]} rows could not be routed and have `error` set; the first: row 4: decision: no decision's "
        "rules hold for this query of domain 'biology', and there is no default"
    )


def test_with_a_default_only_bad_rows_are_left(route, document, tmp_path):
    assert route(document | {"default": "a"}).status == 3
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows if row["error"]] == [6, 7]
    assert (rows[3]["decision"], rows[3]["model"], rows[3]["score"], rows[3]["margin"]) == ("default", "a", 0.0, None)
    assert route(document | {"default": "law"}, rows=ROWS[:6]).status == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_have_the_columns(route, document, tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    assert route(document | {"default": "a"}, "--keep", "id,domain", output=output.name).status == 3
    if kind == "csv":
        with open(output, newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["id", "input_domain", *RESULTS]
        assert (rows[1]["decision"], rows[1]["domain"], rows[1]["input_domain"]) == ("law", "law", "")
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(output)
        assert table.column_names == ["id", "input_domain", *RESULTS]
        assert [str(table.schema.field(name).type) for name in RESULTS] == [
            *["string"] * 3, "double", "double", "string"
        ]  # fmt: skip


def test_the_domain_field_and_the_cache(route, document, tmp_path):
    rows = [{"query": "x", "field": "law", "domain": "math"}, {"query": "y", "field": "math"}]
    for _ in range(2):
        done = route(document, "--domain-field", "field", "--cache-dir", tmp_path / "cache", rows=rows)
        assert done.status == 0
        assert [row["decision"] for row in rows_of(tmp_path / "out.jsonl")] == ["law", "exact"]


def test_a_log_that_was_routed_can_be_routed_again(route, document, tmp_path):
    assert route(document | {"default": "a"}, rows=ROWS[:3]).status == 0
    first = rows_of(tmp_path / "out.jsonl")
    assert route(document | {"default": "a"}, "--domain-field", "domain", rows=first).status == 0
    again = rows_of(tmp_path / "out.jsonl")
    assert [row["decision"] for row in again] == [row["input_decision"] for row in again]
    assert all("input_input_domain" in row or "category" in row for row in again)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "options",
    [["--models-dir", "m"], ["--algorithm", "knn"], ["--model", "m.json"], ["--candidates", "a"]],
)
def test_options_that_the_configuration_stands_for(route, document, options):
    done = route(document, *options)
    assert done.status == 2
    assert "--config says which files, algorithms and models there are: give it without --features" in done.err


def test_the_settings_of_tune_are_no_decisions(route):
    done = route({"knn": {"k": 5}, "seed": 1})
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert "decisions: expected a list of 1 to 1000 decisions, got nothing; knn: unknown key; expected one of " in line


def test_a_configuration_that_is_not_there(cli, tmp_path):
    done = cli("route", "--config", tmp_path / "no.yaml", "--input", "-", "--output", "-")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"error: cannot read {tmp_path / 'no.yaml'}: No such file or directory\n"


def test_nothing_is_written_when_files_disagree(route, document, tmp_path):
    document["decisions"][0]["algorithm"] = {"type": "kmeans", "kmeans": {"num_clusters": 3}}
    document["decisions"][1]["modelRefs"].append({"model": "gpt"})
    done = route(document)
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert "decisions[0].algorithm.kmeans.num_clusters: expected 16, with which " in line
    assert "; decisions[1].modelRefs[3].model: expected a model that " in line
    assert not (tmp_path / "out.jsonl").exists()


def test_a_folder_without_files(route, document, tmp_path):
    document["model_selection"]["ml"]["models_path"] = str(tmp_path / "absent")
    done = route(document)
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: pretrained model not found: {tmp_path / 'absent'} holds none of knn_model.json, ")


def test_an_encoder_of_another_training(route, document, write_tiny_bert, tmp_path):
    other = write_tiny_bert(tmp_path / "other", pooling="cls")
    done = route(document, "--embedding-model", other)
    assert done.status == 1
    assert "knn_model.json: trained with encoder " in done.err.splitlines()[-1]
