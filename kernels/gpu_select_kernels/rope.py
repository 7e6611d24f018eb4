"""From the fused projection to queries, keys and values: RMSNorm of each head and rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["qk_norm_rope"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def qk_norm_rope(
    qkv_TE: Tensor,
    q_weight_d: Tensor | None,
    k_weight_d: Tensor | None,
    cos_Td: Tensor,
    sin_Td: Tensor,
    n_q_heads: int,
    n_kv_heads: int,
    head_dim: int,
    eps: float,
    *,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Split the projection, norm each head of q and k over its d numbers, and rotate them by their position.

    Rounds where transformers' Qwen3 does (norm, products and sum each to the input's dtype). A rotation of float32
    cos and sin is rounded once, at its end.

    Args:
        qkv_TE: (T, E) float32, float16 or bfloat16, E = (Hq + 2 Hkv) d: all heads of q, then of k, then of v.
        q_weight_d: (d,) of the same dtype, the norm's weight; None leaves q unnormed.
        k_weight_d: the same for k.
        cos_Td: (T, d) float32 or the input's dtype, of each token's position.
        sin_Td: the same.
        n_q_heads: Hq; 0 where qkv_TE holds only k and v.
        n_kv_heads: Hkv; 0 where it holds only q.
        head_dim: d, even, at most 1024.
        eps: of the norm.
        impl: which implementation runs.
    Returns:
        q (T, Hq, d) and k (T, Hkv, d), contiguous, and v (T, Hkv, d), a view of qkv_TE.
    Raises:
        ValueError: shapes or dtypes other than these.
    Source:
        Su et al. (2021), arXiv:2104.09864, in the order of halves that GPT-NeoX and transformers use.
    """
    _check(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, n_q_heads, n_kv_heads, head_dim)
    if resolve_impl(impl, qkv_TE) == "triton":
        from gpu_select_kernels import rope_triton

        q_THd, k_THd = rope_triton.qk_norm_rope(
            qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, n_q_heads, n_kv_heads, head_dim, eps
        )
    else:
        q_THd = _rotated(_heads(qkv_TE, 0, n_q_heads, head_dim), q_weight_d, cos_Td, sin_Td, eps)
        k_THd = _rotated(_heads(qkv_TE, n_q_heads, n_kv_heads, head_dim), k_weight_d, cos_Td, sin_Td, eps)
    return q_THd, k_THd, _heads(qkv_TE, n_q_heads + n_kv_heads, n_kv_heads, head_dim)


def _heads(qkv_TE: Tensor, first: int, n_heads: int, head_dim: int) -> Tensor:
    """A view of n_heads heads, (T, n_heads, d)."""
    columns = slice(first * head_dim, (first + n_heads) * head_dim)
    return qkv_TE[:, columns].view(qkv_TE.shape[0], n_heads, head_dim)


def _rotated(x_THd: Tensor, weight_d: Tensor | None, cos_Td: Tensor, sin_Td: Tensor, eps: float) -> Tensor:
    dtype = x_THd.dtype
    if weight_d is not None:
        x32_THd = x_THd.float()
        x32_THd = x32_THd * torch.rsqrt(x32_THd.square().mean(dim=-1, keepdim=True) + eps)
        x_THd = x32_THd.to(dtype) * weight_d
    first_THh, second_THh = x_THd.chunk(2, dim=-1)
    turned_THd = torch.cat([-second_THh, first_THh], dim=-1)
    return (x_THd * cos_Td[:, None] + turned_THd * sin_Td[:, None]).to(dtype)


def _check(
    qkv_TE: Tensor,
    q_weight_d: Tensor | None,
    k_weight_d: Tensor | None,
    cos_Td: Tensor,
    sin_Td: Tensor,
    n_q_heads: int,
    n_kv_heads: int,
    head_dim: int,
) -> None:
    if head_dim % 2 or not 2 <= head_dim <= 1024:
        raise ValueError(f"head_dim: expected an even number up to 1024, got {head_dim}")
    width = (n_q_heads + 2 * n_kv_heads) * head_dim
    if qkv_TE.ndim != 2 or qkv_TE.dtype not in _FLOATS or qkv_TE.shape[1] != width or width < 1:
        raise ValueError(
            f"qkv_TE: expected (T, ({n_q_heads} + 2 * {n_kv_heads}) * {head_dim}) float32, float16 or bfloat16, "
            f"got {tuple(qkv_TE.shape)} {qkv_TE.dtype}"
        )
    for name, weight_d in (("q_weight_d", q_weight_d), ("k_weight_d", k_weight_d)):
        if weight_d is not None and (weight_d.shape != (head_dim,) or weight_d.dtype != qkv_TE.dtype):
            raise ValueError(
                f"{name}: expected ({head_dim},) {qkv_TE.dtype}, got {tuple(weight_d.shape)} {weight_d.dtype}"
            )
    expected = (qkv_TE.shape[0], head_dim)
    for name, table_Td in (("cos_Td", cos_Td), ("sin_Td", sin_Td)):
        if table_Td.shape != expected or table_Td.dtype not in (torch.float32, qkv_TE.dtype):
            raise ValueError(
                f"{name}: expected {expected} float32 or {qkv_TE.dtype}, got {tuple(table_Td.shape)} {table_Td.dtype}"
            )
    if cos_Td.dtype != sin_Td.dtype:
        raise ValueError(f"sin_Td: expected the dtype of cos_Td, {cos_Td.dtype}, got {sin_Td.dtype}")
