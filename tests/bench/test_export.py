from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from gpu_select.export.programs import RouterProgram, SelectorProgram
from gpu_select.simulation import benchmark_records


def test_all_packages_are_compared_and_the_report_understands_them(
    script, saved, tiny_encoder_path, tmp_path, monkeypatch, capsys
):
    """Without a compiler: an uncompiled program stands for each package."""
    export = script("export")
    programs = {}

    def stand_in(program, path):
        programs[str(path)] = program
        return SimpleNamespace(path=str(path), n_bytes=2_500_000, load_s=0.012, compile_s=30.0)

    monkeypatch.setattr(
        export, "export_selector", lambda one, path: stand_in(SelectorProgram(one, takes_candidates=False), path)
    )
    monkeypatch.setattr(
        export, "export_router", lambda one, path: stand_in(RouterProgram(one, takes_candidates=False), path)
    )
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: programs[path])
    monkeypatch.setattr(export, "BATCHES", (6, 1))
    for name, seed, n in (("train", 3, 120), ("log", 4, 10)):
        lines = [json.dumps(record) + "\n" for record in benchmark_records(n, seed=seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    paths = ["--train", str(tmp_path / "train.jsonl"), "--log", str(tmp_path / "log.jsonl")]
    options = ["--encoder", str(tiny_encoder_path), "--cache-dir", str(tmp_path / "cache"), "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["export.py", *paths, *options])
    export.main()
    document = saved["export-cpu"]
    names = [*(f"selector, {name}" for name in ("knn", "kmeans", "svm", "mlp")), "full, knn"]
    assert list(document["results"]) == names
    for name, result in document["results"].items():
        assert result["package"] == {"bytes": 2_500_000, "load_s": 0.012, "compile_s": 30.0}
        assert len(result["cases"]) == (4 if name.startswith("full") else 2)
        for case in result["cases"].values():
            assert case["same_models"] == case["queries"]
            assert case["speed_over"]["eager"] == pytest.approx(case["seconds"]["eager"] / case["seconds"]["package"])
            assert ("packed" in case["speed_over"]) == name.startswith("full")
    assert "6 queries, 12 words" in capsys.readouterr().out
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "export-cpu.json").write_text(json.dumps(document))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert "| selector, KNN | 6 queries |" in block
    assert "| 2.5 MB | 12 ms |" in block
