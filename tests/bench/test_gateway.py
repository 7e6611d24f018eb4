from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")


@pytest.mark.slow
def test_both_gateways_answer_and_the_report_understands_the_result(
    script, saved, tiny_encoder_path, tmp_path, monkeypatch
):
    options = ["--encoder", str(tiny_encoder_path), "--seconds", "1", "--repeats", "1", "--clients", "4"]
    monkeypatch.setattr(sys, "argv", ["gateway.py", *options])
    gateway = script("gateway")
    monkeypatch.setattr(gateway, "N_SINGLE", 20)
    gateway.main()
    document = saved["gateway-cpu"]
    (result,) = document["results"].values()
    for modes in result["at_once"].values():
        assert modes["ratio"] > 0
        assert {*modes["batched"]["statuses"]} == {*modes["one_by_one"]["statuses"]} == {"200"}
    single = result["single_client"]
    assert single["added_p50_ms"] == pytest.approx(single["gateway_p50_ms"] - single["bare_p50_ms"])
    report = script("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "gateway-cpu.json").write_text(json.dumps(document))
    (block,), broken = report.tables("cpu")
    assert broken == []
    assert block.count("/v1/chat/completions") == 1
