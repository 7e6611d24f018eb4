"""Small benchmark records, and selectors that the command line trained on them with a tiny encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gpu_select.simulation import benchmark_records


def _write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_lines() -> Callable[[Path, Iterable[Any]], Path]:
    """Call with a path and rows: writes one JSON value a line, returns the path."""
    return _write_lines


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl of 120 queries x 5 simulated models, held_out.jsonl of 60 others."""
    folder = tmp_path_factory.mktemp("records")
    rows = list(benchmark_records(180, seed=0))
    _write_lines(folder / "train.jsonl", rows[:600])
    _write_lines(folder / "held_out.jsonl", rows[600:])
    return folder


@pytest.fixture(scope="session")
def models_dir(
    cli: Callable[..., Any], data_dir: Path, tiny_encoder_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """knn, kmeans and svm (rbf), trained on train.jsonl."""
    folder = tmp_path_factory.mktemp("models")
    done = cli(
        *("train", "--data-file", data_dir / "train.jsonl", "--output-dir", folder),
        *("--embedding-model", tiny_encoder_path, "--cache-dir", tmp_path_factory.mktemp("cache")),
    )
    assert done.status == 0, done.err
    return folder
