from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder import TokenBatch, Tokenized, pack, packing

CPU = torch.device("cpu")


@st.composite
def texts_and_order(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Ids of up to 12 texts, and some of their numbers in any order."""
    texts = draw(st.lists(st.lists(st.integers(0, 151_668), min_size=1, max_size=9), min_size=1, max_size=12))
    order = draw(st.permutations(range(len(texts))))
    return texts, order[: draw(st.integers(1, len(order)))]


@given(texts_and_order())
def test_a_batch_holds_its_texts_end_to_end(
    tokenized_of: Callable[[list[list[int]]], Tokenized], drawn: tuple[list[list[int]], list[int]]
) -> None:
    texts, order = drawn
    batch = pack(tokenized_of(texts), np.array(order), CPU)
    chosen = [texts[i] for i in order]
    assert batch.ids_T.tolist() == [token for text in chosen for token in text]
    assert batch.positions_T.tolist() == [place for text in chosen for place in range(len(text))]
    assert batch.offsets_B1.tolist() == np.cumsum([0, *map(len, chosen)]).tolist()
    assert batch.lengths.tolist() == [len(text) for text in chosen]
    assert {tensor.dtype for tensor in (batch.ids_T, batch.positions_T, batch.offsets_B1)} == {torch.int32}
    assert batch.device == CPU


@given(texts_and_order())
def test_runs_cover_every_token_once_in_rectangles_as_large_as_can_be(
    tokenized_of: Callable[[list[list[int]]], Tokenized], drawn: tuple[list[list[int]], list[int]]
) -> None:
    texts, order = drawn
    batch = pack(tokenized_of(texts), np.array(order), CPU)
    runs = batch.runs
    assert [n for _, count, n in runs for _ in range(count)] == [len(texts[i]) for i in order]
    firsts = [first for first, _, _ in runs]
    assert firsts == np.cumsum([0, *(count * n for _, count, n in runs)])[:-1].tolist()
    assert all(count > 0 for _, count, _ in runs)
    assert all(one[2] != other[2] for one, other in itertools.pairwise(runs))
    assert all(type(number) is int for run in runs for number in run)  # NumPy's own would slow the slicing down


def test_tags_travel_with_their_texts(tokenized_of: Callable[[list[list[int]]], Tokenized]) -> None:
    tokenized = tokenized_of([[1], [2, 3], [4]])
    batch = pack(tokenized, np.array([2, 0]), CPU, np.array([10, 11, 12]))
    assert (batch.tag_B.tolist(), batch.tag_B.dtype) == ([12, 10], torch.int32)
    assert pack(tokenized, np.array([1, 2]), CPU).tag_B.tolist() == [0, 0]


def test_all_of_a_batch_crosses_to_the_device_at_once(
    tokenized_of: Callable[[list[list[int]]], Tokenized], monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed: list[Any] = []
    there = packing._to_device
    monkeypatch.setattr(packing, "_to_device", lambda *a: crossed.append(a) or there(*a))  # type: ignore[func-returns-value]
    batch: TokenBatch = pack(tokenized_of([[1, 2], [3]]), np.array([0, 1]), CPU, np.array([7, 8]))
    assert [(array.dtype, device) for array, device in crossed] == [(np.int32, CPU)]
    storages = {t.untyped_storage().data_ptr() for t in (batch.ids_T, batch.positions_T, batch.offsets_B1, batch.tag_B)}
    assert len(storages) == 1
