from __future__ import annotations

import json
import sys

from gpu_select.simulation import benchmark_records


def test_expectations_and_times_of_a_small_benchmark(script, saved, tiny_encoder_path, tmp_path, monkeypatch, capsys):
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in benchmark_records(100, seed=0)))
    arguments = ["--data", data, "--encoder", tiny_encoder_path, "--cache-dir", tmp_path, "--rows", 500]
    monkeypatch.setattr(sys, "argv", ["replay.py", *map(str, arguments)])
    script("replay").main()
    document = saved["replay-cpu"]
    assert set(document["seconds"]) == {"sweep", "budget", "one share", "three shares", "budget, shares"}
    names = [row["policy"] for row in document["policies"]]
    assert names[:5] == ["best-expected", "knn", "kmeans", "svm", "mlp"]
    assert len(names) == 10
    for row in document["policies"]:
        low, high = row["ci95"]
        assert low < row["realised"] - row["expected"] < high
    assert "best-expected" in capsys.readouterr().out
