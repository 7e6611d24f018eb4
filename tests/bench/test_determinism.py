from __future__ import annotations

import json
import sys


def test_all_ways_are_compared_and_the_report_understands_them(script, saved, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["determinism.py", "--cache-dir", str(tiny), "--queries", "20", "--rows", "50"])
    script("determinism").main()
    document = saved["determinism-cpu"]
    assert document["queries"] == 20
    assert list(document["results"]) == ["float32", "bfloat16"]
    for ways in document["results"].values():
        assert list(ways) == ["free", "deterministic"]
        for row in ways["deterministic"].values():
            assert row["other_models"] == row["other_score_bits"] == 0
    assert capsys.readouterr().out.count("deterministic") == 8  # selectors x dtypes
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "determinism-cpu.json").write_text(json.dumps(document))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert block.count("| 0.00% | 0.00% |") >= 6
