"""Which implementation of an operation runs: the Triton kernel or the torch reference."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Impl", "resolve_impl"]

Impl = Literal["auto", "torch", "triton"]


def resolve_impl(impl: Impl, tensor: Tensor) -> Literal["torch", "triton"]:
    """The implementation for a tensor's device.

    Args:
        impl: `torch` and `triton` are taken as they are; `auto` is Triton for CUDA tensors where it is installed, and
            torch elsewhere and under torch.compile and torch.export, which fuse the reference themselves.
        tensor: any of the operation's inputs.
    Raises:
        ValueError: another name, or `triton` where no kernel can run.
    """
    if impl not in ("auto", "torch", "triton"):
        raise ValueError(f"impl: expected auto, torch or triton, got {impl!r}")
    if impl == "auto":
        # the compiler's own question comes first: it cannot trace the search for the package
        fused = not torch.compiler.is_compiling() and tensor.is_cuda and _has_triton()
        return "triton" if fused else "torch"
    if impl == "triton":
        if not _has_triton():
            raise ValueError("impl: triton is not installed; use torch")
        if not tensor.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(f"impl: expected a CUDA tensor for triton, got one on {tensor.device}; use torch")
    return impl


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
