"""The parts of the nearest-neighbour search in Triton.

`bin_minima` is a matrix product whose epilogue keeps one minimum of 16 values. In the layout of the tensor cores'
accumulators, a thread holds every eighth column of its rows: with the columns of bins side by side, the minimum over a
bin is taken within a thread's registers, without any exchange.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["COMPILED", "bin_distances", "bin_minima", "pair_distances", "refine_minima"]

_BIN, _BLOCK, _TILE, _QUERY_TILE = 16, 128, 256, 128
_MOST_TILES_A_PROGRAM = 16
_PROGRAMS_A_MULTIPROCESSOR = 8
_BLOCKS_A_PROGRAM = 64


class _Shape(NamedTuple):
    """How the product is cut."""

    block_w: int
    block_k: int
    warps: int
    stages: int


_LARGE = _Shape(block_w=256, block_k=64, warps=8, stages=3)
"""148 KB of shared memory and 243 registers: data-centre GPUs from Hopper on."""
_SMALL = _Shape(block_w=128, block_k=32, warps=8, stages=3)


@triton.jit(do_not_specialize=["chunk", "width"])
def _bin_minima_kernel(
    x_ptr,
    factor_ptr,
    u_ptr,
    norm_ptr,
    query_ptr,
    first_ptr,
    last_ptr,
    fine_ptr,
    coarse_ptr,
    chunk,
    width,
    K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # consecutive programs look at the same vectors for different queries: the vectors come from the cache
    tile = tl.program_id(0)
    PARTS: tl.constexpr = 256 // BLOCK_W
    HALVES: tl.constexpr = BLOCK_W // 128
    first = tl.load(first_ptr + tile) * PARTS
    begin = first + tl.program_id(1) * chunk * PARTS
    end = tl.minimum(begin + chunk * PARTS, tl.load(last_ptr + tile) * PARTS)
    if begin >= end:
        return
    place_R = tile * BLOCK_R + tl.arange(0, BLOCK_R)
    query_R = tl.load(query_ptr + place_R)
    factor_R = tl.load(factor_ptr + query_R)
    k = tl.arange(0, BLOCK_K)
    w = tl.arange(0, BLOCK_W)
    x_ptrs = x_ptr + query_R.to(tl.int64)[:, None] * K + k[None, :]
    u_ptrs = u_ptr + w.to(tl.int64)[None, :] * K + k[:, None]
    half = tl.arange(0, HALVES)
    bins = half[:, None] * 8 + tl.arange(0, 8)[None, :]
    fine_ptrs = fine_ptr + place_R.to(tl.int64)[:, None, None] * (width * 16) + bins[None, :, :]
    coarse_ptrs = coarse_ptr + place_R.to(tl.int64)[:, None] * (width * 2) + half[None, :]
    # one loop over tiles and depth: the first loads of a tile are under way while the one before is finished
    for part in tl.range(begin, end, flatten=True):
        product = tl.zeros((BLOCK_R, BLOCK_W), tl.float32)
        base = tl.cast(part, tl.int64) * (BLOCK_W * K)
        for step in tl.range(0, K // BLOCK_K):
            x = tl.load(x_ptrs + step * BLOCK_K)
            u = tl.load(u_ptrs + (base + step * BLOCK_K))
            product = tl.dot(x, u, product)
        norm_W = tl.load(norm_ptr + part * BLOCK_W + w)
        value = norm_W[None, :] - factor_R[:, None] * product
        fine = tl.min(tl.reshape(value, (BLOCK_R, HALVES, 16, 8)), axis=2)
        tl.store(fine_ptrs + (part - first) * (HALVES * 8), fine)
        tl.store(coarse_ptrs + (part - first) * HALVES, tl.min(fine, axis=2))


@triton.jit
def _values(x_ptr, vectors_ptr, norm_ptr, vector, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """norm - 2 * (query . vector) for the 16 vectors of a bin; infinite for -1."""
    d = tl.arange(0, BLOCK_D)
    known = vector >= 0
    rows = vectors_ptr + tl.where(known, vector, 0).to(tl.int64)[:, None] * D
    products = tl.zeros((16, BLOCK_D), tl.float32)
    for start in range(0, D, BLOCK_D):
        inside = start + d < D
        x = tl.load(x_ptr + start + d, mask=inside, other=0.0)
        u = tl.load(rows + (start + d)[None, :], mask=known[:, None] & inside[None, :], other=0.0)
        products += u * x[None, :]
    norm = tl.load(norm_ptr + tl.where(known, vector, 0))
    return tl.where(known, norm - 2 * tl.sum(products, axis=1), float("inf"))


@triton.jit(do_not_specialize=["m"])
def _bin_distances_kernel(
    x_ptr, vectors_ptr, norm_ptr, vector_ptr, bin_ptr, out_ptr, m, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    query = tl.program_id(0).to(tl.int64)
    pair = query * m + tl.program_id(1)
    number = tl.load(bin_ptr + pair)
    member = tl.arange(0, 16)
    if number < 0:
        tl.store(out_ptr + pair * 16 + member, tl.full((16,), float("inf"), tl.float32))
    else:
        vector = tl.load(vector_ptr + number * 16 + member)
        value = _values(x_ptr + query * D, vectors_ptr, norm_ptr, vector, D, BLOCK_D)
        tl.store(out_ptr + pair * 16 + member, value)


@triton.jit(do_not_specialize=["width", "n_blocks"])
def _refine_kernel(
    fine_ptr,
    coarse_ptr,
    limit_ptr,
    query_ptr,
    x_ptr,
    vectors_ptr,
    norm_ptr,
    vector_ptr,
    width,
    n_blocks,
    D: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    limit = tl.load(limit_ptr + place)
    if limit == float("-inf"):
        return
    x_row = x_ptr + tl.load(query_ptr + place).to(tl.int64) * D
    member = tl.arange(0, 16)
    for i in range(BLOCKS):
        block = tl.program_id(1) * BLOCKS + i
        coarse = coarse_ptr + place * (width * 2) + block
        least = float("inf")
        exists = block < n_blocks
        if exists & (tl.load(coarse, mask=exists, other=0.0) <= limit):
            for j in range(8):
                number = block * 8 + j
                fine = fine_ptr + place * (width * 16) + number
                minimum = float("inf")
                if tl.load(fine) <= limit:
                    vector = tl.load(vector_ptr + number * 16 + member)
                    minimum = tl.min(_values(x_row, vectors_ptr, norm_ptr, vector, D, BLOCK_D), axis=0)
                tl.store(fine, minimum)
                least = tl.minimum(least, minimum)
        tl.store(coarse, least, mask=exists)


@triton.jit(do_not_specialize=["n"])
def _pair_distances_kernel(
    x_ptr, vectors_ptr, vector_ptr, wanted_ptr, out_ptr, n, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    pair = tl.program_id(0).to(tl.int64)  # the grid's second axis ends at 65,535
    query = pair // n
    if tl.load(wanted_ptr + pair) == 0:
        tl.store(out_ptr + pair, tl.full((), float("inf"), tl.float64))
    else:
        row = tl.load(vector_ptr + pair) * D
        d = tl.arange(0, BLOCK_D)
        squares = tl.zeros((BLOCK_D,), tl.float64)
        for start in range(0, D, BLOCK_D):
            inside = start + d < D
            x = tl.load(x_ptr + query * D + start + d, mask=inside, other=0.0).to(tl.float64)
            u = tl.load(vectors_ptr + row + start + d, mask=inside, other=0.0).to(tl.float64)
            squares += (x - u) * (x - u)
        tl.store(out_ptr + pair, tl.sum(squares, axis=0))


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
) -> tuple[Tensor, Tensor]:
    """See `gpu_select_kernels.knn.bin_minima`."""
    n_tiles = len(first_T)
    fine_RX = torch.empty((len(query_R), width * (_TILE // _BIN)), dtype=torch.float32, device=low_BK.device)
    coarse_RY = torch.full((len(query_R), width * (_TILE // _BLOCK)), torch.inf, device=low_BK.device)
    shape, n_processors = _device_of(low_BK)
    if n_tiles and width:
        wanted = n_tiles * width // (n_processors * _PROGRAMS_A_MULTIPROCESSOR)
        chunk = max(1, min(_MOST_TILES_A_PROGRAM, wanted))
        with torch.cuda.device_of(low_BK):
            _bin_minima_kernel[n_tiles, triton.cdiv(width, chunk)](
                low_BK.contiguous(),
                factor_B,
                low_WK,
                norm_W,
                query_R,
                first_T,
                last_T,
                fine_RX,
                coarse_RY,
                chunk,
                width,
                K=low_BK.shape[1],
                BLOCK_R=_QUERY_TILE,
                BLOCK_W=shape.block_w,
                BLOCK_K=shape.block_k,
                num_warps=shape.warps,
                num_stages=shape.stages,
            )
    return fine_RX, coarse_RY


def refine_minima(
    fine_RX: Tensor,
    coarse_RY: Tensor,
    limit_R: Tensor,
    query_R: Tensor,
    x_BD: Tensor,
    vectors_UD: Tensor,
    norm_U: Tensor,
    vector_W: Tensor,
) -> None:
    """See `gpu_select_kernels.knn.refine_minima`."""
    n_blocks = len(vector_W) // _BLOCK
    if len(fine_RX) and n_blocks:
        with torch.cuda.device_of(x_BD):
            _refine_kernel[len(fine_RX), triton.cdiv(n_blocks, _BLOCKS_A_PROGRAM)](
                fine_RX,
                coarse_RY,
                limit_R,
                query_R,
                x_BD.contiguous(),
                vectors_UD,
                norm_U,
                vector_W,
                coarse_RY.shape[1] // (_TILE // _BLOCK),
                n_blocks,
                D=x_BD.shape[1],
                BLOCKS=_BLOCKS_A_PROGRAM,
                BLOCK_D=_depth(x_BD.shape[1]),
                num_warps=4,
            )


def bin_distances(x_BD: Tensor, vectors_UD: Tensor, norm_U: Tensor, vector_W: Tensor, bin_Bm: Tensor) -> Tensor:
    """See `gpu_select_kernels.knn.bin_distances`."""
    n_queries, m = bin_Bm.shape
    out_Bmb = torch.empty((n_queries, m, _BIN), dtype=torch.float32, device=x_BD.device)
    if n_queries and m:
        with torch.cuda.device_of(x_BD):
            _bin_distances_kernel[n_queries, m](
                x_BD.contiguous(),
                vectors_UD,
                norm_U,
                vector_W,
                bin_Bm.contiguous(),
                out_Bmb,
                m,
                D=x_BD.shape[1],
                BLOCK_D=_depth(x_BD.shape[1]),
                num_warps=4,
            )
    return out_Bmb


def pair_distances(x_BD: Tensor, vectors_UD: Tensor, vector_Bn: Tensor, wanted_Bn: Tensor) -> Tensor:
    """See `gpu_select_kernels.knn.pair_distances`."""
    n_queries, n = vector_Bn.shape
    out_Bn = torch.empty((n_queries, n), dtype=torch.float64, device=x_BD.device)
    if n_queries and n:
        with torch.cuda.device_of(x_BD):
            _pair_distances_kernel[(n_queries * n,)](
                x_BD.contiguous(),
                vectors_UD,
                vector_Bn.contiguous(),
                wanted_Bn.contiguous().view(torch.uint8),
                out_Bn,
                n,
                D=x_BD.shape[1],
                BLOCK_D=_depth(x_BD.shape[1]),
                num_warps=2,
            )
    return out_Bn


def _depth(dim: int) -> int:
    return min(256, max(16, int(triton.next_power_of_2(dim))))


def _device_of(tensor: Tensor) -> tuple[_Shape, int]:
    """How the product is cut on a tensor's device, and the device's number of multiprocessors."""
    if not tensor.is_cuda:
        return _LARGE, 1
    properties = torch.cuda.get_device_properties(tensor.device)
    return _LARGE if properties.major in (9, 10) else _SMALL, properties.multi_processor_count


def _minima_entry(shape: _Shape, depth: int) -> tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]:
    floats = ("factor_ptr", "norm_ptr", "fine_ptr", "coarse_ptr")
    numbers = ("query_ptr", "first_ptr", "last_ptr")
    types = {"x_ptr": "*fp16:16", "u_ptr": "*fp16:16", "chunk": "i32", "width": "i32"}
    types |= dict.fromkeys(floats, "*fp32:16") | dict.fromkeys(numbers, "*i32:16")
    constants = {"K": depth, "BLOCK_R": _QUERY_TILE, "BLOCK_W": shape.block_w, "BLOCK_K": shape.block_k}
    return _bin_minima_kernel, types, constants, {"num_warps": shape.warps, "num_stages": shape.stages}


_POINTERS = dict.fromkeys(("x_ptr", "vectors_ptr", "norm_ptr", "fine_ptr", "coarse_ptr", "limit_ptr"), "*fp32:16")
_POINTERS |= dict.fromkeys(("vector_ptr", "bin_ptr", "query_ptr"), "*i32:16")
_NUMBERS = dict.fromkeys(("m", "n", "width", "n_blocks"), "i32")

COMPILED = [
    *(_minima_entry(shape, depth) for shape in (_LARGE, _SMALL) for depth in (1088, 448)),
    (
        _bin_distances_kernel,
        {**_POINTERS, **_NUMBERS, "out_ptr": "*fp32:16"},
        {"D": 1038, "BLOCK_D": 256},
        {"num_warps": 4},
    ),
    (
        _refine_kernel,
        {**_POINTERS, **_NUMBERS},
        {"D": 1038, "BLOCKS": _BLOCKS_A_PROGRAM, "BLOCK_D": 256},
        {"num_warps": 4},
    ),
    (
        _pair_distances_kernel,
        {**_POINTERS, **_NUMBERS, "vector_ptr": "*i64:16", "wanted_ptr": "*u8:16", "out_ptr": "*fp64:16"},
        {"D": 1038, "BLOCK_D": 256},
        {"num_warps": 2},
    ),
]
"""What runs on an H200, for a check that it compiles: kernel, argument types, constants, options."""
