from __future__ import annotations

import json
import sys


def test_both_sides_agree_and_the_report_understands_them(script, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["svm.py", "--rows", "150", "--repeats", "1", "--widths", "2"])
    script("svm").main()
    document = saved["svm-cpu"]
    assert [row["target"] for row in document["results"]] == ["expected gains"] * 2 + ["single outcomes"]
    for row in document["results"]:
        assert row["objective_difference"] < 1e-3
        assert 0 < row["gap"] <= 1e-3
    assert document["tuning"]["machines"] == 2 * 5 * 5 * 6
    assert 0 < document["tuning"]["gap"] <= 1e-3
    assert "tuning: 300 machines on 150 rows" in capsys.readouterr().out
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "svm-cpu.json").write_text(json.dumps(document))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert "150 queries x 6 models, expected gains, gamma 1, C 1" in block
