from __future__ import annotations

import json
import sys

import numpy as np
import torch

from gpu_select.records import OutcomeTable
from gpu_select.simulation import benchmark_records


def table() -> OutcomeTable:
    quality = np.array([[1.0, 0.0], [0.2, 0.4], [np.nan, 0.9]])
    latency = np.array([[1.0, 2.0], [1.5, 3.0], [np.nan, np.nan]])
    return OutcomeTable(["a", "b", "c"], ["math", "law", "law"], ["x", "y"], quality, latency)


def test_the_older_knn_has_a_row_for_every_record(script):
    document = script("older_trainer").older_knn(torch.eye(3), table())
    assert (document.k, document.labels) == (5, ["x", "y", "x", "y", "y"])
    np.testing.assert_array_equal(document.embeddings_ND, np.eye(3)[[0, 0, 1, 1, 2]])
    np.testing.assert_array_equal(document.qualities_N, [1.0, 0.0, 0.2, 0.4, 0.9])
    np.testing.assert_array_equal(document.latencies_ns_N, [1e9, 2e9, 1.5e9, 3e9, 1e9])


def test_the_older_kmeans_sums_scores_so_that_whoever_answered_more_wins(script):
    features = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    # x: 0.9 * 1.2 + 0.1 * (1 + 0.75); y: 0.9 * 1.3 + 0.1 * (0.5 + 0) and a record without a time
    document = script("older_trainer").older_kmeans(features, table(), seed=0)
    assert document.cluster_models == ["x"]


def test_five_parts_are_judged_by_files_that_have_not_seen_them(
    tiny_encoder_path, tmp_path, script, saved, monkeypatch, capsys
):
    quality = script("quality")
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in benchmark_records(120, seed=3)))
    monkeypatch.setattr(quality, "ALGORITHMS", ("knn", "kmeans"))  # the others take a minute
    common_options = ["--encoder", str(tiny_encoder_path), "--cache-dir", str(tmp_path / "cache"), "--folds", "2"]
    monkeypatch.setattr(sys, "argv", ["quality.py", "--data", str(data), "--name", "it", *common_options])
    quality.main()
    (name, results), *_ = saved.items()
    rows = {row["strategy"]: row for row in results["results"]}
    assert name == "quality_it-cpu"
    assert set(rows) == {"knn", "kmeans", "older knn", "older kmeans", "best single", "best per domain"}
    assert results["queries"] == 120
    assert len(results["settings"]) == 5
    for row in rows.values():
        low, high = row["against"]["best single"]["ci95"]
        assert low <= row["against"]["best single"]["mean"] <= high
        assert results["bounds"]["random"] - 0.2 < row["quality"] < results["bounds"]["oracle"]
    assert "paired 95 %" in capsys.readouterr().out
