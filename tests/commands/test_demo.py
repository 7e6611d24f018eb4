from __future__ import annotations

import functools
import json
import os
import time

import pytest
import torch

from gpu_select import simulation
from gpu_select.simulation import MODEL_NAMES


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_trains_validates_and_routes(cli, minilm_path, tmp_path, monkeypatch):
    small = functools.partial(simulation.write_demo_data, n_train=60, n_validate=20, n_log=30)
    monkeypatch.setattr(simulation, "write_demo_data", small)
    folder = tmp_path / "demo"
    done = cli("demo", "--output-dir", folder)
    assert done.status == 0, done.err
    steps = [line for line in done.out.splitlines() if line.startswith("[")]
    assert [step[:5] for step in steps] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    # nobody may take these figures for those of real models
    assert "simulating" in steps[0]
    assert "simulated outcomes" in steps[2]
    for name in (
        "oracle",
        "knn",
        "kmeans",
        "svm",
        "mlp",
        "per-domain",
        "random",
        *(f"always:{m}" for m in MODEL_NAMES),
    ):
        assert f"\n{name} " in done.out
    assert done.out.splitlines()[-1].startswith("done in ")
    assert f"routed 30 of 30 rows to {folder / 'routed.jsonl'}" in done.err
    assert " rows/s, " in done.err
    routed = lines_of(folder / "routed.jsonl")
    assert [row["id"] for row in routed] == [row["id"] for row in lines_of(folder / "log.jsonl")]
    assert {row["model"] for row in routed} <= set(MODEL_NAMES)
    assert json.loads((folder / "validation.json").read_bytes())["queries"] == 20
    assert sorted(path.name for path in (folder / "models").iterdir()) == [
        "domain_model.safetensors",
        "kmeans_model.json",
        "knn_model.json",
        "mlp_model.json",
        "svm_model.json",
    ]


def test_a_folder_that_cannot_be_written_is_one_line(cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("demo", "--output-dir", tmp_path / "file")
    assert done.status == 1
    assert done.err.startswith(f"error: cannot write {tmp_path / 'file'}")
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_the_whole_demo_is_quick_and_every_selector_beats_the_best_single_model(cli, minilm_path, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    done = cli("demo", "--output-dir", tmp_path)
    torch.set_num_threads(before)
    assert done.status == 0, done.err
    assert time.perf_counter() - start < 300
    assert len(lines_of(tmp_path / "routed.jsonl")) == 2000
    found = {s["name"]: s for s in json.loads((tmp_path / "validation.json").read_bytes())["strategies"]}
    for name in ("knn", "kmeans", "svm", "mlp"):
        assert found[name]["gain_over_best_single"] > 0.05, name
