"""What a program that is being exported may do."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["may_count"]

_COUNTS = (2, 13)
"""Torch's first version whose AOTInductor takes products and attention over numbers of rows that it has to find out."""


def may_count(tensor: Tensor) -> bool:
    """Whether sizes may depend on numbers here: in an export of this tensor's operations, on a CPU.

    Elsewhere a device would have to be waited for, and torch.compile breaks its graph.
    """
    if not torch.compiler.is_exporting() or tensor.device.type != "cpu":
        return False
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= _COUNTS
