"""Functions such as exp on the CPU, with bits that depend on a row alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["rowwise"]

_SERIAL = 32_767
"""Numbers of a tensor that torch never cuts among its threads."""

_VECTOR = 64
"""A multiple of the numbers in a vector, whatever the CPU and the dtype."""


def rowwise(function: Callable[[Tensor], Tensor], x_NI: Tensor) -> Tensor:
    """function(x_NI), such that a row's bits depend on that row alone.

    On the CPU, torch computes functions such as exp and erf in vectors, and rounds otherwise in what is left over
    behind the last vector: at the end of a tensor, and wherever one thread's part of a large tensor ends.

    Args:
        function: of each number, or of numbers of the same row.
        x_NI: (N, I).
    """
    if x_NI.device.type != "cpu":
        return function(x_NI)
    rows = max(1, _SERIAL // x_NI.shape[1]) if x_NI.shape[1] % _VECTOR == 0 else 1
    return torch.cat([function(part) for part in torch.split(x_NI, rows)])
