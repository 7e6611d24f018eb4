"""The callable: the same rows, decisions and error texts as `gpu-select route`, loaded once in a process."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpu_select.batch import RouterBatch, router_batch
from gpu_select.errors import ConfigError, DeviceError, InputError
from gpu_select.yamlio import dump_yaml

ROOT = Path(__file__).parents[2]
WORDS = ["what", "is", "the", "law", "of", "energy", "and", "force", "in", "cell", "disease", "year", "money", "market"]
COLUMNS = {
    "id": list(range(61)),
    "query": [
        ["what is the law of energy", None, "  ", "force " * 50, "the city"][i % 5] if i < 5 else
        " ".join(WORDS[i * k % len(WORDS)] for k in range(1, 3 + i % 7))
        for i in range(61)
    ],
    "domain": [["law", None, "", "physics", "maths"][i % 5] if i < 50 else None for i in range(61)],
    "category": [["history", "math"][i % 2] for i in range(61)],
    "model": ["mine"] * 61,
}  # fmt: skip
OTHERS = {
    "one algorithm": {"algorithm": "mlp"},
    "one file": {"file": "kmeans_model.json"},
    "candidates": {"algorithm": "knn", "candidates": ["a", "c"]},
    "a domain column": {"algorithm": "svm", "domain_column": "category"},
    "some columns": {"algorithm": "knn", "keep": ["id", "model"]},
}
"""Options by what they show."""


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory, write_tiny_models):
    return write_tiny_models(tmp_path_factory.mktemp("models"), {})


@pytest.fixture
def make(models_dir, tiny_encoder_path):
    """Call with options: a router on the CPU, whose results do not hang on the batch."""

    def make(**options):
        if "file" in options:
            options["models_dir"] = models_dir / options.pop("file")
        if "config" not in options:
            options.setdefault("models_dir", models_dir)
        if "embedding_column" not in options:
            options.setdefault("embedding_model", str(tiny_encoder_path))
        return RouterBatch(**{"device": "cpu", "deterministic": True, **options})

    return make


@pytest.fixture
def route(cli, models_dir, tiny_encoder_path, tmp_path):
    """Call with columns and options as those of `make`: the rows of a log that `gpu-select route` wrote."""

    def route(columns, **options):
        log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        log.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        names = {"query_column": "query-field", "domain_column": "domain-field", "embedding_column": "embedding-field"}
        arguments = ["--input", log, "--output", out, "--device", "cpu", "--deterministic"]
        if "file" in options:
            arguments += ["--model", models_dir / options.pop("file")]
        elif "config" not in options:
            arguments += ["--models-dir", models_dir]
        if "embedding_column" not in options:
            arguments += ["--embedding-model", tiny_encoder_path]
        for name, value in options.items():
            flag = f"--{names.get(name, name)}"
            arguments += [flag, ",".join(value) if isinstance(value, list) else value]
        done = cli("route", *arguments)
        assert done.status in (0, 3), done.err
        # JSON lines say nothing of an error that there is not
        return [{"error": None, **json.loads(line)} for line in out.read_text(encoding="utf-8").splitlines()]

    return route


def rows_of(columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("what", OTHERS)
def test_a_batch_becomes_what_the_command_makes_of_the_same_rows(what, make, route):
    routed = rows_of(make(**OTHERS[what])(COLUMNS))
    assert routed == route(COLUMNS, **OTHERS[what])
    assert len({row["model"] for row in routed}) > (1 if "file" in OTHERS[what] else 2)
    assert sum(row["error"] is not None for row in routed) > 1


def test_decisions_add_their_names_and_domains_as_the_command_does(make, route, models_dir, tmp_path):
    config = tmp_path / "config.yaml"
    refs = [{"model": name} for name in "abc"]
    law = {"name": "law", "rules": {"type": "domain", "name": "law"}, "modelRefs": refs[:2]}
    document = {
        "model_selection": {"ml": {"models_path": str(models_dir)}},
        "decisions": [{**law, "algorithm": {"type": "knn", "knn": {"k": 4}}}],
        "default": "c",
    }
    config.write_text(dump_yaml(document), encoding="utf-8")
    routed = rows_of(make(config=config)(COLUMNS))
    assert routed == route(COLUMNS, config=config)
    assert [routed[i][name] for i in (0, 3) for name in ("decision", "domain")] == ["law", "law", "default", "physics"]
    assert routed[0]["input_domain"] == "law"


@pytest.mark.parametrize("kind", ["lists", "arrays", "a matrix", "a table"])
def test_ready_embeddings_need_no_encoder(kind, make, route):
    vectors = np.random.default_rng(0).normal(size=(61, 32))
    vectors[7] = 0
    columns = {"domain": COLUMNS["domain"], "vector": vectors.tolist()}
    expected = route(columns, algorithm="svm", embedding_column="vector")
    columns["vector"] = {"arrays": list(vectors), "a matrix": vectors}.get(kind, columns["vector"])
    if kind == "a table":
        pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
        routed = make(algorithm="svm", embedding_column="vector")(pa.table(columns)).to_pydict()
    else:
        routed = make(algorithm="svm", embedding_column="vector")(columns)
    assert [[row[name] for name in ("model", "score", "margin", "error")] for row in rows_of(routed)] == [
        [row[name] for name in ("model", "score", "margin", "error")] for row in expected
    ]
    assert routed["error"][7].startswith("vector: expected finite numbers, and a vector whose length lies between")


def test_batches_may_be_cut_anywhere(make):
    routed = rows_of(make(algorithm="svm")(COLUMNS))
    router = make(algorithm="svm")
    parts = [router({name: column[i : i + 7] for name, column in COLUMNS.items()}) for i in range(0, 61, 7)]
    assert [row for part in parts for row in rows_of(part)] == routed


def test_columns_that_are_kept_are_the_ones_that_came(make):
    texts = np.array(["what is law", "the city"])
    ids = np.arange(2, dtype=np.int8)
    routed = make(query_column="text")({"text": texts, "id": ids})
    assert routed["text"] is texts
    assert routed["id"] is ids
    assert list(routed) == ["text", "id", "model", "score", "margin", "error"]


def test_only_results_are_kept_where_keep_is_empty(make):
    assert list(make(keep=[])(COLUMNS)) == ["model", "score", "margin", "error"]


@pytest.mark.parametrize("columns", [{}, {"query": []}, {"query": [], "other": []}])
def test_no_rows_become_no_rows(columns, make):
    nothing = {"model": [], "score": [], "margin": [], "error": []}
    assert make()(columns) == {**columns, **nothing}


def test_an_empty_partition_need_not_have_the_columns_that_are_kept(make):
    pa = pytest.importorskip("pyarrow")
    results = ["model", "score", "margin", "error"]
    assert list(make(keep=["id"])({})) == results
    assert make(keep=["id"])(pa.table({})).column_names == results


def test_a_column_that_is_named_twice_is_kept_once(make):
    pa = pytest.importorskip("pyarrow")
    routed = make(keep=["id", "id"])(pa.table({"id": [1], "query": ["law"]}))
    assert routed.column_names == ["id", "model", "score", "margin", "error"]


# ---------------------------------------------------------------- what is wrong with a batch


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"query_column": "text"}, "query_column: expected one of the columns of the batch: id, query, domain, "),
        ({"domain_column": "topic"}, "domain_column: expected one of the columns of the batch: id, query, domain, "),
        ({"keep": ["id", "name"]}, "keep: expected one of the columns of the batch: id, query, domain, category"),
        ({"embedding_column": "v"}, "embedding_column: expected one of the columns of the batch: id, query, domain"),
    ],
)
def test_a_column_that_is_not_there_is_refused_by_name(options, expected, make):
    with pytest.raises(ConfigError) as caught:
        make(**options)(COLUMNS)
    assert str(caught.value).startswith(expected)


def test_a_batch_that_is_none_is_refused(make):
    with pytest.raises(InputError, match=r"^batch: expected a dict of columns or an Arrow table, got list; "):
        make()([{"query": "what"}])


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"config": "c.yaml", "algorithm": "knn"},
            "config says which files, algorithms and models there are: give it without models_dir, algorithm, "
            "candidates and embedding_column",
        ),
        (
            {"embedding_column": "v", "embedding_model": "minilm"},
            "embedding_column names vectors: give it without embedding_model, token_budget and compile_layers, as "
            "there is no encoder",
        ),
        ({"algorithm": "tree"}, "algorithm: expected one of knn, kmeans, svm, mlp, got 'tree'"),
        ({"token_budget": 0}, "token_budget: expected an integer >= 1, got 0"),
        ({"token_budget": "9"}, "token_budget: expected an integer >= 1, got '9'"),
        ({"knn_backend": "annoy"}, "knn_backend: expected torch or faiss, got 'annoy'"),
        ({"candidates": "a,b"}, "candidates: expected a list of names, got 'a,b'"),
        ({"keep": "id"}, "keep: expected a list of names, got 'id'"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options, text):
    with pytest.raises(ConfigError) as caught:
        RouterBatch(**options)
    assert str(caught.value) == text


def test_files_that_are_missing_are_named_when_they_are_to_be_loaded(tmp_path):
    router = RouterBatch(tmp_path, device="cpu")
    with pytest.raises(InputError, match=f"pretrained model not found: {tmp_path} holds none of knn_model.json"):
        router({"query": ["what"]})


def test_a_device_that_is_not_there_is_named_when_the_router_is_to_be_loaded(make):
    with pytest.raises(DeviceError, match=r"^device: expected cpu, cuda, cuda:N or mps, got 'tpu'$"):
        make(device="tpu").load()


# ---------------------------------------------------------------- counts and warnings


def test_truncated_queries_are_counted_and_said_once(make, caplog):
    router = make(algorithm="knn")
    with caplog.at_level(logging.WARNING, logger="gpu_select"):
        for _ in range(3):
            router({name: column[:5] for name, column in COLUMNS.items()})
    report = router.report
    assert (report.rows, report.errors, report.truncated, report.without_domain) == (15, 9, 3, 0)
    assert report.first_error == "row 2: query: expected a text that is not empty, got None"
    assert sum(report.share.values()) == 6
    assert caplog.messages == [
        "1 queries are longer than the encoder takes and were truncated (said once a process; `report` counts them)"
    ]


def test_rows_without_a_domain_are_said_once(make, caplog):
    router = make(algorithm="knn")
    with caplog.at_level(logging.WARNING, logger="gpu_select"):
        router({"query": ["what", "who"]})
        router({"query": ["what", "who"]})
    assert router.report.without_domain == 4
    assert caplog.messages == [
        "2 of 2 rows have no domain or category: their domain counts as 'other' "
        "(said once a process; `report` counts them)"
    ]


# ---------------------------------------------------------------- once in a process


@pytest.fixture
def loads(monkeypatch):
    """What was loaded, each time."""
    loads = []
    log_router = router_batch.LogRouter
    monkeypatch.setattr(router_batch, "LogRouter", lambda *args: loads.append(args) or log_router(*args))
    return loads


def pickled(router):
    """What another process would get."""
    return pickle.loads(pickle.dumps(router))  # noqa: S301 - its own


def test_threads_and_copies_share_one_router(make, loads):
    router = make(algorithm="svm")
    copies = [pickled(router) for _ in range(4)]
    assert loads == []
    with ThreadPoolExecutor(8) as pool:
        routed = list(pool.map(lambda copy: copy(COLUMNS), [router, *copies] * 4))
    assert len(loads) == 1
    assert all(one == routed[0] for one in routed)
    assert router.report.rows == 61 * 4


def test_it_can_be_pickled_after_its_first_call_and_counts_from_nothing_then(make, loads):
    router = make(algorithm="svm")
    expected = router(COLUMNS)
    copy = pickled(router)
    assert copy.report.rows == 0
    assert copy(COLUMNS) == expected
    assert len(loads) == 1


def test_one_that_is_made_later_reads_the_files_again(make, loads, write_tiny_models, tmp_path):
    before = make(models_dir=write_tiny_models(tmp_path, {}, models="ab"))(COLUMNS)
    after = make(models_dir=write_tiny_models(tmp_path, {}, models="xy"))(COLUMNS)
    assert {*before["model"]} <= {"a", "b", None}
    assert {*after["model"]} <= {"x", "y", None}
    assert len(loads) == 2


def test_it_loads_neither_ray_nor_pyarrow_nor_pandas():
    code = "import sys, gpu_select.batch; print({'ray', 'pyarrow', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_other_processes_route_alike_and_raise_alike(make, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "kernels"))))
    router = make(algorithm="svm")
    batches = [{name: column[i : i + 10] for name, column in COLUMNS.items()} for i in range(0, 61, 10)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for here, there in zip(map(router, batches), pool.map(router, batches), strict=True):
            for name in ("score", "margin"):  # last bits hang on with what environment a process began
                assert there.pop(name) == [None if x is None else pytest.approx(x, rel=1e-5) for x in here.pop(name)]
            assert there == here
        with pytest.raises(ConfigError, match="query_column: expected one of the columns of the batch: text, got"):
            pool.submit(router, {"text": ["what"]}).result()
