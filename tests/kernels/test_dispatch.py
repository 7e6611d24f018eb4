"""Which implementation runs, by device and name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from gpu_select_kernels import dispatch
from gpu_select_kernels.dispatch import resolve_impl


def test_on_the_cpu_the_reference_runs():
    assert resolve_impl("auto", torch.zeros(1)) == "torch"


class OnCuda:
    """What resolve_impl asks of a tensor."""

    is_cuda = True
    device = torch.device("cuda")


@pytest.mark.parametrize(("has_triton", "compiling", "expected"), [(1, 0, "triton"), (0, 0, "torch"), (1, 1, "torch")])
def test_on_cuda_the_kernel_runs_where_it_can(monkeypatch, has_triton, compiling, expected):
    monkeypatch.setattr(dispatch, "_has_triton", lambda: bool(has_triton))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: bool(compiling))
    assert resolve_impl("auto", OnCuda()) == expected


def test_a_name_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr(dispatch, "_has_triton", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve_impl("torch", OnCuda()) == "torch"
    assert resolve_impl("triton", OnCuda()) == "triton"
    assert resolve_impl("triton", torch.zeros(1)) == "triton"


def test_what_cannot_run_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="impl: expected auto, torch or triton, got 'cuda'"):
        resolve_impl("cuda", torch.zeros(1))
    monkeypatch.setattr(dispatch, "_has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="impl: expected a CUDA tensor for triton, got one on cpu; use torch"):
        resolve_impl("triton", torch.zeros(1))
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    with pytest.raises(ValueError, match="impl: triton is not installed; use torch"):
        resolve_impl("triton", torch.zeros(1))


def test_the_reference_does_without_triton():
    code = """
import sys
import torch
sys.modules["triton"] = None  # an import of it fails
from gpu_select_kernels import centroid, pool, rbf, rms_norm, rope, swiglu
x = torch.ones(4, 8)
pool.pool_features(x, torch.tensor([0, 4]), pooling="mean")
rms_norm.rms_norm(x, x[0], 1e-6)
rope.qk_norm_rope(x, x[0, :2], x[0, :2], x[:, :2], x[:, :2], 2, 1, 2, 1e-6)
swiglu.swiglu(x)
rbf.rbf_decision(x, x, x[:, 0], x, 1.0)
centroid.nearest_centroid(x, x, x[:, 0], torch.zeros(4, dtype=torch.int64), 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd="kernels")
