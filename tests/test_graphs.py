"""The buckets, with a recording that only calls; the real one needs a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder import TokenBatch, Tokenized, pack
from gpu_select.graphs import GraphCache
from gpu_select.selectors import Choice

CPU = torch.device("cpu")


class Recorder:
    """Decides from tokens, positions and domain of each text alone, and notes the shapes that it was recorded for."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.out: dict[tuple[int, int], Choice] = {}

    def decide(self, batch: TokenBatch) -> Choice:
        T, B = len(batch.ids_T), len(batch.offsets_B1) - 1
        assert batch.lengths.max() <= T
        value_T = batch.ids_T.double() * (1 + batch.positions_T)
        ends = torch.nn.functional.pad(value_T.cumsum(0), (1, 0))[batch.offsets_B1.long()]
        value_B = ends.diff() + batch.tag_B
        new = Choice(value_B.long(), value_B.float(), -value_B.float())
        # as a graph does: always the same memory
        out = self.out.setdefault((T, B), Choice(*(torch.empty_like(column) for column in new)))
        for column, values in zip(out, new, strict=True):
            column.copy_(values)
        return out

    def capture(self, function):
        self.shapes.append(tuple(map(len, function())))
        return function


def batch_of(lengths: list[int], seed: int) -> TokenBatch:
    generator = np.random.default_rng(seed)
    lengths = sorted(lengths, reverse=True)
    ids = generator.integers(1, 1000, sum(lengths)).astype(np.int32)
    tokenized = Tokenized(ids, np.cumsum([0, *lengths]), np.zeros(len(lengths), bool))
    return pack(tokenized, np.arange(len(lengths)), CPU, generator.integers(0, 14, len(lengths)))


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=16), min_size=1, max_size=6))
def test_any_series_of_batches_is_decided_as_without_buckets(batches: list[list[int]]) -> None:
    recorder = Recorder()
    graphs = GraphCache(recorder.decide, max_tokens=1024, max_texts=16, capture=recorder.capture)
    results = []
    for seed, lengths in enumerate(batches):
        batch = batch_of(lengths, seed)
        assert graphs.fits(batch)
        results.append((graphs(batch), Recorder().decide(batch)))
    for got, expected in results:  # all at the end: a later replay must not change an earlier result
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_shapes_are_recorded_once_a_power_of_two() -> None:
    recorder = Recorder()
    graphs = GraphCache(recorder.decide, capture=recorder.capture)
    for lengths in ([5], [7, 9, 1], [6, 2, 2, 1], [33], [3]):
        graphs(batch_of(lengths, 0))
    assert sorted(recorder.out) == [(32, 1), (32, 4), (64, 1)]
    assert len(recorder.shapes) == 3


@pytest.mark.parametrize(("lengths", "fits"), [([64], True), ([65], False), ([1] * 4, True), ([1] * 5, False)])
def test_larger_batches_do_not_fit(lengths: list[int], fits: bool) -> None:
    graphs = GraphCache(Recorder().decide, max_tokens=64, max_texts=4)
    assert graphs.fits(batch_of(lengths, 0)) is fits
