"""nearest_centroid as one Triton kernel: a program a tile of queries, which goes over all centroids."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "nearest_centroid"]


@triton.jit(do_not_specialize=["B"])
def _centroid_kernel(
    x_ptr,
    centroids_ptr,
    norms_ptr,
    owner_ptr,
    candidates_ptr,
    best_ptr,
    nearest_ptr,
    x_units,
    B,
    K: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    UNIT: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    d = tl.arange(0, BLOCK_D)
    m = tl.arange(0, BLOCK_M)
    # a row's start is given in units of UNIT numbers, which tells the compiler how wide it may read
    x_BD = x_ptr + (b * x_units * UNIT)[:, None] + d[None, :]
    best_BM = tl.full((BLOCK_B, BLOCK_M), -float("inf"), tl.float32)
    top_B = tl.full((BLOCK_B,), -float("inf"), tl.float32)
    nearest_B = tl.zeros((BLOCK_B,), tl.int32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        centroids_DK = centroids_ptr + (k * (D // UNIT) * UNIT)[None, :] + d[:, None]
        dot_BK = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)
        for start in range(0, D, BLOCK_D):
            inside_D = start + d < D
            tile_BD = tl.load(x_BD + start, mask=(b < B)[:, None] & inside_D[None, :], other=0.0)
            tile_DK = tl.load(centroids_DK + start, mask=(k < K)[None, :] & inside_D[:, None], other=0.0)
            dot_BK = tl.dot(tile_BD, tile_DK, dot_BK, input_precision="tf32x3")
        norms_K = tl.load(norms_ptr + k, mask=k < K, other=0.0)
        owner_K = tl.load(owner_ptr + k, mask=k < K, other=-1).to(tl.int32)
        values_BK = 2.0 * dot_BK - norms_K[None, :]
        for model in range(M):
            mine_BK = tl.where((owner_K == model)[None, :], values_BK, -float("inf"))
            largest_B, place_B = tl.max(mine_BK, axis=1, return_indices=True, return_indices_tie_break_left=True)
            if HAS_CANDIDATES:
                allowed_B = tl.load(candidates_ptr + b * M + model, mask=b < B, other=0)
                largest_B = tl.where(allowed_B != 0, largest_B, -float("inf"))
            best_BM = tl.where((m == model)[None, :], tl.maximum(best_BM, largest_B[:, None]), best_BM)
            place_B = place_B.to(tl.int32) + first
            nearer_B = (largest_B > top_B) | ((largest_B == top_B) & (place_B < nearest_B))
            nearest_B = tl.where(nearer_B, place_B, nearest_B)
            top_B = tl.where(nearer_B, largest_B, top_B)
    tl.store(best_ptr + b[:, None] * M + m[None, :], best_BM, mask=(b < B)[:, None] & (m < M)[None, :])
    tl.store(nearest_ptr + b, nearest_B.to(tl.int64), mask=b < B)


def nearest_centroid(
    features_BD: Tensor,
    centroids_KD: Tensor,
    norms_K: Tensor,
    owner_K: Tensor,
    n_models: int,
    candidates_BM: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`centroid.nearest_centroid` after its checks."""
    B, (K, D) = len(features_BD), centroids_KD.shape
    if features_BD.stride(1) != 1:
        features_BD = features_BD.contiguous()
    unit = _unit(D, features_BD.stride(0))
    best_BM = features_BD.new_empty(B, n_models)
    nearest_B = torch.empty(B, dtype=torch.int64, device=features_BD.device)
    blocks, options = _blocks(n_models)
    if B:
        with torch.cuda.device_of(features_BD):
            _centroid_kernel[(triton.cdiv(B, blocks["BLOCK_B"]),)](
                features_BD,
                centroids_KD.contiguous(),
                norms_K.contiguous(),
                owner_K.contiguous(),
                # not read where there are none
                owner_K if candidates_BM is None else candidates_BM.contiguous(),
                best_BM,
                nearest_B,
                features_BD.stride(0) // unit,
                B,
                K=K,
                D=D,
                M=n_models,
                UNIT=unit,
                HAS_CANDIDATES=candidates_BM is not None,
                **blocks,
                **options,
            )
    return best_BM, nearest_B


def _unit(*strides: int) -> int:
    """The widest read, in numbers, that every row starts a multiple of."""
    return next(unit for unit in (4, 2, 1) if all(stride % unit == 0 for stride in strides))


def _blocks(n_models: int) -> tuple[dict[str, int], dict[str, int]]:
    """Tile sizes by the number of models, never by batch: a row's bits depend on them."""
    block_m = max(16, triton.next_power_of_2(n_models))
    block_b = min(64, max(16, 4096 // block_m))
    return {"BLOCK_B": block_b, "BLOCK_K": 64, "BLOCK_D": 32, "BLOCK_M": block_m}, {"num_warps": 4, "num_stages": 4}


def _compiled(K: int, D: int, n_models: int, has_candidates: bool) -> tuple[Any, ...]:
    signature = {
        "x_ptr": "*fp32:16",
        "centroids_ptr": "*fp32:16",
        "norms_ptr": "*fp32:16",
        "owner_ptr": "*i64:16",
        "candidates_ptr": "*i1:16",
        "best_ptr": "*fp32:16",
        "nearest_ptr": "*i64:16",
        "x_units": "i32",
        "B": "i32",
    }
    blocks, options = _blocks(n_models)
    constants = {"K": K, "D": D, "M": n_models, "UNIT": _unit(D), "HAS_CANDIDATES": has_candidates, **blocks}
    return _centroid_kernel, signature, constants, options


COMPILED = [
    _compiled(64, 1038, 6, False),
    _compiled(1000, 398, 20, True),
    _compiled(2000, 1038, 512, True),
]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
