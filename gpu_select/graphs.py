"""Small batches on CUDA without the cost of their many kernel launches: a CUDA graph for each bucket of shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpu_select.encoder import TokenBatch
from gpu_select.selectors import Choice

__all__ = ["GraphCache"]

_LEAST_TOKENS = 32

Decide = Callable[[TokenBatch], Choice]
Capture = Callable[[Callable[[], Choice]], Callable[[], Choice]]


@dataclass(frozen=True, eq=False)
class _Bucket:
    """The inputs that a graph reads, the replay, and the outputs that it writes."""

    batch: TokenBatch
    replay: Callable[[], Choice]


class GraphCache:
    """Decisions on batches of few texts, by replaying what was recorded for a batch of the next larger shape.

    A batch is copied into the bucket's own tensors. Its last tokens are left over from before and belong to no text,
    and the texts beyond its own have no tokens; neither can touch another text's decision. Buckets are recorded when
    they are first met.

    Args:
        decide: what is recorded; reads nothing of a batch's host side but its longest length, and waits for nothing.
        max_tokens, max_texts: batches up to these sizes fit.
        capture: records a function without arguments and gives back its replay; by default as a CUDA graph.

    Source:
        Buckets of powers of two, as serving stacks use for decoding (vLLM, TensorRT-LLM).
    """

    def __init__(
        self, decide: Decide, *, max_tokens: int = 2048, max_texts: int = 64, capture: Capture | None = None
    ) -> None:
        self._decide = decide
        # the graphs run one after the other, so one pool of memory serves all
        self._capture = capture or functools.partial(_captured, pool=functools.cache(torch.cuda.graph_pool_handle))
        self._most = max_tokens, max_texts
        self._buckets: dict[tuple[int, int], _Bucket] = {}

    def fits(self, batch: TokenBatch) -> bool:
        """Whether a batch is small enough."""
        return len(batch.ids_T) <= self._most[0] and len(batch.lengths) <= self._most[1]

    def __call__(self, batch: TokenBatch) -> Choice:
        """Decide on a batch that fits: (B,) results as from `decide`."""
        T, B = len(batch.ids_T), len(batch.lengths)
        key = _power_of_two(max(T, _LEAST_TOKENS)), _power_of_two(B)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = self._record(*key, batch.device)
        bucket.batch.ids_T[:T].copy_(batch.ids_T)
        bucket.batch.positions_T[:T].copy_(batch.positions_T)
        bucket.batch.offsets_B1[: B + 1].copy_(batch.offsets_B1)
        bucket.batch.offsets_B1[B + 1 :].fill_(T)
        bucket.batch.tag_B[:B].copy_(batch.tag_B)
        # the next replay writes over the results
        return Choice(*(column[:B].clone() for column in bucket.replay()))

    def _record(self, T: int, B: int, device: torch.device) -> _Bucket:
        ids_T = torch.zeros(T, dtype=torch.int32, device=device)
        positions_T = torch.zeros_like(ids_T)
        # texts of one token each: valid input for the recording
        offsets_B1 = torch.arange(B + 1, dtype=torch.int32, device=device)
        tag_B = torch.zeros(B, dtype=torch.int32, device=device)
        batch = TokenBatch(ids_T, positions_T, offsets_B1, np.array([T]), tag_B)
        there: Any = torch.cuda.device_of
        with there(ids_T):  # which need not be the current device
            return _Bucket(batch, self._capture(lambda: self._decide(batch)))


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _captured(function: Callable[[], Choice], pool: Callable[[], Any]) -> Callable[[], Choice]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # kernels are compiled and libraries set up before the recording, which allows neither
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # other threads may go on using the device; torch's own stream for recordings is on the first device that had one
    with torch.cuda.graph(graph, pool=pool(), stream=side, capture_error_mode="thread_local"):
        outputs = function()

    def replay() -> Choice:
        graph.replay()
        return outputs

    return replay
