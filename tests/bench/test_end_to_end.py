from __future__ import annotations

import json
import sys

import pytest

from gpu_select.simulation import benchmark_records


@pytest.fixture
def run(script, saved, tiny, monkeypatch, capsys):
    """Call with options: what bench/end_to_end.py saves, and its output."""

    def call(*options):
        module = script("end_to_end")
        monkeypatch.setattr(module, "WARM_UP", {"cpu": 4})
        monkeypatch.setattr(sys, "argv", ["end_to_end.py", "--cache-dir", str(tiny), "--repeats", "2", *options])
        module.main()
        return saved, capsys.readouterr().out

    return call


def test_made_up_queries_and_selectors(run):
    saved, out = run("--synthetic", "--queries", "12", "--rows", "40", "80")
    document = saved["end_to_end-cpu"]
    assert document["encoder"].startswith("RANDOM WEIGHTS")
    assert list(document["results"]) == ["64 tokens", "128 tokens"]
    first, second = document["results"].values()
    assert list(first["ours"]["bfloat16"]) == ["knn", "kmeans", "svm", "knn, 80 rows"]
    assert list(second["ours"]["bfloat16"]) == ["knn", "knn, 80 rows"]
    knn = first["ours"]["bfloat16"]["knn"]
    assert knn["queries"] == first["peer"]["queries"] == 12
    theirs = first["peer"]["selectors"]["knn"]
    assert knn["speed_over_peer"] == pytest.approx(theirs["seconds"] / knn["seconds"])
    assert knn["other_models"] == round(12 * (1 - knn["same_models"]))
    assert "same_models" not in first["ours"]["bfloat16"]["knn, 80 rows"]
    assert "peer: sentence-transformers encode + scikit-learn in bfloat16" in out
    json.dumps(document)


def test_the_report_understands_what_is_saved(run, script, tmp_path, monkeypatch):
    saved, _ = run("--synthetic", "--queries", "5", "--rows", "20", "30")
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "end_to_end-cpu.json").write_text(json.dumps(saved["end_to_end-cpu"]))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert block.count("\n| 64 tokens |") == 4
    groups = report._groups(saved["end_to_end-cpu"])
    assert [name for name, _ in groups] == ["64 tokens, KNN", "64 tokens, KMeans", "64 tokens, SVM", "128 tokens, KNN"]
    assert {len(bars) for _, bars in groups} == {2}


def test_trained_selectors_and_records(run, script, tiny, monkeypatch, write_records):
    from gpu_select import encoder

    folder, load = tiny / "random-tiny", encoder.load_encoder
    for module in (encoder, script("end_to_end")):  # MiniLM is the tiny model here
        monkeypatch.setattr(module, "load_encoder", lambda name, **options: load(str(folder), **options))
        monkeypatch.setattr(module, "resolve_encoder", lambda name: folder)
    saved, _ = run("--train", write_records("train", 40), "--log", write_records("dev", 9), "--name", "x")
    result = saved["x"]["results"]["dev"]
    assert list(result["ours"]) == ["float32", "bfloat16"]
    assert all(list(rows) == ["knn", "kmeans", "svm"] for rows in result["ours"].values())
    assert result["queries"] == result["peer"]["queries"] == 9


def test_records_are_needed_on_the_cpu(run):
    with pytest.raises(SystemExit):
        run("--queries", "3")


@pytest.fixture
def write_records(tmp_path):
    def write(name, n):
        rows = list(benchmark_records(n, seed=len(name)))
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
