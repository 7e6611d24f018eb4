"""Results of batches that the device may still be working on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Arriving"]


class Arriving:
    """Columns of results, joined over batches and brought back into the order of the texts.

    On CUDA, making one enqueues the copies to the host and does not wait for them.

    Args:
        parts: for each batch, the (B,) numbers of its texts and its columns, (B, ...) each; together every text of
            0..N-1 once.
    """

    def __init__(self, parts: Sequence[tuple[NDArray[np.int64], Sequence[Tensor]]]) -> None:
        self._back = np.argsort(np.concatenate([rows for rows, _ in parts])) if parts else np.empty(0, int)
        # results stay on the device until all batches are enqueued: one copy, not one a batch
        columns = [torch.cat(column) for column in zip(*(columns for _, columns in parts), strict=True)]
        self._copied: Any = None
        if columns and columns[0].is_cuda:
            # of this device, which need not be the current one
            stream = torch.cuda.current_stream(columns[0].device)
            columns = [_to_pinned(column) for column in columns]
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(stream)
        self._columns = columns

    def wait(self) -> tuple[Tensor, ...]:
        """The columns on the host, (N, ...) each; none of them without texts. Any thread may ask, more than once."""
        if self._copied is not None:
            self._copied.synchronize()
        return tuple(column.cpu()[self._back] for column in self._columns)


def _to_pinned(column: Tensor) -> Tensor:
    return torch.empty_like(column, device="cpu", pin_memory=True).copy_(column, non_blocking=True)
