from __future__ import annotations

import json
import os
import sys

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("openai")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_all_ways_answer_and_the_report_understands_the_result(script, saved, tmp_path, monkeypatch):
    options = ["--latency-ms", "20", "--parallel", "4,9", "--seconds", "0.5", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
    script("benchmark").main()
    document = saved["benchmark-cpu"]
    for parallel, row in document["results"].items():
        assert row["possible_per_s"] == int(parallel) / 0.02
        assert all(0 < share <= 1 for share in row["share"].values())
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "benchmark-cpu.json").write_text(json.dumps(document))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert "| 9 | 450 | " in block
