"""pool_features as one Triton kernel: a program a sequence, hidden states read once, features written once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "pool_features"]

_TILE = 16384
"""Numbers that a program reads at once."""


@triton.jit
def _pool_kernel(
    hidden_ptr,
    offsets_ptr,
    domain_ptr,
    out_ptr,
    stride_t,
    D,
    N_DOMAINS: tl.constexpr,
    POOLING: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets_ptr + b).to(tl.int64)
    end = tl.load(offsets_ptr + b + 1).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    inside_D = d < D
    if POOLING == "mean":
        t = tl.arange(0, BLOCK_T)
        sum_TD = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        # every sequence starts its own tiles, so that its sum does not depend on where it stands
        row = start
        while row < end:
            rows_T = row + t
            inside_TD = (rows_T < end)[:, None] & inside_D[None, :]
            tile_TD = tl.load(hidden_ptr + rows_T[:, None] * stride_t + d[None, :], mask=inside_TD, other=0.0)
            sum_TD += tile_TD.to(tl.float32)
            row += BLOCK_T
        pooled_D = tl.sum(sum_TD, axis=0)
    else:
        row = start if POOLING == "cls" else end - 1
        pooled_D = tl.load(hidden_ptr + row * stride_t + d, mask=inside_D, other=0.0).to(tl.float32)
    norm = tl.sqrt_rn(tl.sum(pooled_D * pooled_D, axis=0))
    unit_D = pooled_D / tl.maximum(norm, 1e-12, propagate_nan=tl.PropagateNan.ALL)
    out_row = out_ptr + b * (D + N_DOMAINS)
    tl.store(out_row + d, unit_D, mask=inside_D)
    if N_DOMAINS > 0:
        domain = tl.load(domain_ptr + b)
        n = tl.arange(0, BLOCK_N)
        tl.store(out_row + D + n, tl.where(n == domain, 1.0, 0.0), mask=n < N_DOMAINS)


def _blocks(D: int, n_domains: int) -> dict[str, int]:
    block_d = triton.next_power_of_2(D)
    return {
        "BLOCK_T": max(1, _TILE // block_d),
        "BLOCK_D": block_d,
        "BLOCK_N": triton.next_power_of_2(max(1, n_domains)),
    }


def pool_features(
    hidden_TD: Tensor, offsets_B1: Tensor, domain_B: Tensor | None, *, n_domains: int, pooling: str
) -> Tensor:
    """`pool.pool_features` after its checks."""
    D, B = hidden_TD.shape[1], len(offsets_B1) - 1
    if hidden_TD.stride(1) != 1:
        hidden_TD = hidden_TD.contiguous()
    out = torch.empty(B, D + n_domains, dtype=torch.float32, device=hidden_TD.device)
    if B:
        with torch.cuda.device_of(hidden_TD):
            _pool_kernel[(B,)](
                hidden_TD,
                offsets_B1.contiguous(),
                offsets_B1 if domain_B is None else domain_B.contiguous(),  # not read where there are no domains
                out,
                hidden_TD.stride(0),
                D,
                N_DOMAINS=n_domains,
                POOLING=pooling,
                **_blocks(D, n_domains),
                num_warps=8,
            )
    return out


def _compiled(dtype: str, index: str, pooling: str, D: int, aligned: str) -> tuple[Any, ...]:
    signature = {
        "hidden_ptr": f"*{dtype}:16",
        "offsets_ptr": f"*{index}:16",
        "domain_ptr": "*i64:16",
        "out_ptr": "*fp32:16",
        "stride_t": f"i32{aligned}",
        "D": f"i32{aligned}",
    }
    return _pool_kernel, signature, {"N_DOMAINS": 14, "POOLING": pooling, **_blocks(D, 14)}, {"num_warps": 8}


COMPILED = [
    _compiled("bf16", "i32", "last", 1024, ":16"),
    _compiled("bf16", "i64", "mean", 384, ":16"),
    _compiled("fp16", "i32", "cls", 768, ":16"),
    _compiled("fp32", "i32", "mean", 8192, ":16"),
    _compiled("fp32", "i64", "mean", 1038, ""),
]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
