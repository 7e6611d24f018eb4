from __future__ import annotations

import json
import sys

from gpu_select.simulation import benchmark_records


def test_ridges_are_judged_on_queries_that_were_not_seen(
    tiny_encoder_path, tmp_path, script, saved, monkeypatch, capsys
):
    domains = script("domains")
    monkeypatch.setattr(domains, "RIDGES", (2.0, 0.25))
    for name, seed, n in (("train", 3, 120), ("test", 4, 40)):
        lines = [json.dumps(record) + "\n" for record in benchmark_records(n, seed=seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    paths = ["--data", str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "test.jsonl")]
    options = ["--encoder", str(tiny_encoder_path), "--cache-dir", str(tmp_path / "cache"), "--folds", "2"]
    monkeypatch.setattr(sys, "argv", ["domains.py", *paths, *options])
    domains.main()
    ((name, results),) = saved.items()
    assert name == "domains-cpu"
    assert (results["data"], results["test"]) == ("train.jsonl", "test.jsonl")
    assert results["queries"] == 120
    assert 0 < results["test_queries"] <= 40
    first, second = results["results"]
    best = max((first, second), key=lambda row: row["cross_validated"]["accuracy"])
    assert results["chosen"] == best["ridge"]
    assert results["most_frequent"] < second["test"]["accuracy"] <= 1
    assert abs(results["scikit_learn"]["accuracy"] - second["test"]["accuracy"]) < 0.05
    assert "cross-validated" in capsys.readouterr().out
