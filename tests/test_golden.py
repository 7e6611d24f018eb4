"""Files of a production router: for every query the decision that its engine made."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu_select.artifacts import load_selector
from gpu_select.commands.route import route
from gpu_select.selectors import Selector, choose

QUERIES = 240
KNN = ("knn_k25", "knn_k5", "knn_no_latency", "knn_no_quality")
OTHERS = ("kmeans_64", "kmeans_8", "svm_linear", "svm_rbf", "svm_rbf_sharp", "svm_unit_alpha")

LEFT_OUT = (
    *("input_format", "output_format", "models_dir", "algorithm", "embedding_model", "cache_dir"),
    *("token_budget", "domain_field", "candidates", "keep"),
)
"""Options of `gpu-select route` that ready features do without."""

needs_faiss = pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss")

each_file = pytest.mark.parametrize("name", [*KNN, *OTHERS])
each_file_and_backend = pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "torch") for name in (*KNN, *OTHERS)] + [pytest.param(name, "faiss", marks=needs_faiss) for name in KNN],
)


@pytest.fixture(scope="session")
def golden(shared_dir: Path) -> Path:
    return shared_dir / "golden"


@cache
def features_of(golden: Path) -> np.ndarray:
    features = np.load(golden / "queries.npy")
    assert features.shape == (QUERIES, 1038)
    return features


@cache
def decisions_of(golden: Path, name: str) -> list[str]:
    decisions = (golden / f"{name}.decisions.txt").read_text(encoding="utf-8").splitlines()
    assert len(decisions) == QUERIES
    return decisions


@cache
def selector_of(golden: Path, name: str, backend: Any = "torch") -> Selector:
    return load_selector(golden / f"{name}.json.gz", backend=backend).selector


def decide(golden: Path, name: str, backend: str, rows: int = QUERIES) -> list[str]:
    selector = selector_of(golden, name, backend)
    blocks = torch.split(torch.from_numpy(features_of(golden)), rows)
    return [selector.models[m] for block in blocks for m in choose(selector(block)).model.tolist()]


def route_features(golden: Path, name: str, output: Path, backend: str = "torch") -> Any:
    options: dict[str, Any] = dict.fromkeys(LEFT_OUT)
    files = {"features": str(golden / "queries.npy"), "output": str(output), "model": str(golden / f"{name}.json.gz")}
    return route(**options, **files, query_field="query", device="cpu", dtype="auto", knn_backend=backend)


def test_all_files_are_tested(golden):
    assert sorted(path.name.removesuffix(".json.gz") for path in golden.glob("*.json.gz")) == sorted((*KNN, *OTHERS))


@each_file_and_backend
def test_decisions_are_the_engines(golden, name, backend):
    assert decide(golden, name, backend) == decisions_of(golden, name)


@each_file_and_backend
def test_one_by_one_decides_like_all_at_once(golden, name, backend):
    assert decide(golden, name, backend, rows=1) == decisions_of(golden, name)


@each_file
def test_the_reference_engine_agrees(golden, engine, name):
    assert engine.decide(golden / f"{name}.json.gz", features_of(golden)) == decisions_of(golden, name)


@each_file
def test_scores_are_those_of_the_reference_engine(golden, engine, name):
    selector = selector_of(golden, name)
    features = features_of(golden)[:40]
    scores = selector(torch.from_numpy(features)).double()
    for row, reading in zip(scores, engine.readings(golden / f"{name}.json.gz", features), strict=True):
        expected = dict(zip(reading.models, reading.scores, strict=True))
        # a model without a vote has 0 here
        expected_M = [max(expected[model], 0.0) if name in KNN else expected[model] for model in selector.models]
        torch.testing.assert_close(row, torch.tensor(expected_M, dtype=torch.float64), atol=2e-5, rtol=1e-5)


@each_file_and_backend
def test_the_route_command_decides_like_the_engine(golden, tmp_path, capsys, name, backend):
    report = route_features(golden, name, tmp_path / "out.txt", backend)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines() == decisions_of(golden, name)
    assert (report.rows, report.errors) == (QUERIES, 0)
    assert f"routed {QUERIES} of {QUERIES} rows" in capsys.readouterr().err


def test_the_command_line_decides_like_the_engine(golden, tmp_path):
    options = {
        "features": golden / "queries.npy",
        "model": golden / "kmeans_64.json.gz",
        "output": tmp_path / "o.jsonl",
    }
    command = [sys.executable, "-m", "gpu_select", "route"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["model"] for row in rows] == decisions_of(golden, "kmeans_64")
    assert [row["row"] for row in rows] == list(range(QUERIES))
    assert all(row["margin"] > 0 and row.get("error") is None for row in rows)
