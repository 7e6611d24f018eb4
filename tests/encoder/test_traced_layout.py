"""Tokens without padding, as in an exported program, against the rectangle that they come from."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.encoder.layouts import PaddedLayout
from gpu_select.encoder.traced_layout import TracedLayout

H, d = 2, 4

lengths = st.integers(1, 40).flatmap(lambda most: st.lists(st.integers(1, most), min_size=1, max_size=9))


def mask_of(lengths: list[int], width: int | None = None) -> torch.Tensor:
    return torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@settings(max_examples=60)
@given(lengths=lengths, extra=st.integers(0, 5), causal=st.booleans(), groups=st.sampled_from([1, 2]))
def test_tokens_attend_as_they_do_in_a_rectangle(lengths: list[int], extra: int, causal: bool, groups: int) -> None:
    mask = mask_of(lengths, max(lengths) + extra)
    traced, padded, N = TracedLayout(mask), PaddedLayout(mask), sum(lengths)
    generator = torch.Generator().manual_seed(N)
    q, k, v = (torch.randn(mask.numel(), heads, d, generator=generator) for heads in (H, H // groups, H // groups))
    tokens = mask.flatten()
    expected = padded.attend(q, k, v, causal=causal)[tokens]
    close(traced.attend(q[tokens], k[tokens], v[tokens], causal=causal), expected)
    once = torch.randn(len(lengths), H, d, generator=generator)
    close(traced.attend_once(once, k[tokens], v[tokens]), padded.attend_once(once, k, v))


@settings(max_examples=40)
@given(lengths=lengths, extra=st.integers(0, 5))
def test_tokens_are_taken_picked_and_put_back(lengths: list[int], extra: int) -> None:
    mask = mask_of(lengths, max(lengths) + extra)
    traced, padded = TracedLayout(mask), PaddedLayout(mask)
    numbers = torch.arange(mask.numel()).reshape(mask.shape)
    taken = traced.take(numbers)
    assert taken.equal(numbers[mask])
    for pooling in ("last", "cls"):
        rows = taken[:, None]
        assert traced.pick(rows, pooling).equal(padded.pick(numbers.flatten()[:, None], pooling))
    back = traced.spread(taken[:, None]).reshape(mask.shape)
    assert back[mask].equal(numbers[mask])


def test_a_row_without_tokens_spoils_no_other() -> None:
    mask = torch.tensor([[False] * 4, [True] * 3 + [False], [False] * 4])
    traced = TracedLayout(mask)
    q = torch.randn(3, H, d)
    close(traced.attend(q, q, q, causal=False), TracedLayout(mask[1:2, :3]).attend(q, q, q, causal=False))
    assert traced.pick(q.flatten(1), "last")[1].equal(q[2].flatten())
