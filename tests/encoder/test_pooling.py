from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder.pooling import left_align, pool


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=6))
def test_left_align_moves_tokens_to_the_front_and_keeps_their_order(rows: list[tuple[int, int, int]]) -> None:
    width = max(sum(row) for row in rows)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (before, tokens, _) in enumerate(rows):
        mask[i, before : before + tokens] = True
    ids = torch.arange(mask.numel()).reshape(mask.shape)
    aligned, aligned_mask = left_align(ids, mask)
    for i, (before, tokens, _) in enumerate(rows):
        assert aligned_mask[i].tolist() == [True] * tokens + [False] * (width - tokens)
        assert aligned[i, :tokens].tolist() == ids[i, before : before + tokens].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_pool_agrees_with_numpy_in_float64(pooling: str, dtype: torch.dtype) -> None:
    hidden = torch.randn(5, 7, 13, generator=torch.Generator().manual_seed(0)).to(dtype)
    lengths = [7, 1, 3, 6, 2]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    ends = torch.tensor(lengths) - 1
    picked = {"last": hidden[torch.arange(5), ends], "mean": hidden.flatten(0, 1), "cls": hidden[:, 0]}[pooling]
    vectors = pool(picked, mask, pooling)  # type: ignore[arg-type]
    assert vectors.dtype == torch.float32
    for row, n in enumerate(lengths):
        tokens = hidden[row, :n].double().numpy()
        expected = {"last": tokens[-1], "mean": tokens.mean(axis=0), "cls": tokens[0]}[pooling]
        np.testing.assert_allclose(vectors[row].numpy(), expected / np.linalg.norm(expected), atol=1e-6)
