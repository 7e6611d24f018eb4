"""Every layout against attention written out in float64, one sequence at a time."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpu_select.encoder import TokenBatch, layouts
from gpu_select.encoder.layouts import PaddedLayout, RunsLayout, VarlenLayout, packed_layout

Packed = Callable[[list[list[int]]], TokenBatch]
LENGTHS = [7, 7, 5, 1, 1, 1, 3, 5]


def random_heads(n_tokens: int, heads: tuple[int, int], head_dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of H heads, keys and values of G."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(n_tokens, n, head_dim, generator=generator) for n in (heads[0], heads[1], heads[1]))
    return q, k, v


def naive(q_QHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention of one sequence, in float64; the last query stands at the last key."""
    q, k, v = (x.double() for x in (q_QHd, k_NGd, v_NGd))
    groups = q.shape[1] // k.shape[1]
    out = torch.empty_like(q)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // groups].T / math.sqrt(q.shape[2])
        if causal:
            behind = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1 + k.shape[0] - q.shape[0])
            scores = scores.masked_fill(behind, -torch.inf)
        out[:, head] = scores.softmax(dim=1) @ v[:, head // groups]
    return out


def expected(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], *, causal: bool) -> Tensor:
    """(N, H, d) of sequences that stand end to end."""
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    return torch.cat([naive(*part, causal=causal) for part in parts])


def expected_once(q_BHd: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """(B, H, d): each sequence's one query."""
    parts = zip(q_BHd.split(1), k.split(lengths), v.split(lengths), strict=True)
    return torch.cat([naive(*part, causal=False) for part in parts])


def close(got: Tensor, wanted: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got.double(), wanted, atol=atol, rtol=0)


def batch_of(packed: Packed, lengths: list[int]) -> TokenBatch:
    return packed([[9] * n for n in lengths])


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.sampled_from([(3, 3), (4, 2), (6, 1)]),
    st.sampled_from([5, 8]),
    st.booleans(),
    st.booleans(),
)
def test_runs(
    packed: Packed, lengths: list[int], heads: tuple[int, int], head_dim: int, causal: bool, deterministic: bool
) -> None:
    layout = RunsLayout(batch_of(packed, lengths), deterministic=deterministic)
    q, k, v = random_heads(sum(lengths), heads, head_dim)
    before = [x.clone() for x in (q, k, v)]
    close(layout.attend(q, k, v, causal=causal), expected(q, k, v, lengths, causal=causal))
    close(layout.attend_once(q[: len(lengths)], k, v), expected_once(q[: len(lengths)], k, v, lengths))
    assert all(x.equal(y) for x, y in zip((q, k, v), before, strict=True))


@pytest.mark.parametrize("deterministic", [False, True])
def test_runs_take_views_of_one_projection(packed: Packed, deterministic: bool) -> None:
    """BERT hands over three views of one tensor, none of them contiguous."""
    projected = torch.randn(sum(LENGTHS), 3, 4, 6, generator=torch.Generator().manual_seed(0))
    q, k, v = projected.unbind(1)
    out = RunsLayout(batch_of(packed, LENGTHS), deterministic=deterministic).attend(q, k, v, causal=False)
    close(out, expected(q, k, v, LENGTHS, causal=False))
    assert out.is_contiguous()


def test_runs_of_a_deterministic_encoder_are_single_sequences(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    real = layouts.scaled_dot_product_attention

    def seen(q: Tensor, *rest: Any, **options: Any) -> Tensor:
        shapes.append(tuple(q.shape))
        assert q.data_ptr() % 64 == 0
        return real(q, *rest, **options)

    monkeypatch.setattr(layouts, "scaled_dot_product_attention", seen)
    heads = random_heads(sum(LENGTHS), (3, 3), 5)
    RunsLayout(batch_of(packed, LENGTHS), deterministic=True).attend(*heads, causal=False)
    assert shapes == [(1, 3, n, 5) for n in LENGTHS]
    shapes.clear()
    monkeypatch.setattr(
        layouts, "scaled_dot_product_attention", lambda q, *a, **o: shapes.append(q.shape) or real(q, *a, **o)
    )
    RunsLayout(batch_of(packed, LENGTHS)).attend(*heads, causal=False)
    assert shapes == [(2, 3, 7, 5), (1, 3, 5, 5), (3, 3, 1, 5), (1, 3, 3, 5), (1, 3, 5, 5)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(3, 3), (4, 2), (6, 1)])
def test_padded(heads: tuple[int, int], causal: bool) -> None:
    B, T = len(LENGTHS), max(LENGTHS)
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    layout = PaddedLayout(mask)
    q, k, v = random_heads(B * T, heads, 5)
    k.view(B, T, -1)[~mask] = 1e4  # what stands in the padding
    v.view(B, T, -1)[~mask] = 1e4
    kept = mask.flatten()
    inside = q[kept], k[kept], v[kept]
    close(layout.attend(q, k, v, causal=causal)[kept], expected(*inside, LENGTHS, causal=causal))
    close(layout.attend_once(q[:B], k, v), expected_once(q[:B], k[kept], v[kept], LENGTHS))


def test_pick_takes_the_first_or_the_last_token(packed: Packed) -> None:
    x_ND = torch.arange(float(sum(LENGTHS)))[:, None].repeat(1, 2)
    ends = torch.tensor(LENGTHS).cumsum(0)
    wanted = {"last": (ends - 1).tolist(), "cls": (ends - torch.tensor(LENGTHS)).tolist()}
    batch = batch_of(packed, LENGTHS)
    for layout in (RunsLayout(batch), VarlenLayout(batch, deterministic=False)):
        for pooling in ("last", "cls"):
            assert layout.pick(x_ND, pooling)[:, 0].tolist() == wanted[pooling]
            assert layout.pick(x_ND[:, None], pooling).shape == (len(LENGTHS), 1, 2)
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    x_ND = torch.arange(float(mask.numel()))[:, None]
    picked = {pooling: PaddedLayout(mask).pick(x_ND, pooling)[:, 0].tolist() for pooling in ("last", "cls")}
    assert picked == {
        "last": [7 * row + n - 1 for row, n in enumerate(LENGTHS)],
        "cls": [7 * row for row in range(len(LENGTHS))],
    }


# ---------------------------------------------------------------- variable-length attention, which needs CUDA


class Attention:
    """`varlen_attn` by `naive`; subclasses have the signature of one version of torch."""

    def __init__(self, shares_heads: bool = True) -> None:
        self.calls: list[dict[str, Any]] = []
        self.shares_heads = shares_heads

    def compute(self, q: Tensor, k: Tensor, v: Tensor, offsets: tuple[Tensor, Tensor], **seen: Any) -> Tensor:
        if q.shape[1] != k.shape[1] and not self.shares_heads and not seen.get("enable_gqa"):
            raise ValueError("Expect query and key/value to have the same number of heads")
        offsets_q, offsets_k = offsets
        assert offsets_q.dtype == offsets_k.dtype == torch.int32
        assert (offsets_q[-1], offsets_k[-1]) == (len(q), len(k))
        lengths_q, lengths_k = offsets_q.diff().tolist(), offsets_k.diff().tolist()
        self.calls.append(seen | {"heads": (q.shape[1], k.shape[1]), "lengths": (lengths_q, lengths_k)})
        parts = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True)
        return torch.cat([naive(*part, causal=seen["causal"]) for part in parts]).to(q.dtype)


class Torch29(Attention):
    def __call__(self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None) -> Tensor:
        return self.compute(query, key, value, (cu_seq_q, cu_seq_k), most=(max_q, max_k), causal=is_causal)


class Torch211(Attention):
    def __call__(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
    ) -> Tensor:
        assert window_size in {(-1, -1), (-1, 0)}
        return self.compute(query, key, value, (cu_seq_q, cu_seq_k), most=(max_q, max_k), causal=window_size == (-1, 0))


class Torch213(Attention):
    def __call__(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
        enable_gqa=False,
        seqused_k=None,
        block_table=None,
        num_splits=None,
    ) -> Tensor:
        assert window_size in {(-1, -1), (-1, 0)}
        assert enable_gqa or query.shape[1] == key.shape[1]
        return self.compute(
            query,
            key,
            value,
            (cu_seq_q, cu_seq_k),
            most=(max_q, max_k),
            causal=window_size == (-1, 0),
            enable_gqa=enable_gqa,
            num_splits=num_splits,
        )


Use = Callable[..., Attention]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Call with a class of attention (and its options): layouts then take one as torch's own."""

    def use_it(kind: type[Attention], **options: Any) -> Attention:
        attention = kind(**options)
        names = frozenset(inspect.signature(attention).parameters)  # type: ignore[arg-type]
        monkeypatch.setattr(layouts, "_varlen_attn", lambda: (attention, names))
        layouts.takes_grouped_heads.cache_clear()
        return attention

    return use_it


@pytest.fixture(autouse=True)
def tried_anew() -> Any:
    yield
    layouts.takes_grouped_heads.cache_clear()


def test_the_stand_in_has_the_signature_of_the_torch_that_is_there() -> None:
    if not torch.__version__.startswith("2.13"):
        pytest.skip("another torch")
    _, names = layouts._varlen_attn()
    mine = {name: p.kind for name, p in inspect.signature(Torch213()).parameters.items()}  # type: ignore[arg-type]
    assert names == set(mine)
    theirs = inspect.signature(layouts._varlen_attn()[0]).parameters
    assert {name: p.kind for name, p in theirs.items()} == mine


VERSIONS = [Torch29, Torch211, Torch213]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(3, 3), (4, 2), (6, 1)])
@pytest.mark.parametrize("shares_heads", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_varlen(
    packed: Packed,
    use: Use,
    version: type[Attention],
    shares_heads: bool,
    heads: tuple[int, int],
    causal: bool,
    deterministic: bool,
) -> None:
    attention = use(version, shares_heads=shares_heads)
    batch = batch_of(packed, LENGTHS)
    layout = VarlenLayout(batch, deterministic=deterministic)
    q, k, v = random_heads(sum(LENGTHS), heads, 8)
    close(layout.attend(q, k, v, causal=causal), expected(q, k, v, LENGTHS, causal=causal))
    once = q[: len(LENGTHS)]
    close(layout.attend_once(once, k, v), expected_once(once, k, v, LENGTHS))
    all_call, once_call = [call for call in attention.calls if sum(call["lengths"][1]) == sum(LENGTHS)]
    assert (all_call["causal"], once_call["causal"]) == (causal, False)
    assert (all_call["most"], once_call["most"]) == ((7, 7), (1, 7))
    assert all_call["lengths"] == (LENGTHS, LENGTHS)
    assert once_call["lengths"] == ([1] * len(LENGTHS), LENGTHS)
    grouped = heads[0] != heads[1]
    for call in (all_call, once_call):
        if version is Torch213:
            assert call["heads"] == heads
            assert call["enable_gqa"] == grouped
            assert call["num_splits"] == (1 if deterministic else None)
        else:  # there is no way to forbid that sums over few queries of grouped heads are split
            repeated = deterministic or not shares_heads
            assert call["heads"] == ((heads[0], heads[0]) if repeated else heads)


def test_grouped_heads_are_tried_once(packed: Packed, use: Use) -> None:
    attention = use(Torch211)
    layout = VarlenLayout(batch_of(packed, LENGTHS), deterministic=False)
    heads = random_heads(sum(LENGTHS), (4, 2), 8)
    for _ in range(3):
        layout.attend(*heads, causal=True)
    assert len(attention.calls) == 4 + 3  # tried over texts and over single queries, each beside repeated heads


@pytest.mark.parametrize("single", [False, True])
def test_grouped_heads_that_come_out_wrong_are_repeated(packed: Packed, use: Use, single: bool) -> None:
    class Wrong(Torch211):
        """For single queries, or for all others."""

        def compute(self, q: Tensor, k: Tensor, v: Tensor, offsets: Any, **seen: Any) -> Tensor:
            out = super().compute(q, k, v, offsets, **seen)
            alone = len(q) == len(offsets[0]) - 1
            return out if q.shape[1] == k.shape[1] or alone != single else out.flip(1)

    use(Wrong)
    heads = random_heads(sum(LENGTHS), (4, 2), 8)
    layout = VarlenLayout(batch_of(packed, LENGTHS), deterministic=False)
    close(layout.attend(*heads, causal=True), expected(*heads, LENGTHS, causal=True))
    once = heads[0][: len(LENGTHS)]
    close(layout.attend_once(once, *heads[1:]), expected_once(once, *heads[1:], LENGTHS))


@pytest.mark.parametrize("n_left_over", [0, 3])
def test_varlen_of_a_recorded_batch(packed: Packed, use: Use, n_left_over: int) -> None:
    """Its host side says only the longest length; behind its texts there are texts without tokens, and tokens without.

    Reading beyond the tokens would kill the process on a GPU, and raises here.
    """

    class Recorded(Torch213):
        def compute(self, q: Tensor, k: Tensor, v: Tensor, offsets: Any, **seen: Any) -> Tensor:
            assert [len(x) for x in offsets] == [len(lengths) + 2 + 1] * 2
            n_q, n_k = (int(x[-1]) for x in offsets)
            out = torch.full_like(q, torch.nan)
            out[:n_q] = super().compute(q[:n_q], k[:n_k], v[:n_k], offsets, **seen)
            return out

    use(Recorded)
    lengths = LENGTHS
    batch = packed([[9] * n for n in [*lengths, n_left_over]])
    offsets = torch.tensor([0, *lengths, 0, 0]).cumsum(0).to(torch.int32)
    T = sum(lengths) + n_left_over
    recorded = dataclasses.replace(batch, offsets_B1=offsets, lengths=np.array([T]))
    layout = VarlenLayout(recorded, deterministic=False)
    heads = random_heads(T, (4, 2), 8)
    inside = [x[: sum(lengths)] for x in heads]
    out = layout.attend(*heads, causal=True)[: sum(lengths)]
    close(out, expected(*inside, lengths, causal=True))
    for pooling in ("last", "cls"):
        once = layout.pick(heads[0], pooling)
        assert len(once) == len(lengths) + 2
        out = layout.attend_once(once, *heads[1:])[: len(lengths)]
        close(out, expected_once(once[: len(lengths)], *inside[1:], lengths))


# ---------------------------------------------------------------- which layout


class OnCuda:
    """A batch that says it is on a GPU."""

    def __init__(self, batch: TokenBatch) -> None:
        self.__dict__ |= {name: getattr(batch, name) for name in ("offsets_B1", "lengths", "runs")}
        self.device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "capability", "kind"),
    [
        (torch.bfloat16, 128, (9, 0), VarlenLayout),
        (torch.float16, 32, (8, 0), VarlenLayout),
        (torch.bfloat16, 256, (10, 0), VarlenLayout),
        (torch.float32, 128, (9, 0), RunsLayout),
        (torch.bfloat16, 12, (9, 0), RunsLayout),
        (torch.bfloat16, 264, (9, 0), RunsLayout),
        (torch.bfloat16, 64, (7, 5), RunsLayout),
    ],
)
def test_varlen_is_for_half_precision_on_gpus_that_have_it(
    packed: Packed,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    head_dim: int,
    capability: tuple[int, int],
    kind: type,
) -> None:
    batch: Any = OnCuda(batch_of(packed, LENGTHS))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *a, device=None, **o: arange(*a, **o))
    layouts._has_varlen.cache_clear()
    try:
        assert type(packed_layout(batch, dtype, head_dim, deterministic=False)) is kind
        assert type(packed_layout(batch_of(packed, LENGTHS), dtype, head_dim, deterministic=False)) is RunsLayout
    finally:
        layouts._has_varlen.cache_clear()
