from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.encoder import TokenBatch
from gpu_select.encoder.transformers_backbone import padded


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=7), min_size=1, max_size=6))
def test_a_packed_batch_is_padded_behind_each_text(
    packed: Callable[[list[list[int]]], TokenBatch], rows: list[list[int]]
) -> None:
    ids, mask = padded(packed(rows), pad_id=-7)
    width = max(map(len, rows))
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert ids.tolist() == [row + [-7] * (width - len(row)) for row in rows]
    assert mask.tolist() == [[True] * len(row) + [False] * (width - len(row)) for row in rows]
