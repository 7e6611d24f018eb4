from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder import Tokenized, default_token_budget, run_batches, token_batches
from gpu_select.errors import ConfigError, DeviceError

CPU = torch.device("cpu")


def tokenized(lengths: list[int]) -> Tokenized:
    """Text i holds the ids 100 * i, 100 * i + 1, ..."""
    ids = np.concatenate([100 * i + np.arange(n) for i, n in enumerate(lengths)] or [np.empty(0)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokenized(ids.astype(np.int32), offsets.astype(np.int64), np.zeros(len(lengths), dtype=np.bool_), pad_id=-7)


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    budget=st.integers(1, 200),
    max_rows=st.none() | st.integers(1, 9),
)
def test_batches_hold_every_text_once_and_keep_to_the_budget(
    lengths: list[int], budget: int, max_rows: int | None
) -> None:
    batches = token_batches(np.array(lengths, dtype=np.int64), budget, max_rows)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert max_rows is None or len(batch) <= max_rows
    for batch in batches[:-1]:  # the next text would not have fitted
        assert len(batch) == max_rows or (len(batch) + 1) * max(lengths[i] for i in batch) > budget


def test_equal_lengths_keep_their_order() -> None:
    batches = token_batches(np.array([3, 5, 3, 5, 3]), 9)
    assert [batch.tolist() for batch in batches] == [[1], [3], [0, 2, 4]]


@pytest.mark.parametrize(
    ("budget", "max_rows", "message"),
    [
        (0, None, "token_budget: expected a whole number of at least 1, got 0"),
        (64, 0, "batch_size: expected a whole number of at least 1, got 0"),
    ],
)
def test_budget_under_one(budget: int, max_rows: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        token_batches(np.array([1, 2]), budget, max_rows)


def test_padded_fills_on_the_right() -> None:
    ids, mask = tokenized([3, 1, 2]).padded(np.array([2, 1]))
    assert ids.tolist() == [[200, 201], [100, -7]]
    assert mask.tolist() == [[True, True], [True, False]]


def collect(lengths: list[int], fits: int, budget: int = 1000, max_rows: int | None = None) -> list[list[int]]:
    """Batches that ran on a device with room for `fits` padded tokens; checks what each was given."""
    done: list[list[int]] = []

    def run(ids: torch.Tensor, mask: torch.Tensor, rows: np.ndarray) -> None:
        if ids.numel() > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        for row, row_ids, row_mask in zip(rows.tolist(), ids, mask, strict=True):
            assert row_ids[row_mask].tolist() == [100 * row + i for i in range(lengths[row])]
        done.append(rows.tolist())

    run_batches(tokenized(lengths), token_budget=budget, max_rows=max_rows, device=CPU, run=run)
    return done


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(20, 300), st.none() | st.integers(1, 30))
def test_out_of_memory_goes_on_with_smaller_batches(lengths: list[int], fits: int, max_rows: int | None) -> None:
    done = collect(lengths, fits, max_rows=max_rows)
    assert sorted(row for batch in done for row in batch) == list(range(len(lengths)))


def test_out_of_memory_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="gpu_select"):
        collect([10] * 40, fits=60)
    assert [record.getMessage() for record in caplog.records] == [
        "device cpu: out of memory; going on with batches of 200 tokens"
    ]


def test_out_of_memory_halves_what_a_row_limit_already_kept_small() -> None:
    assert max(map(len, collect([10] * 40, fits=60, max_rows=8))) == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_single_text_that_does_not_fit(error: RuntimeError) -> None:
    def run(*_: object) -> None:
        raise error

    with pytest.raises(DeviceError, match="device cpu: out of memory on a single text of 7 tokens; free memory"):
        run_batches(tokenized([7, 3]), token_budget=99, max_rows=None, device=CPU, run=run)


def test_other_errors_pass_through() -> None:
    def run(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_batches(tokenized([7, 3]), token_budget=99, max_rows=None, device=CPU, run=run)


def test_no_texts() -> None:
    assert collect([], fits=1) == []


def test_default_budget_is_larger_on_a_gpu() -> None:
    assert default_token_budget(CPU) < default_token_budget(torch.device("mps"))
    assert default_token_budget(torch.device("mps")) < default_token_budget(torch.device("cuda", 0))
