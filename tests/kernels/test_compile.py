"""What the compilers make of the kernels: Triton for GPUs that are not here, torch.compile and torch.export."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_select_kernels.centroid import nearest_centroid
from gpu_select_kernels.pool import pool_features
from gpu_select_kernels.rbf import rbf_decision
from gpu_select_kernels.rms_norm import rms_norm
from gpu_select_kernels.rope import qk_norm_rope
from gpu_select_kernels.swiglu import swiglu

KERNELS = Path(__file__).parents[2] / "kernels"
MODULES = sorted(f"gpu_select_kernels.{path.stem}" for path in (KERNELS / "gpu_select_kernels").glob("*_triton.py"))
SHARED_BYTES = {90: 227 * 1024, 80: 163 * 1024}
"""What one program can have."""


def compile_all(capability: int, folder: Path) -> list[dict[str, object]]:
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        pytest.skip("needs triton")
    if not (Path(found.origin).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("needs a triton that brings ptxas")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(KERNELS), "TRITON_CACHE_DIR": str(folder / "cache")}
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), str(capability), *MODULES]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 80])
def test_every_kernel_compiles(tmp_path, capability):
    results = compile_all(capability, tmp_path)
    assert [result for result in results if result["error"]] == []
    assert {result["module"] for result in results} == set(MODULES)
    assert all(result["shared"] <= SHARED_BYTES[capability] for result in results)
    if capability == 90:
        # float32 products belong on the tensor cores, save where IEEE is asked for
        products = [result for result in results if result["kernel"] in ("_rbf_kernel", "_centroid_kernel")]
        (ieee,) = (result for result in products if not result["matrix"])
        # numbers that went from registers to memory; the slow way may, as some compilers have it
        assert [result for result in results if result["stack"] and result is not ieee] == []


def packed():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 16, generator=generator), torch.tensor([0, 2, 3, 9]), torch.tensor([1, 13, 0])


def arguments_of(name):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 9, 16, generator=generator)
    owner_K = torch.arange(9) % 3
    return {
        "pool last": (lambda h, o, d: pool_features(h, o, d, n_domains=14, pooling="last"), *packed()),
        "pool mean": (lambda h, o, d: pool_features(h, o, d, n_domains=14, pooling="mean"), *packed()),
        "rms_norm": (lambda x, w, r: rms_norm(x, w, 1e-6, r), x, y[0], y),
        "rms_norm in place": (lambda x, w, r: rms_norm(x.clone(), w, 1e-6, r.clone(), inplace=True), x, y[0], y),
        "rope": (lambda x, w, c, s: qk_norm_rope(x, w, w, c, s, 2, 1, 4, 1e-6), x, y[0, :4], x[:, :4], y[:, :4]),
        "swiglu": (swiglu, x),
        "rbf": (lambda x, v, n, c: rbf_decision(x, v, n, c, 0.5), x, y, y.square().sum(1), x[:, :3]),
        "centroid": (lambda x, c, n, o: nearest_centroid(x, c, n, o, 3), x, y, y.square().sum(1), owner_K),
    }[name]


NAMES = ["pool last", "pool mean", "rms_norm", "rms_norm in place", "rope", "swiglu", "rbf", "centroid"]


@pytest.mark.parametrize("name", NAMES)
def test_torch_compile_takes_the_reference_whole(name):
    function, *tensors = arguments_of(name)
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), function(*tensors))


class Operation(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


@pytest.mark.parametrize("name", ["pool last", "pool mean"])
def test_torch_export_takes_any_number_of_sequences(name):
    function, *tensors = arguments_of(name)
    tokens, sequences = torch.export.Dim("tokens", min=2), torch.export.Dim("sequences", min=2)
    dynamic = ({0: tokens}, {0: sequences + 1}, {0: sequences})
    program = torch.export.export(Operation(function), tuple(tensors), dynamic_shapes=(dynamic,))
    hidden_TD, offsets_B1, domain_B = tensors
    more = (
        torch.cat([hidden_TD, hidden_TD]),
        torch.cat([offsets_B1, offsets_B1[1:] + 9]),
        torch.cat([domain_B, domain_B]),
    )
    torch.testing.assert_close(program.module()(*more), function(*more))


@pytest.mark.parametrize("name", ["rms_norm", "rope", "swiglu", "rbf", "centroid"])
def test_torch_export_takes_any_number_of_rows(name):
    function, *tensors = arguments_of(name)
    rows = torch.export.Dim("rows", min=2)
    dynamic = {
        "pool last": (lambda h, o, d: pool_features(h, o, d, n_domains=14, pooling="last"), *packed()),
        "pool mean": (lambda h, o, d: pool_features(h, o, d, n_domains=14, pooling="mean"), *packed()),
        "rms_norm": ({0: rows}, None, {0: rows}),
        "rope": ({0: rows}, None, {0: rows}, {0: rows}),
        "swiglu": ({0: rows},),
        "rbf": ({0: rows}, None, None, None),
        "centroid": ({0: rows}, None, None, None),
    }[name]
    program = torch.export.export(Operation(function), tuple(tensors), dynamic_shapes=(dynamic,))
    more = [torch.cat([t, t]) if shape is not None else t for t, shape in zip(tensors, dynamic, strict=True)]
    torch.testing.assert_close(program.module()(*more), function(*more))
