"""Packages in a process that has torch and not this project; and what can go wrong before there is one."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import zipfile

import pytest
import torch

from gpu_select.encoder import load_encoder
from gpu_select.errors import ConfigError, ExportError, OutputError
from gpu_select.export import check_compiler, export_router, export_selector, package
from gpu_select.export.programs import RouterProgram, SelectorProgram
from gpu_select.router import Router

ALGORITHMS = ["knn", "kmeans", "svm", "mlp"]
BATCHES = (1, 2, 7, 64)


def cases_of(program, shapes):
    cases = []
    for seed, (n, length) in enumerate(shapes):
        inputs = program.example(n, seed=100 + seed)
        if length is not None:
            inputs = inputs[0][:, :length].contiguous(), inputs[1][:, :length].contiguous(), *inputs[2:]
        with torch.inference_mode():
            cases.append((inputs, program(*inputs)))
    return cases


def decides_alike(found, shapes):
    assert [n for n, _, _ in found["results"]] == [n for n, _ in shapes]
    assert all(same for _, same, _ in found["results"]), found["results"]
    assert max(gap for _, _, gap in found["results"]) < 1e-3
    assert not {"gpu_select", "gpu_select_kernels", "transformers"} & set(found["loaded"])


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", [*ALGORITHMS, "grouped knn"])
def test_a_selector_alone(routers, grouped_knn, tmp_path, compare_alone, name):
    selector = grouped_knn if name == "grouped knn" else routers[name].selector
    done = export_selector(selector, tmp_path / "s.pt2", takes_candidates=True, encoder_name="tiny")
    assert os.listdir(tmp_path) == ["s.pt2"]
    assert (done.n_checked, done.n_different) == (74, 0)
    assert done.n_bytes == (tmp_path / "s.pt2").stat().st_size
    assert done.compile_s > done.load_s > 0
    shapes = [(n, None) for n in BATCHES]
    found = compare_alone(tmp_path / "s.pt2", cases_of(SelectorProgram(selector, takes_candidates=True), shapes))
    decides_alike(found, shapes)
    about = json.loads(found["metadata"]["gpu_select"])
    assert about == json.loads(json.dumps(done.metadata))
    assert about["models"] == list(selector.models)
    assert (about["kind"], about["algorithm"], about["device"]) == ("selector", selector.algorithm, "cpu")
    assert about["encoder"] == {"name": "tiny"}
    assert [one["name"] for one in about["inputs"]] == ["features", "candidates"]


@pytest.fixture(scope="module")
def qwen3_router(tmp_path_factory, write_tiny_models, qwen3_path):
    encoder = load_encoder(str(qwen3_path))
    folder = write_tiny_models(tmp_path_factory.mktemp("models"), {}, dim=encoder.dim)
    return Router.from_pretrained(folder, encoder=encoder, algorithm="mlp")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_a_whole_router(routers, qwen3_router, tmp_path, compare_alone, architecture):
    router = routers["svm"] if architecture == "bert" else qwen3_router
    done = export_router(router, tmp_path / "r.pt2")
    assert done.n_different == 0
    shapes = [(1, 1), (1, 9), (2, 32), (2, 3), (7, 17), (64, 32), (64, 6)]
    found = compare_alone(tmp_path / "r.pt2", cases_of(RouterProgram(router, takes_candidates=False), shapes))
    decides_alike(found, shapes)
    about = json.loads(found["metadata"]["gpu_select"])
    assert [one["name"] for one in about["inputs"]] == ["input_ids", "attention_mask", "domain"]
    assert about["encoder"]["fingerprint"] == router.encoder.fingerprint
    assert about["encoder"]["max_length"] == router.encoder.settings.max_length
    with zipfile.ZipFile(tmp_path / "r.pt2") as archive:
        assert archive.testzip() is None
        assert archive.read(f"r/{about['encoder']['tokenizer']}").decode() == router.encoder.tokenizer.to_json()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(not hasattr(torch._inductor.config.cpp, "march"), reason="this torch compiles for its own CPU only")
def test_a_portable_package_asks_for_no_newer_cpu(routers, tmp_path, compare_alone):
    selector = routers["kmeans"].selector
    export_selector(selector, tmp_path / "s.pt2", portable=True)
    shapes = [(n, None) for n in BATCHES]
    found = compare_alone(tmp_path / "s.pt2", cases_of(SelectorProgram(selector, takes_candidates=False), shapes))
    decides_alike(found, shapes)
    assert "AVX512" not in found["metadata"]["AOTI_CPU_ISA"]


# ---------------------------------------------------------------- what can go wrong


@pytest.fixture
def compiled_by(monkeypatch):
    """Call with what stands for torch's compiler, and with what it makes: no compiler is needed then."""

    def stand_in(compile_and_package, loaded=None):
        monkeypatch.setattr(package, "check_compiler", lambda: None)
        monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_and_package)
        monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: loaded)

    return stand_in


def touch(program, *, package_path, inductor_configs):
    with zipfile.ZipFile(package_path, "w") as archive:
        archive.writestr("s/archive_format", "pt2")


def test_no_compiler(monkeypatch, routers, tmp_path):
    for name in ("g++", "another-c++"):
        monkeypatch.setenv("CXX", name)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ExportError) as caught:
            check_compiler()
        assert str(caught.value) == (
            f"export: needs a C++ compiler, and there is no {name}: install one (apt-get install g++), or name "
            "another in the environment variable CXX; to run a package takes none"
        )
    with pytest.raises(ExportError, match="needs a C\\+\\+ compiler"):
        export_selector(routers["knn"].selector, tmp_path / "s.pt2")
    (tmp_path / "another-c++").write_text("")
    (tmp_path / "another-c++").chmod(0o755)
    check_compiler()


def test_what_cannot_be_exported(routers, tmp_path, monkeypatch):
    selector = routers["kmeans"].selector
    with pytest.raises(ConfigError, match=r"output: expected a name that ends in \.pt2, got '.*router\.zip'"):
        export_selector(selector, tmp_path / "router.zip")
    deterministic = copy.deepcopy(routers["kmeans"])
    deterministic.make_deterministic()
    for export, one in ((export_router, deterministic), (export_selector, deterministic.selector)):
        with pytest.raises(
            ConfigError, match="export: expected one that is not: a compiler orders sums as it likes, got"
        ):
            export(one, tmp_path / "r.pt2")
    monkeypatch.setattr(routers["knn"].selector.index, "backend", "faiss")
    with pytest.raises(ConfigError, match="export: expected the backend torch: FAISS cannot be compiled"):
        export_selector(routers["knn"].selector, tmp_path / "s.pt2")
    monkeypatch.setattr(package, "_has_march", lambda: False)
    with pytest.raises(ConfigError, match="portable: expected a CPU, and a torch that can compile for others"):
        export_selector(selector, tmp_path / "s.pt2", portable=True)
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_compiler_is_one_line(routers, tmp_path, compiled_by):
    def failing(*arguments, **options):
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ ...\nmany lines")

    compiled_by(failing)
    (tmp_path / "s.pt2").write_bytes(b"an earlier one")
    with pytest.raises(ExportError) as caught:
        export_selector(routers["kmeans"].selector, tmp_path / "s.pt2")
    assert str(caught.value) == (
        f"export: torch {torch.__version__} cannot compile this router (RuntimeError: C++ compile error)"
    )
    assert (tmp_path / "s.pt2").read_bytes() == b"an earlier one"
    assert os.listdir(tmp_path) == ["s.pt2"]


@pytest.mark.parametrize(("n_wrong", "field"), [(1, "model"), (2, "model"), (2, "score"), (64, "score")])
def test_a_package_that_decides_otherwise_is_not_written(routers, tmp_path, compiled_by, n_wrong, field):
    selector = routers["kmeans"].selector
    program = SelectorProgram(selector, takes_candidates=False)

    def wrong(features):
        out = dict(program(features))
        if len(features) == 64:
            out[field] = out[field].clone()
            out[field][:n_wrong] += 1
        return out

    compiled_by(touch, wrong)
    if n_wrong == 1:  # a near tie
        done = export_selector(selector, tmp_path / "s.pt2")
        assert (done.n_checked, done.n_different) == (74, 1)
        return
    with pytest.raises(ExportError, match=rf"decides otherwise than eager mode on {n_wrong} of 74 made-up queries"):
        export_selector(selector, tmp_path / "s.pt2")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_to(routers, tmp_path, compiled_by):
    program = SelectorProgram(routers["mlp"].selector, takes_candidates=False)
    compiled_by(touch, program)
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("folder.pt2", "file/s.pt2"):
        with pytest.raises(OutputError, match=f"cannot write .*{name}"):
            export_selector(routers["mlp"].selector, tmp_path / name)
    done = export_selector(routers["mlp"].selector, tmp_path / "new" / "s.pt2")
    assert dataclasses.asdict(done)["path"] == str(tmp_path / "new" / "s.pt2")
