"""README's tables are what bench/results gives."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "bench" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results in place of the real one."""
    folder = tmp_path / "bench" / "results"
    folder.mkdir(parents=True)
    for name, value in (("ROOT", tmp_path), ("RESULTS", folder), ("CHART", folder / "throughput.png")):
        monkeypatch.setattr(report, name, value)
    return folder


def place(**more: Any) -> dict[str, Any]:
    return {
        "command": "python bench/x.py",
        "cpu": "Some CPU",
        "threads": 2,
        "gpu": None,
        "versions": {"torch": "2.13.0"},
        "repeats": 3,
        **more,
    }


def end_to_end(**more: Any) -> dict[str, Any]:
    ours = {"tokens_per_s": 6000.0, "queries_per_s": 40.0, "utilisation": 0.61, "stage_shares": {"select": 0.012}}
    compared = {**ours, "speed_over_peer": 2.0, "same_models": 0.9993}
    result = {
        "queries": 1495,
        "peer": {
            "batch_size": 16,
            "dtype": "float32",
            "selectors": {"knn": {"tokens_per_s": 3000.0}},
        },
        "ours": {"float32": {"knn": compared, "knn, 1,000,000 rows": ours}},
    }
    document = {"encoder": "a tiny one", "roofs": {"float32": {"flops_per_s": 2.5e11}}, "results": {"mmlu": result}}
    return place(**document, **more)


def test_the_readmes_tables_are_those_of_the_results(report):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.with_tables(readme) == readme, "run python bench/report.py"


def test_a_second_run_changes_nothing(report, results):
    (results / "end_to_end-cpu.json").write_text(json.dumps(end_to_end()))
    once = report.with_tables(f"before {report.BEGIN} old {report.END} behind")
    assert once.startswith("before ")
    assert once.endswith(" behind")
    assert " old " not in once
    assert report.with_tables(once) == once


def test_a_log_from_file_to_file(report, results):
    (results / "end_to_end-cpu.json").write_text(json.dumps(end_to_end()))
    (block,), broken = report.tables("cpu")
    assert broken == []
    lines = block.splitlines()
    assert lines[0].endswith("(Some CPU, 2 threads; torch 2.13.0; `python bench/x.py`):")
    assert "roof" not in block
    assert lines[4] == "| mmlu, 1,495 queries | KNN | float32 | 6,000 | 40 | 1.2% | 3,000 | 2.00 | 99.93% |"
    assert lines[5] == "| mmlu, 1,495 queries | KNN, 1,000,000 rows | float32 | 6,000 | 40 | 1.2% | - | - | - |"


def test_a_log_from_file_to_file_on_a_gpu_beside_its_roof(report, results):
    (results / "end_to_end-cuda.json").write_text(json.dumps(end_to_end() | {"gpu": "Some GPU"}))
    (block,), _ = report.tables("cuda")
    assert "0.25 TFLOP/s in float32" in block
    assert "| mmlu, 1,495 queries | KNN | float32 | 6,000 | 40 | 61% | 1.2% | 3,000 | 2.00 | 99.93% |" in block


def test_selection(report, results):
    seconds = {"ours": 0.5, "faiss": 1.25}
    (results / "selection-cpu.json").write_text(json.dumps(place(results={"knn": {"seconds": seconds}})))
    (block,), _ = report.tables("cpu")
    assert "| KNN, 7,500 rows, k = 5 | 500 ms | faiss | 1.25 s | 2.50 |" in block


def test_nearest_neighbours_on_a_gpu(report, results):
    few = {"seconds": {"ours": 0.5, "torch": 2.0}, "queries with a wrong row": {"ours": 0.0, "torch": 0.01}}
    many = {"seconds": {"ours": 1.0}, "queries with a wrong row": {"ours": 0.0}}
    document = place(batch=1000, k=5, results={"few": few, "many": many}) | {"gpu": "Some GPU"}
    (results / "knn-cuda.json").write_text(json.dumps(document))
    (block,), _ = report.tables("cuda")
    assert "(Some GPU; torch" in block
    assert "| few | 2,000 | 500 | 0.00% |" in block
    assert "| many | 1,000 | - | 0.00% |" in block


def test_kernels(report, results):
    row = {
        "name": "swiglu",
        "milliseconds": {"kernel": 0.5, "torch": 1.5, "torch.compile": "RuntimeError: no"},
        "error": {"kernel": 0.001, "torch": 0.002},
        "share_of_roof": 0.87,
        "roof": "copy",
    }
    document = place(roofs={"copy": {"rate": 4300.0, "unit": "GB/s"}}, results=[row])
    (results / "kernels-cuda.json").write_text(json.dumps(document))
    (block,), _ = report.tables("cuda")
    assert "copy 4,300 GB/s" in block
    assert "| swiglu | 0.5 ms | 1.5 ms | - | 87% of copy | 1e-03 | 2e-03 |" in block


def test_determinism(report, results):
    free = {"knn": {"other_models": 0.01, "other_score_bits": 0.5, "seconds": 2.0}}
    same = {"knn": {"other_models": 0.0, "other_score_bits": 0.0, "seconds": 3.0}}
    document = place(encoder="x", queries=256, results={"bfloat16": {"free": free, "deterministic": same}})
    (results / "determinism-cpu.json").write_text(json.dumps(document))
    (block,), _ = report.tables("cpu")
    assert "| bfloat16 | KNN | 1.00% | 50.00% | 0.00% | 0.00% | 1.50 |" in block


def test_what_was_not_measured_does_not_appear(report, results):
    assert report.tables("cuda") == ([], [])
    text = report.with_tables(f"{report.BEGIN} old {report.END} behind")
    assert text.split() == [*report.BEGIN.split(), *report.END.split(), "behind"]


def test_a_result_that_cannot_be_understood_is_named_and_the_others_are_shown(report, results, monkeypatch, capsys):
    (results / "end_to_end-cpu.json").write_text("{}")
    (results / "selection-cpu.json").write_text(
        json.dumps(place(results={"knn": {"seconds": {"ours": 1.0, "x": 2.0}}}))
    )
    monkeypatch.setattr(sys, "argv", ["report.py", "--table", "cpu"])
    with pytest.raises(SystemExit, match=r"end_to_end-cpu\.json: KeyError"):
        report.main()
    assert "**Selection**" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"end_to_end-cpu\.json: KeyError"):
        report.with_tables(f"{report.BEGIN}{report.END} behind")


def test_a_readme_without_the_place_for_them_is_left_alone(report, results):
    with pytest.raises(SystemExit, match="expected the lines"):
        report.with_tables("no such lines")


def test_the_chart_is_drawn_and_named_once_there_is_one(report, results):
    pytest.importorskip("matplotlib")
    (results / "end_to_end-cpu.json").write_text(json.dumps(end_to_end()))
    assert "![" not in report.with_tables(f"{report.BEGIN}{report.END} behind")
    report.draw(report.CHART)
    assert report.CHART.read_bytes().startswith(b"\x89PNG")
    assert "](bench/results/throughput.png)" in report.with_tables(f"{report.BEGIN}{report.END} behind")


def test_without_results_there_is_no_chart(report, results):
    report.draw(report.CHART)
    assert not report.CHART.exists()


def test_the_gpu_script_names_scripts_that_exist():
    text = (ROOT / "bench" / "gpu.sh").read_text(encoding="utf-8")
    scripts = {word for word in text.split() if word.startswith("bench/") and word.endswith(".py")}
    assert {"bench/kernels.py", "bench/knn.py", "bench/end_to_end.py", "bench/determinism.py"} <= scripts
    assert all((ROOT / script).is_file() for script in scripts)
