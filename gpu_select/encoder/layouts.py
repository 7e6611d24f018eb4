"""How attention finds its way among token vectors: packed end to end, or in a padded rectangle."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gpu_select.encoder.packing import TokenBatch
from gpu_select.encoder.registry import Pooling

__all__ = ["Layout", "PaddedLayout", "RunsLayout", "VarlenLayout", "packed_layout", "sdpa", "takes_varlen"]


class Layout(Protocol):
    """Where the B texts lie in N token vectors. Queries have H heads, keys and values G, all of length d."""

    def attend(self, q_NHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
        """(N, H, d): each token looks at its sequence, or at what stands before it there."""
        ...

    def attend_once(self, q_BHd: Tensor, k_NGd: Tensor, v_NGd: Tensor) -> Tensor:
        """(B, H, d): one query a sequence looks at the whole sequence."""
        ...

    def pick(self, x_ND: Tensor, pooling: Pooling) -> Tensor:
        """(B, D): the last or (`cls`) the first token's vector of each sequence."""
        ...


class VarlenLayout:
    """Packed sequences through the variable-length attention of torch, on CUDA in half precision."""

    def __init__(self, batch: TokenBatch, *, deterministic: bool) -> None:
        self._max_length = int(batch.lengths.max())
        self._offsets = batch.offsets_B1
        self._once = torch.arange(len(batch.offsets_B1), dtype=torch.int32, device=batch.device)
        self._deterministic = deterministic

    def attend(self, q_NHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
        """See `Layout`."""
        offsets, most = self._offsets, self._max_length
        return _varlen(q_NHd, k_NGd, v_NGd, offsets, offsets, most, most, causal, self._deterministic)

    def attend_once(self, q_BHd: Tensor, k_NGd: Tensor, v_NGd: Tensor) -> Tensor:
        """See `Layout`."""
        most = self._max_length
        return _varlen(q_BHd, k_NGd, v_NGd, self._once, self._offsets, 1, most, False, self._deterministic)

    def pick(self, x_ND: Tensor, pooling: Pooling) -> Tensor:
        """See `Layout`."""
        return _pick(x_ND, self._offsets, pooling)


class RunsLayout:
    """Packed sequences, each run of equal length as one rectangle: no padding and no mask, on any device.

    Args:
        batch: what is laid out.
        deterministic: compute each sequence by itself, from a copy. Libraries choose the order of their sums by where
            in memory a sequence lies as well, and by which thread gets it.
    """

    def __init__(self, batch: TokenBatch, *, deterministic: bool = False) -> None:
        self._runs = batch.runs
        if deterministic:
            self._runs = [(first + i * length, 1, length) for first, n, length in self._runs for i in range(n)]
        self._deterministic = deterministic
        self._offsets = batch.offsets_B1

    def attend(self, q_NHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
        """See `Layout`."""
        out_NHd = torch.empty_like(q_NHd, memory_format=torch.contiguous_format)
        for first, count, length in self._runs:
            run = slice(first, first + count * length)
            q, k, v = (torch.unflatten(self._part(x, run), 0, (count, length)) for x in (q_NHd, k_NGd, v_NGd))
            torch.unflatten(out_NHd[run], 0, (count, length)).copy_(sdpa(q, k, v, causal=causal and length > 1))
        return out_NHd

    def attend_once(self, q_BHd: Tensor, k_NGd: Tensor, v_NGd: Tensor) -> Tensor:
        """See `Layout`."""
        out_BHd = torch.empty_like(q_BHd, memory_format=torch.contiguous_format)
        s = 0
        for first, count, length in self._runs:
            run, rows = slice(first, first + count * length), slice(s, s + count)
            k, v = (torch.unflatten(self._part(x, run), 0, (count, length)) for x in (k_NGd, v_NGd))
            out_BHd[rows] = sdpa(self._part(q_BHd, rows)[:, None], k, v)[:, 0]
            s += count
        return out_BHd

    def pick(self, x_ND: Tensor, pooling: Pooling) -> Tensor:
        """See `Layout`."""
        return _pick(x_ND, self._offsets, pooling)

    def _part(self, x: Tensor, rows: slice) -> Tensor:
        # every copy begins at the allocator's alignment
        return x[rows].clone(memory_format=torch.contiguous_format) if self._deterministic else x[rows]


class PaddedLayout:
    """A rectangle of B x T tokens, each row's padding last; no shape depends on a value."""

    def __init__(self, mask_BT: Tensor) -> None:
        self._mask_BT = mask_BT
        self._shape = mask_BT.shape

    def take(self, x_BT: Tensor) -> Tensor:
        """(B * T,): what the token vectors are made from."""
        return x_BT.flatten()

    def spread(self, x_ND: Tensor) -> Tensor:
        """(B * T, D): token vectors at their places in the rectangle."""
        return x_ND

    def attend(self, q_NHd: Tensor, k_NGd: Tensor, v_NGd: Tensor, *, causal: bool) -> Tensor:
        """See `Layout`."""
        q, k, v = (torch.unflatten(x, 0, self._shape) for x in (q_NHd, k_NGd, v_NGd))
        # what stands behind a token no causal model sees
        return sdpa(q, k, v, causal=causal, mask_BT=None if causal else self._mask_BT).flatten(0, 1)

    def attend_once(self, q_BHd: Tensor, k_NGd: Tensor, v_NGd: Tensor) -> Tensor:
        """See `Layout`."""
        k, v = (torch.unflatten(x, 0, self._shape) for x in (k_NGd, v_NGd))
        return sdpa(q_BHd[:, None], k, v, mask_BT=self._mask_BT).squeeze(1)

    def pick(self, x_ND: Tensor, pooling: Pooling) -> Tensor:
        """See `Layout`."""
        B, T = self._shape
        token_B = torch.arange(B, device=x_ND.device) * T
        if pooling == "last":
            token_B = token_B + (self._mask_BT.sum(dim=1) - 1).clamp(min=0)
        return x_ND.index_select(0, token_B)


def packed_layout(batch: TokenBatch, dtype: torch.dtype, head_dim: int, *, deterministic: bool) -> Layout:
    """The layout of a packed batch that is fastest where it lies."""
    if takes_varlen(batch.device, dtype, head_dim):
        return VarlenLayout(batch, deterministic=deterministic)
    return RunsLayout(batch, deterministic=deterministic)


def takes_varlen(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether packed batches go through `VarlenLayout`."""
    half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and half and head_dim % 8 == 0 and head_dim <= 256 and _has_varlen(device)


def _pick(x_ND: Tensor, offsets_B1: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "last":
        return x_ND.index_select(0, offsets_B1[1:] - 1)
    # behind the texts of a recorded batch there may be some without tokens, which begin behind the last token
    return x_ND.index_select(0, offsets_B1[:-1].clamp(max=len(x_ND) - 1))


def sdpa(
    q_STHd: Tensor, k_STGd: Tensor, v_STGd: Tensor, *, causal: bool = False, mask_BT: Tensor | None = None
) -> Tensor:
    """(S, T, H, d): attention within each of S sequences, to all of its tokens, those before, or those of the mask."""
    groups = q_STHd.shape[2] // k_STGd.shape[2]
    if groups > 1:
        k_STGd, v_STGd = (x.repeat_interleave(groups, dim=2) for x in (k_STGd, v_STGd))
    q, k, v = (x.transpose(1, 2) for x in (q_STHd, k_STGd, v_STGd))
    mask = None if mask_BT is None else mask_BT[:, None, None, :]
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


def _varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets_q: Tensor,
    offsets_k: Tensor,
    max_q: int,
    max_k: int,
    causal: bool,
    deterministic: bool,
) -> Tensor:
    attention, arguments = _varlen_attn()
    options: dict[str, Any] = {}
    if causal:
        options |= {"window_size": (-1, 0)} if "window_size" in arguments else {"is_causal": True}
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        if "enable_gqa" in arguments:
            options["enable_gqa"] = True
        elif deterministic or not takes_grouped_heads(q.device, q.dtype):
            # single queries of grouped heads have their sums split by the number of texts
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    if deterministic and "num_splits" in arguments:
        options["num_splits"] = 1
    out: Tensor = attention(q, k, v, offsets_q, offsets_k, max_q, max_k, **options)
    return out


@functools.cache
def _varlen_attn() -> tuple[Any, frozenset[str]]:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)


@functools.cache
def takes_grouped_heads(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether variable-length attention without `enable_gqa` lets heads share keys and values; tried out once.

    The kernel below it can, and repeating them costs some percent; but torch 2.11 does not promise it.
    """
    attention, _ = _varlen_attn()
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(5, heads, 64, generator=generator).to(device, dtype) for heads in (4, 2, 2))
    offsets, once = (torch.tensor(ends, dtype=torch.int32, device=device) for ends in ([0, 2, 5], [0, 1, 2]))
    repeated = [x.repeat_interleave(2, dim=1) for x in (k, v)]
    # single queries take a way of their own
    for queries, offsets_q, most in ((q, offsets, 3), (q[:2], once, 1)):
        expected = attention(queries, *repeated, offsets_q, offsets, most, 3)
        try:
            shared = attention(queries, k, v, offsets_q, offsets, most, 3)
        except (RuntimeError, ValueError, TypeError):
            return False
        if not torch.allclose(shared.float(), expected.float(), atol=1e-2):
            return False
    return True


@functools.cache
def _has_varlen(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)
