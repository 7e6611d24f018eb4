"""Which device to compute on, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from gpu_select.errors import ConfigError, DeviceError, brief

__all__ = ["DtypeName", "resolve_device", "resolve_dtype"]

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """A device that this machine has.

    Args:
        name: cpu, cuda, cuda:N, mps, or auto for the best there is.
    Raises:
        DeviceError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device: expected cpu, cuda, cuda:N or mps, got {brief(name)}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"device {device}: PyTorch sees {count} CUDA devices on this machine; use cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {device}: PyTorch sees no MPS device on this machine; use cpu")
    return device


def resolve_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """The dtype to compute in: auto is float32 on the CPU and bfloat16 elsewhere.

    Raises:
        ConfigError: another name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ConfigError("dtype", name, f"one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]
