"""qk_norm_rope as one Triton kernel over (token, head) pairs: q and k are read once and written once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "qk_norm_rope"]

_TILE = 2048
"""Numbers of half a head that a program holds."""


@triton.jit(do_not_specialize=["n_rows"])
def _rope_kernel(
    qkv_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    qkv_stride,
    cos_stride,
    sin_stride,
    n_rows,
    eps,
    N_Q: tl.constexpr,
    N_KV: tl.constexpr,
    HALF: tl.constexpr,
    NORM_Q: tl.constexpr,
    NORM_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    dtype = q_ptr.dtype.element_ty
    # Products are rounded one by one where torch does so: cos and sin of the input's dtype.
    table_dtype = cos_ptr.dtype.element_ty
    row_R = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    token_R = (row_R // (N_Q + N_KV)).to(tl.int64)
    head_R = row_R % (N_Q + N_KV)
    is_q_R = head_R < N_Q
    h = tl.arange(0, BLOCK_H)
    inside_RH = (row_R < n_rows)[:, None] & (h < HALF)[None, :]
    # the two halves of a head turn into each other
    x_RH = qkv_ptr + token_R[:, None] * qkv_stride + head_R[:, None] * (2 * HALF) + h[None, :]
    first_RH = tl.load(x_RH, mask=inside_RH, other=0.0).to(tl.float32)
    second_RH = tl.load(x_RH + HALF, mask=inside_RH, other=0.0).to(tl.float32)
    if NORM_Q or NORM_K:
        square_R = tl.sum(first_RH * first_RH, axis=1) + tl.sum(second_RH * second_RH, axis=1)
        scale_R1 = tl.rsqrt(square_R / (2 * HALF) + eps)[:, None]
        normed_first_RH = (first_RH * scale_R1).to(dtype).to(tl.float32)
        normed_second_RH = (second_RH * scale_R1).to(dtype).to(tl.float32)
        if NORM_Q:
            mine_RH = is_q_R[:, None] & (h >= 0)[None, :]
            weight_1H = tl.load(q_weight_ptr + h, mask=h < HALF, other=0.0).to(tl.float32)[None, :]
            first_RH = tl.where(mine_RH, (normed_first_RH * weight_1H).to(dtype).to(tl.float32), first_RH)
            weight_1H = tl.load(q_weight_ptr + HALF + h, mask=h < HALF, other=0.0).to(tl.float32)[None, :]
            second_RH = tl.where(mine_RH, (normed_second_RH * weight_1H).to(dtype).to(tl.float32), second_RH)
        if NORM_K:
            mine_RH = (head_R >= N_Q)[:, None] & (h >= 0)[None, :]
            weight_1H = tl.load(k_weight_ptr + h, mask=h < HALF, other=0.0).to(tl.float32)[None, :]
            first_RH = tl.where(mine_RH, (normed_first_RH * weight_1H).to(dtype).to(tl.float32), first_RH)
            weight_1H = tl.load(k_weight_ptr + HALF + h, mask=h < HALF, other=0.0).to(tl.float32)[None, :]
            second_RH = tl.where(mine_RH, (normed_second_RH * weight_1H).to(dtype).to(tl.float32), second_RH)
    cos_RH = cos_ptr + token_R[:, None] * cos_stride + h[None, :]
    sin_RH = sin_ptr + token_R[:, None] * sin_stride + h[None, :]
    cos_first_RH = tl.load(cos_RH, mask=inside_RH, other=0.0).to(tl.float32)
    sin_first_RH = tl.load(sin_RH, mask=inside_RH, other=0.0).to(tl.float32)
    cos_second_RH = tl.load(cos_RH + HALF, mask=inside_RH, other=0.0).to(tl.float32)
    sin_second_RH = tl.load(sin_RH + HALF, mask=inside_RH, other=0.0).to(tl.float32)
    first_cos_RH = (first_RH * cos_first_RH).to(table_dtype).to(tl.float32)
    first_sin_RH = (second_RH * sin_first_RH).to(table_dtype).to(tl.float32)
    second_cos_RH = (second_RH * cos_second_RH).to(table_dtype).to(tl.float32)
    second_sin_RH = (first_RH * sin_second_RH).to(table_dtype).to(tl.float32)
    out_first_RH = (first_cos_RH - first_sin_RH).to(dtype)
    out_second_RH = (second_cos_RH + second_sin_RH).to(dtype)
    if N_Q > 0:
        to_q_RH = inside_RH & is_q_R[:, None]
        q_RH = q_ptr + (token_R * N_Q + head_R)[:, None] * (2 * HALF) + h[None, :]
        tl.store(q_RH, out_first_RH, mask=to_q_RH)
        tl.store(q_RH + HALF, out_second_RH, mask=to_q_RH)
    if N_KV > 0:
        to_k_RH = inside_RH & (head_R >= N_Q)[:, None]
        k_RH = k_ptr + (token_R * N_KV + head_R - N_Q)[:, None] * (2 * HALF) + h[None, :]
        tl.store(k_RH, out_first_RH, mask=to_k_RH)
        tl.store(k_RH + HALF, out_second_RH, mask=to_k_RH)


def _blocks(head_dim: int) -> dict[str, int]:
    block_h = triton.next_power_of_2(head_dim // 2)
    return {"BLOCK_R": max(1, _TILE // block_h), "BLOCK_H": block_h}


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
) -> tuple[Tensor, Tensor]:
    """q and k of `rope.qk_norm_rope`, after its checks."""
    T = len(qkv_TE)
    if qkv_TE.stride(1) != 1:
        qkv_TE = qkv_TE.contiguous()
    cos_Td = cos_Td if cos_Td.stride(1) == 1 else cos_Td.contiguous()
    sin_Td = sin_Td if sin_Td.stride(1) == 1 else sin_Td.contiguous()
    q_THd = qkv_TE.new_empty(T, n_q_heads, head_dim)
    k_THd = qkv_TE.new_empty(T, n_kv_heads, head_dim)
    n_rows, blocks = T * (n_q_heads + n_kv_heads), _blocks(head_dim)
    if n_rows:
        with torch.cuda.device_of(qkv_TE):
            _rope_kernel[(triton.cdiv(n_rows, blocks["BLOCK_R"]),)](
                qkv_TE,
                qkv_TE if q_weight_d is None else q_weight_d.contiguous(),  # not read where there is no norm
                qkv_TE if k_weight_d is None else k_weight_d.contiguous(),
                cos_Td,
                sin_Td,
                q_THd,
                k_THd,
                qkv_TE.stride(0),
                cos_Td.stride(0),
                sin_Td.stride(0),
                n_rows,
                eps,
                N_Q=n_q_heads,
                N_KV=n_kv_heads,
                HALF=head_dim // 2,
                NORM_Q=q_weight_d is not None and n_q_heads > 0,
                NORM_K=k_weight_d is not None and n_kv_heads > 0,
                **blocks,
                num_warps=4,
            )
    return q_THd, k_THd


def _compiled(dtype: str, table: str, n_q: int, n_kv: int, head_dim: int, norm: bool) -> tuple[Any, ...]:
    pointers = {f"{name}_ptr": f"*{dtype}:16" for name in ("qkv", "q_weight", "k_weight", "q", "k")}
    tables = {f"{name}_ptr": f"*{table}:16" for name in ("cos", "sin")}
    strides = {f"{name}_stride": "i32:16" for name in ("qkv", "cos", "sin")}
    constants = {"N_Q": n_q, "N_KV": n_kv, "HALF": head_dim // 2, "NORM_Q": norm and n_q > 0, "NORM_K": norm}
    signature = {**pointers, **tables, **strides, "n_rows": "i32", "eps": "fp32"}
    return _rope_kernel, signature, {**constants, **_blocks(head_dim)}, {"num_warps": 4}


COMPILED = [
    _compiled("bf16", "bf16", 16, 8, 128, True),
    _compiled("bf16", "fp32", 16, 8, 128, True),
    _compiled("bf16", "bf16", 0, 8, 128, True),
    _compiled("fp16", "fp16", 14, 2, 64, False),
    _compiled("fp32", "fp32", 6, 2, 96, True),
]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
