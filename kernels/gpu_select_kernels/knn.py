"""Parts of an exact nearest-neighbour search: minima over bins of vectors, and distances to the few that matter.

A bin is 16 vectors that follow each other in storage, a block 8 bins, a tile 2 blocks. Float16 minima over bins say
where the nearest vectors can be; no distance to the others ever reaches memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = [
    "BIN",
    "BLOCK",
    "DEPTH",
    "QUERY_TILE",
    "TILE",
    "bin_distances",
    "bin_minima",
    "interleaved",
    "pair_distances",
    "refine_minima",
]

BIN, BLOCK, TILE = 16, 128, 256
"""Vectors of a bin, of a block and of a tile."""
QUERY_TILE = 128
"""Queries that look at the same tiles."""
DEPTH = 64
"""Dimensions of the float16 copies are padded to a multiple."""

_BINS_A_BLOCK = BLOCK // BIN


def interleaved(stored_WX: Tensor) -> Tensor:
    """(W, X) in the order in which `bin_minima` takes vectors and norms: within a block, bins side by side.

    Args:
        stored_WX: (W, X) in storage order; W a multiple of `BLOCK`.
    """
    blocks = stored_WX.reshape(-1, _BINS_A_BLOCK, BIN, stored_WX.shape[1])
    return blocks.transpose(1, 2).reshape(stored_WX.shape)


def bin_minima(
    low_BK: Tensor,
    factor_B: Tensor,
    low_WK: Tensor,
    norm_W: Tensor,
    query_R: Tensor,
    first_T: Tensor,
    last_T: Tensor,
    *,
    width: int,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Minima of norm - factor * (query . vector) over the bins and the blocks that a tile of queries is to look at.

    Args:
        low_BK: (B, K) float16 queries; K a multiple of `DEPTH`.
        factor_B: (B,) float32.
        low_WK: (W, K) float16 vectors, `interleaved`; W a multiple of `TILE`.
        norm_W: (W,) float32, `interleaved`; infinite for vectors that do not count.
        query_R: (R,) int32, the query at each place; R a multiple of `QUERY_TILE`.
        first_T, last_T: (R / `QUERY_TILE`,) int32, the tiles of vectors that these places look at, from first to just
            before last; at most `width`, and none where both are equal.
        width: how many tiles any place may look at.
        impl: which implementation runs.
    Returns:
        (R, width * 16) and (R, width * 2) float32 minima over bins and over blocks, counted from the place's first
        tile. Beyond its last tile, the latter are infinite and the former any numbers. Products are accumulated in
        float32, on tensor cores without rounding to nearest.
    Raises:
        ValueError: other shapes or dtypes.
    """
    _check_minima(low_BK, factor_B, low_WK, norm_W, query_R, first_T, last_T)
    if resolve_impl(impl, low_BK) == "triton":
        from gpu_select_kernels import knn_triton

        fine_RX, coarse_RY = knn_triton.bin_minima(
            low_BK, factor_B, low_WK, norm_W, query_R, first_T, last_T, width=width
        )
        return fine_RX, coarse_RY
    fine_RX = low_BK.new_full((len(query_R), width * (TILE // BIN)), torch.inf, dtype=torch.float32)
    for t, (first, last) in enumerate(zip(first_T.tolist(), last_T.tolist(), strict=True)):
        if first == last:
            continue
        places, stored = slice(t * QUERY_TILE, (t + 1) * QUERY_TILE), slice(first * TILE, last * TILE)
        query_r = query_R[places].long()
        product_rw = low_BK[query_r].float() @ low_WK[stored].float().T
        value_rw = norm_W[stored] - factor_B[query_r, None] * product_rw
        minima = value_rw.reshape(QUERY_TILE, -1, BIN, _BINS_A_BLOCK).amin(dim=2).flatten(1)
        fine_RX[places, : minima.shape[1]] = minima
    return fine_RX, fine_RX.reshape(len(fine_RX), -1, _BINS_A_BLOCK).amin(dim=2)


def refine_minima(
    fine_RX: Tensor,
    coarse_RY: Tensor,
    limit_R: Tensor,
    query_R: Tensor,
    x_BD: Tensor,
    vectors_UD: Tensor,
    norm_U: Tensor,
    vector_W: Tensor,
    *,
    impl: Impl = "auto",
) -> None:
    """Replace minima up to a limit by those of `bin_distances`, and all others by infinity, in place.

    Args:
        fine_RX, coarse_RY: as `bin_minima` returns them for places that look at all tiles from the first on. Under an
            infinite minimum of a block, those of its bins are left as they are.
        limit_R: (R,) float32; minus infinity leaves a place's minima as they are.
        query_R: (R,) int32, the query at each place.
        x_BD: (B, D) float32.
        vectors_UD: (U, D) float32.
        norm_U: (U,) float32, their squared norms.
        vector_W: (W,) int32, the vector at each place of the storage; -1 for none.
        impl: which implementation runs.
    """
    if resolve_impl(impl, x_BD) == "triton":
        from gpu_select_kernels import knn_triton

        knn_triton.refine_minima(fine_RX, coarse_RY, limit_R, query_R, x_BD, vectors_UD, norm_U, vector_W)
        return
    n_bins = len(vector_W) // BIN
    value_BU = norm_U - 2 * (x_BD @ vectors_UD.T)
    value_BW = value_BU[:, vector_W.clamp(min=0).long()].masked_fill(vector_W < 0, torch.inf)
    minima_RX = value_BW.reshape(len(x_BD), -1, BIN).amin(dim=2)[query_R.long()]
    fine_RX, coarse_RY = fine_RX[:, :n_bins], coarse_RY[:, : n_bins // _BINS_A_BLOCK]
    matters_RX = (fine_RX <= limit_R[:, None]) & (coarse_RY <= limit_R[:, None]).repeat_interleave(_BINS_A_BLOCK, dim=1)
    minima_RX = minima_RX.masked_fill(~matters_RX, torch.inf)
    minima_RY = minima_RX.reshape(len(minima_RX), -1, _BINS_A_BLOCK).amin(dim=2)
    given_R1 = (limit_R == -torch.inf)[:, None]
    fine_RX.copy_(torch.where(given_R1, fine_RX, minima_RX))
    coarse_RY.copy_(torch.where(given_R1, coarse_RY, minima_RY))


def bin_distances(
    x_BD: Tensor,
    vectors_UD: Tensor,
    norm_U: Tensor,
    vector_W: Tensor,
    bin_Bm: Tensor,
    *,
    impl: Impl = "auto",
) -> Tensor:
    """Squared distances to the vectors of some bins, less the query's own squared norm.

    Args:
        x_BD: (B, D) float32.
        vectors_UD: (U, D) float32.
        norm_U: (U,) float32, their squared norms.
        vector_W: (W,) int32, the vector at each place of the storage; -1 for none.
        bin_Bm: (B, m) int32, bins of the storage; -1 for none.
        impl: which implementation runs.
    Returns:
        (B, m, 16) float32, norm - 2 * (query . vector) in float32; infinite where there is no vector.
    """
    if resolve_impl(impl, x_BD) == "triton":
        from gpu_select_kernels import knn_triton

        distances: Tensor = knn_triton.bin_distances(x_BD, vectors_UD, norm_U, vector_W, bin_Bm)
        return distances
    vector_Bmb = vector_W.reshape(-1, BIN)[bin_Bm.clamp(min=0).long()]
    none_Bmb = (vector_Bmb < 0) | (bin_Bm < 0)[:, :, None]
    vector_Bmb = vector_Bmb.clamp(min=0).long()
    product_Bmb = (vectors_UD[vector_Bmb] @ x_BD[:, None, :, None]).squeeze(3)
    return (norm_U[vector_Bmb] - 2 * product_Bmb).masked_fill(none_Bmb, torch.inf)


def pair_distances(
    x_BD: Tensor,
    vectors_UD: Tensor,
    vector_Bn: Tensor,
    wanted_Bn: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
    impl: Impl = "auto",
) -> Tensor:
    """Squared distances of some pairs, in float64. Nothing here waits for the device.

    Args:
        x_BD: (B, D) float32.
        vectors_UD: (U, D) float32.
        vector_Bn: (B, n) int64 in [0, U).
        wanted_Bn: (B, n) bool.
        dtype: of the arithmetic; float32 for devices without float64.
        impl: which implementation runs; Triton has float64 only.
    Returns:
        (B, n) of `dtype`; infinite for pairs that are not wanted.
    """
    if dtype == torch.float64 and resolve_impl(impl, x_BD) == "triton":
        from gpu_select_kernels import knn_triton

        distances: Tensor = knn_triton.pair_distances(x_BD, vectors_UD, vector_Bn, wanted_Bn)
        return distances
    if torch.compiler.is_compiling():  # which makes one loop of it, and not a loop a column
        difference_BnD = x_BD[:, None].to(dtype) - vectors_UD[vector_Bn].to(dtype)
        return difference_BnD.square().sum(dim=2).masked_fill(~wanted_Bn, torch.inf)
    columns = []
    for j in range(vector_Bn.shape[1]):  # never (B, n, D) at once
        difference_BD = x_BD.to(dtype) - vectors_UD[vector_Bn[:, j]].to(dtype)
        columns.append(difference_BD.square().sum(dim=1))
    return torch.stack(columns, dim=1).masked_fill(~wanted_Bn, torch.inf)


def _check_minima(
    low_BK: Tensor, factor_B: Tensor, low_WK: Tensor, norm_W: Tensor, query_R: Tensor, first_T: Tensor, last_T: Tensor
) -> None:
    depth, width = low_BK.shape[-1], len(low_WK)
    if low_BK.dtype != torch.float16 or low_WK.dtype != torch.float16:
        raise ValueError(f"bin_minima: expected float16 queries and vectors, got {low_BK.dtype} and {low_WK.dtype}")
    if low_BK.ndim != 2 or low_WK.shape != (width, depth) or depth % DEPTH or width % TILE:
        raise ValueError(
            f"bin_minima: expected (B, K) queries and (W, K) vectors, K a multiple of {DEPTH} and W of {TILE}; "
            f"got {tuple(low_BK.shape)} and {tuple(low_WK.shape)}"
        )
    if factor_B.shape != low_BK.shape[:1] or norm_W.shape != low_WK.shape[:1]:
        raise ValueError(
            f"bin_minima: expected a factor a query and a norm a vector, got {tuple(factor_B.shape)} for "
            f"{len(low_BK)} and {tuple(norm_W.shape)} for {width}"
        )
    tiles = first_T.shape
    if tiles != last_T.shape or query_R.shape != (len(first_T) * QUERY_TILE,):
        raise ValueError(
            f"bin_minima: expected {QUERY_TILE} places a tile of queries, got {len(query_R)} for "
            f"{len(first_T)} and {len(last_T)}"
        )
