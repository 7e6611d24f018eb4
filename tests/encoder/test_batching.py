from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder import TokenBatch, Tokenized, batching, default_token_budget, run_batches, token_batches
from gpu_select.errors import ConfigError, DeviceError
from gpu_select.stages import StageTimes

CPU = torch.device("cpu")


def tokenized(lengths: list[int]) -> Tokenized:
    """Text i holds the ids 100 * i, 100 * i + 1, ..."""
    ids = np.concatenate([100 * i + np.arange(n) for i, n in enumerate(lengths)] or [np.empty(0)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokenized(ids.astype(np.int32), offsets.astype(np.int64), np.zeros(len(lengths), dtype=np.bool_))


def encoder(*, takes_packed: bool = True, deterministic: bool = False) -> Any:
    """All that batches need to know of an encoder."""
    return SimpleNamespace(device=CPU, takes_packed=takes_packed, deterministic=deterministic)


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    budget=st.integers(1, 200),
    max_rows=st.none() | st.integers(1, 9),
    padded=st.booleans(),
)
def test_batches_hold_every_text_once_and_keep_to_the_budget(
    lengths: list[int], budget: int, max_rows: int | None, padded: bool
) -> None:
    def size(texts: list[int]) -> int:
        return len(texts) * max(texts) if padded else sum(texts)

    batches = token_batches(np.array(lengths, dtype=np.int64), budget, max_rows, padded=padded)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    taken = 0
    for batch in batches:
        texts = [lengths[i] for i in batch]
        assert len(texts) == 1 or size(texts) <= budget
        assert max_rows is None or len(texts) <= max_rows
        taken += len(texts)
        if taken < len(order):  # the next text would not have fitted
            assert len(texts) == max_rows or size([*texts, order[taken]]) > budget


def test_equal_lengths_keep_their_order() -> None:
    lengths = np.array([3, 5, 3, 5, 3])
    assert [batch.tolist() for batch in token_batches(lengths, 9)] == [[1], [3, 0], [2, 4]]
    assert [batch.tolist() for batch in token_batches(lengths, 9, padded=True)] == [[1], [3], [0, 2, 4]]


def test_padding_counts_only_where_there_is_padding() -> None:
    lengths = np.array([10, 1, 1, 1, 1, 1])
    assert [len(batch) for batch in token_batches(lengths, 15)] == [6]
    assert [len(batch) for batch in token_batches(lengths, 15, padded=True)] == [1, 5]


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


def collect(
    lengths: list[int], fits: int, budget: int = 1000, max_rows: int | None = None, **kind: bool
) -> list[list[int]]:
    """Batches that ran on a device with room for `fits` tokens; checks what each was given."""
    done: list[list[int]] = []
    tags = np.arange(len(lengths)) + 1000

    def run(batch: TokenBatch, rows: np.ndarray) -> None:
        if len(batch.ids_T) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        texts = torch.split(batch.ids_T, batch.lengths.tolist())
        for row, ids in zip(rows.tolist(), texts, strict=True):
            assert ids.tolist() == [100 * row + i for i in range(lengths[row])]
        assert batch.tag_B.tolist() == (rows + 1000).tolist()
        done.append(rows.tolist())

    run_batches(encoder(**kind), tokenized(lengths), run, tags_N=tags, token_budget=budget, max_rows=max_rows)
    return done


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(20, 300), st.none() | st.integers(1, 30))
def test_out_of_memory_goes_on_with_smaller_batches(lengths: list[int], fits: int, max_rows: int | None) -> None:
    done = collect(lengths, fits, max_rows=max_rows)
    assert sorted(row for batch in done for row in batch) == list(range(len(lengths)))
    done = collect(lengths, fits, max_rows=max_rows, takes_packed=False)
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
        run_batches(encoder(), tokenized([7, 3]), run, token_budget=99)


def test_other_errors_pass_through() -> None:
    def run(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_batches(encoder(), tokenized([7, 3]), run, token_budget=99)


def test_no_texts() -> None:
    assert collect([], fits=1) == []


@pytest.mark.parametrize("max_rows", [None, 2, 65_536])
def test_a_batch_on_cuda_has_no_more_texts_than_a_launch_takes(
    max_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "pack", lambda tokenized, rows, device, tags: None)
    sizes: list[int] = []
    fake: Any = SimpleNamespace(device=torch.device("cuda", 0), takes_packed=True, deterministic=False)
    texts = Tokenized(np.zeros(65_540, np.int32), np.arange(65_541), np.zeros(65_540, np.bool_))
    run_batches(fake, texts, lambda batch, rows: sizes.append(len(rows)), token_budget=10**6, max_rows=max_rows)
    assert (max(sizes), sum(sizes)) == (min(max_rows or 65_535, 65_535), 65_540)


def test_a_budget_counts_padding_for_models_that_are_padded() -> None:
    lengths = [10, 1, 1, 1, 1, 1]
    assert list(map(len, collect(lengths, fits=99, budget=15))) == [6]
    assert list(map(len, collect(lengths, fits=99, budget=15, takes_packed=False))) == [1, 5]


def test_a_padded_model_gets_its_texts_one_by_one_if_it_is_to_be_deterministic() -> None:
    lengths = [3, 3, 5, 1]
    assert collect(lengths, fits=99, takes_packed=False, deterministic=True) == [[2], [0], [1], [3]]
    assert collect(lengths, fits=99, takes_packed=True, deterministic=True) == [[2, 0, 1, 3]]


def test_texts_come_without_numbers_if_there_are_none() -> None:
    seen: list[list[int]] = []
    run_batches(encoder(), tokenized([2, 1]), lambda batch, rows: seen.append(batch.tag_B.tolist()))
    assert seen == [[0, 0]]


def test_transfers_are_timed() -> None:
    times = StageTimes()
    run_batches(encoder(), tokenized([2, 1]), lambda batch, rows: None, times=times)
    seconds = times.seconds()
    assert seconds.pop("transfer") > 0
    assert not any(seconds.values())


def test_default_budget_is_larger_on_a_gpu() -> None:
    assert default_token_budget(CPU) < default_token_budget(torch.device("mps"))
    assert default_token_budget(torch.device("mps")) < default_token_budget(torch.device("cuda", 0))
