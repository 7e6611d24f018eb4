from __future__ import annotations

import json
import os
from typing import Any

import pytest

from gpu_select import export as export_package
from gpu_select.errors import ExportError
from gpu_select.router import Router

DONE = {
    "n_bytes": 12_345_678,
    "compile_s": 61.4,
    "load_s": 0.0213,
    "n_checked": 74,
    "n_different": 1,
    "metadata": {
        "algorithm": "kmeans",
        "models": ["a", "b"],
        "inputs": [
            {"name": "features", "shape": ["batch", 46], "dtype": "float32"},
            {"name": "candidates", "shape": ["batch", 2], "dtype": "bool"},
        ],
    },
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, dict[str, Any]]]:
    """What the command asks to be exported; nothing is compiled."""
    calls: list[tuple[str, Any, dict[str, Any]]] = []

    def stand_in(kind: str) -> Any:
        def export(one: Any, path: str, **how: Any) -> Any:
            calls.append((kind, one, how))
            return export_package.Exported(path=path, **DONE)

        return export

    monkeypatch.setattr(export_package, "check_compiler", lambda: None)
    for kind in ("router", "selector"):
        monkeypatch.setattr(export_package, f"export_{kind}", stand_in(kind))
    return calls


def test_it_says_what_came_out(cli, models_dir, tiny_encoder_path, tmp_path, asked):
    out = tmp_path / "r.pt2"
    how = "--embedding-model", tiny_encoder_path, "--device", "cpu"
    result = cli("export", "--models-dir", models_dir, "--output", out, *how, "--json", tmp_path / "r.json")
    assert result.status == 0
    assert result.out.splitlines() == [
        f"exported kmeans of {models_dir} for 2 models -> {out}",
        "takes     features (batch, 46) float32, candidates (batch, 2) bool",
        "size      12.3 MB",
        "compiled  in 61 s, loads in 21 ms where torch is loaded",
        "checked   73 of 74 decisions on made-up queries as in eager mode",
    ]
    assert result.err == "compiling, which takes a minute or more\n"
    assert json.loads((tmp_path / "r.json").read_text()) == {"path": str(out), **DONE}
    ((kind, router, options),) = asked
    assert (kind, options) == ("router", {"takes_candidates": False, "portable": False})
    assert isinstance(router, Router)
    assert router.selector.algorithm == "knn"


def test_options_reach_what_they_are_for(cli, models_dir, tiny_encoder_path, tmp_path, asked):
    common = "export", "--models-dir", models_dir, "--output", tmp_path / "s.pt2", "--device", "cpu"
    assert cli(*common, "--kind", "selector", "--algorithm", "svm", "--candidate-mask", "--portable").status == 0
    assert cli(*common, "--algorithm", "mlp", "--dtype", "bfloat16", "--embedding-model", tiny_encoder_path).status == 0
    (kind, selector, how), (_, router, _) = asked
    assert (kind, selector.algorithm) == ("selector", "svm")
    assert how == {"takes_candidates": True, "portable": True, "encoder_name": router.encoder.name}
    assert router.selector.algorithm == "mlp"
    assert str(router.encoder.dtype) == "torch.bfloat16"


def test_a_saved_router_is_exported_as_well(cli, models_dir, tiny_encoder_path, tmp_path, asked):
    router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path), device="cpu", algorithm="kmeans")
    router.save_pretrained(tmp_path / "saved")
    common = "export", "--models-dir", tmp_path / "saved", "--output", tmp_path / "s.pt2", "--device", "cpu"
    assert cli(*common).status == cli(*common, "--kind", "selector").status == 0
    (_, whole, _), (kind, selector, how) = asked
    assert whole.encoder.fingerprint == router.encoder.fingerprint
    assert (kind, selector.algorithm, how["encoder_name"]) == ("selector", "kmeans", router.encoder.name)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--output", "r.zip"], 2, "Error: --output: expected a name that ends in .pt2, got r.zip"),
        (["--output", "r"], 2, "Error: --output: expected a name that ends in .pt2, got r"),
        ([], 2, "Error: Missing option '--output'"),
        (["--output", "r.pt2", "--kind", "all"], 2, "Error: Invalid value for '--kind': 'all' is not one of"),
        (
            ["--output", "r.pt2", "--kind", "selector", "--embedding-model", "minilm"],
            2,
            "Error: --embedding-model is for --kind full: a selector takes features",
        ),
        (["--output", "file/r.pt2"], 1, "error: cannot write file: File exists"),
        (["--output", "folder.pt2"], 1, "error: cannot write folder.pt2: it is a folder"),
        (["--output", "r.pt2", "--json", "file/r.json"], 1, "error: cannot write file: File exists"),
        (["--output", "r.pt2", "--json", "folder.pt2"], 1, "error: cannot write folder.pt2: it is a folder"),
        (["--output", "r.pt2", "--models-dir", "absent"], 1, "error: pretrained model not found: absent"),
        (
            ["--output", "r.pt2", "--models-dir", "someone/router"],
            1,
            "error: pretrained model not found: someone/router",
        ),
        (["--output", "r.pt2", "--device", "tpu"], 1, "error: device: expected cpu, cuda, cuda:N or mps, got 'tpu'"),
    ],
)
def test_mistakes_are_one_line(cli, models_dir, tmp_path, monkeypatch, asked, arguments, status, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pt2").mkdir()
    result = cli("export", "--models-dir", models_dir, *arguments)
    assert result.status == status
    assert text in result.err
    assert result.err.count("\n") == (1 if status == 1 else 4 if "Usage" in result.err else 1)
    assert asked == []
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.pt2"]


def test_without_a_compiler_nothing_is_loaded(cli, tmp_path, monkeypatch):
    def none():
        raise ExportError("export: needs a C++ compiler, and there is no g++: ...")

    monkeypatch.setattr(export_package, "check_compiler", none)
    result = cli("export", "--models-dir", "absent", "--output", tmp_path / "r.pt2")
    assert (result.status, result.out) == (1, "")
    assert result.err == "error: export: needs a C++ compiler, and there is no g++: ...\n"


@pytest.mark.slow
def test_from_records_to_a_package(cli, models_dir, tiny_encoder_path, tmp_path):
    import shutil

    import torch

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs a C++ compiler")
    out = tmp_path / "r.pt2"
    how = "--embedding-model", tiny_encoder_path, "--device", "cpu"
    result = cli("export", "--models-dir", models_dir, "--algorithm", "kmeans", "--output", out, *how)
    assert result.status == 0, result.err
    assert "checked   74 of 74 decisions on made-up queries as in eager mode" in result.out
    package = torch._inductor.aoti_load_package(str(out))
    about = json.loads(package.get_metadata()["gpu_select"])
    router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path), device="cpu", algorithm="kmeans")
    assert about["models"] == list(router.models)
