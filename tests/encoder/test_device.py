from __future__ import annotations

import pytest
import torch

from gpu_select.encoder import resolve_device, resolve_dtype
from gpu_select.errors import ConfigError, DeviceError


def test_auto_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "meta", "cpu gpu"])
def test_name_that_is_no_device(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device: expected cpu, cuda, cuda:N or mps, got '{name}'"):
        resolve_device(name)


def test_device_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda: PyTorch sees 0 CUDA devices on this machine; use cpu"):
        resolve_device("cuda")
    with pytest.raises(DeviceError, match="device mps: PyTorch sees no MPS device on this machine; use cpu"):
        resolve_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="device cuda:2: PyTorch sees 2 CUDA devices"):
        resolve_device("cuda:2")


def test_dtypes() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("mps")) == torch.bfloat16
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ConfigError, match="dtype: expected one of auto, float32, bfloat16, float16, got 'int4'"):
        resolve_dtype("int4", torch.device("cpu"))  # type: ignore[arg-type]
