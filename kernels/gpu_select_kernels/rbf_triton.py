"""rbf_decision in Triton: distances, exponentials and weighted sums tile by tile, none of B x S in global memory.

Float32 products run on the tensor cores as three TF32 products (Ootomo and Yokota, 2022, arXiv:2203.03341). Both sides
are split beforehand into what TF32 holds and the rest, in rows padded to whole tiles: the inner loop is then loads of
16 bytes and tensor-core products, without masks, conversions or addresses that do not line up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

__all__ = ["COMPILED", "prepare_vectors", "rbf_decision"]

_TILES_A_SUM = 32
"""Tiles of support vectors whose sums are added at once."""
_MOST_PARTIAL_SUMS = 1 << 26
"""Held at once, over all tiles of support vectors: 256 MB."""
_MOST_COLUMNS = 64
"""Classifiers a launch."""
_ROW_TILE = 128
"""Support vectors are padded to a multiple: every size of a tile divides it."""
_SPLIT_ROWS = 16
"""Rows that a program splits; every tile size is a multiple."""
_DEPTH = 32
"""Dimensions are padded to a multiple, and those of one step's two parts lie side by side."""


@triton.jit
def _tf32_part(x):
    # TF32 keeps 10 of the 23 bits of the fraction: the others are rounded away. The rest is exact, and has 12 bits.
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["n_rows"])
def _split_kernel(
    x_ptr,
    split_ptr,
    square_ptr,
    stride,
    n_rows,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    IN_TWO: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    PARTS: tl.constexpr = 2 if IN_TWO else 1
    row_R = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    square_R = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(0, D_PAD, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside_RD = (row_R < n_rows)[:, None] & (d < D)[None, :]
        x_RD = tl.load(x_ptr + row_R[:, None] * stride + d[None, :], mask=inside_RD, other=0.0)
        square_R += tl.sum(x_RD * x_RD, axis=1)
        place_D = d // DEPTH * (PARTS * DEPTH) + d % DEPTH
        split_RD = split_ptr + row_R[:, None] * (PARTS * D_PAD) + place_D[None, :]
        padded_RD = (row_R >= 0)[:, None] & (d < D_PAD)[None, :]
        if IN_TWO:
            big_RD = _tf32_part(x_RD)
            tl.store(split_RD, big_RD, mask=padded_RD)
            tl.store(split_RD + DEPTH, x_RD - big_RD, mask=padded_RD)
        else:
            tl.store(split_RD, x_RD, mask=padded_RD)
    tl.store(square_ptr + row_R, square_R)


@triton.jit(do_not_specialize=["minus_gamma"])
def _rbf_kernel(
    x_ptr,
    x_square_ptr,
    vectors_ptr,
    norms_ptr,
    coefficients_ptr,
    partial_ptr,
    n_x,
    minus_gamma,
    D_PAD: tl.constexpr,
    IN_TWO: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    PARTS: tl.constexpr = 2 if IN_TWO else 1
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    d = tl.arange(0, BLOCK_D)
    r = tl.arange(0, BLOCK_R)
    x_BD = x_ptr + b.to(tl.int64)[:, None] * (PARTS * D_PAD) + d[None, :]
    x_square_B = tl.load(x_square_ptr + b)
    vectors_DS = vectors_ptr + s.to(tl.int64)[None, :] * (PARTS * D_PAD) + d[:, None]
    dot_BS = tl.zeros((BLOCK_B, BLOCK_S), tl.float32)
    for start in range(0, PARTS * D_PAD, PARTS * BLOCK_D):
        x_big_BD = tl.load(x_BD + start)
        vectors_big_DS = tl.load(vectors_DS + start)
        if IN_TWO:
            x_small_BD = tl.load(x_BD + start + BLOCK_D)
            vectors_small_DS = tl.load(vectors_DS + start + BLOCK_D)
            # Tensor cores cut off what their sums cannot hold, always towards zero: a sum over all of D would drift.
            step_BS = tl.dot(x_small_BD, vectors_big_DS, input_precision="tf32")
            step_BS = tl.dot(x_big_BD, vectors_small_DS, step_BS, input_precision="tf32")
            dot_BS += tl.dot(x_big_BD, vectors_big_DS, step_BS, input_precision="tf32")
        else:
            dot_BS = tl.dot(x_big_BD, vectors_big_DS, dot_BS, input_precision="ieee")
    # rounding can take a distance of zero below it
    distance_BS = tl.maximum(x_square_B[:, None] + tl.load(norms_ptr + s)[None, :] - 2.0 * dot_BS, 0.0)
    kernel_BS = tl.exp(minus_gamma * distance_BS)
    coefficients_SR = coefficients_ptr + s[:, None] * (PARTS * BLOCK_R) + r[None, :]
    big_SR = tl.load(coefficients_SR)
    if IN_TWO:
        small_SR = tl.load(coefficients_SR + BLOCK_R)
        kernel_big_BS = _tf32_part(kernel_BS)
        sum_BR = tl.dot(kernel_BS - kernel_big_BS, big_SR, input_precision="tf32")
        sum_BR = tl.dot(kernel_big_BS, small_SR, sum_BR, input_precision="tf32")
        sum_BR = tl.dot(kernel_big_BS, big_SR, sum_BR, input_precision="tf32")
    else:
        sum_BR = tl.dot(kernel_BS, big_SR, input_precision="ieee")
    tl.store(partial_ptr + (tl.program_id(1).to(tl.int64) * n_x + b)[:, None] * BLOCK_R + r[None, :], sum_BR)


@triton.jit
def _sum_kernel(
    partial_ptr,
    out_ptr,
    out_stride,
    n_x,
    N_TILES: tl.constexpr,
    R: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    r = tl.arange(0, BLOCK_R)
    sum_R = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(0, N_TILES, BLOCK_C):
        part_CR = partial_ptr + ((start + c).to(tl.int64) * n_x + b)[:, None] * BLOCK_R + r[None, :]
        inside_CR = (start + c < N_TILES)[:, None] & (r < R)[None, :]
        sum_R += tl.sum(tl.load(part_CR, mask=inside_CR, other=0.0), axis=0)
    tl.store(out_ptr + b * out_stride + r, sum_R, mask=r < R)


class PreparedVectors(NamedTuple):
    """Support vectors as the kernel reads them: padded by some at the origin, without weight."""

    parts: Tensor
    """(padded S, padded D in one or two parts) float32."""
    norms: Tensor
    """(padded S,) float32."""
    coefficients: list[Tensor]
    """(padded S, padded columns in one or two parts) float32 each, for 64 columns at a time."""
    n_columns: int
    precision: str


def prepare_vectors(vectors_SD: Tensor, norms_S: Tensor, coefficients_SR: Tensor, precision: str) -> PreparedVectors:
    """`rbf.prepare_vectors` after its checks."""
    with torch.cuda.device_of(vectors_SD):
        parts, _ = _split(vectors_SD, precision, _ROW_TILE)
    padding = len(parts) - len(vectors_SD)
    groups = []
    for columns_SC in coefficients_SR.split(_MOST_COLUMNS, dim=1):
        width = max(16, triton.next_power_of_2(columns_SC.shape[1]))
        padded_SC = functional.pad(columns_SC, (0, width - columns_SC.shape[1], 0, padding))
        if precision == "tf32x3":
            big_SC = ((padded_SC.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
            padded_SC = torch.cat([big_SC, padded_SC - big_SC], dim=1)
        groups.append(padded_SC.contiguous())
    norms_s = functional.pad(norms_S, (0, padding)).contiguous()
    return PreparedVectors(parts, norms_s, groups, coefficients_SR.shape[1], precision)


def rbf_decision(x_BD: Tensor, prepared: PreparedVectors, gamma: float) -> Tensor:
    """`rbf.rbf_decision` after its checks."""
    out_BR = x_BD.new_empty(len(x_BD), prepared.n_columns)
    if not len(prepared.norms):
        return out_BR.zero_()
    blocks, options = _blocks(x_BD.device, prepared.precision)
    n_tiles = len(prepared.norms) // blocks["BLOCK_S"]
    widths = [group.shape[1] // _n_parts(prepared.precision) for group in prepared.coefficients]
    most_rows = (
        max(1, _MOST_PARTIAL_SUMS // (n_tiles * max(widths, default=1)) // blocks["BLOCK_B"]) * blocks["BLOCK_B"]
    )
    with torch.cuda.device_of(x_BD):
        for start in range(0, len(x_BD), most_rows):
            x_bD = x_BD[start : start + most_rows]
            parts, square_b = _split(x_bD, prepared.precision, blocks["BLOCK_B"])
            for group, (coefficients, width) in enumerate(zip(prepared.coefficients, widths, strict=True)):
                out_bC = out_BR[start : start + most_rows, group * _MOST_COLUMNS : (group + 1) * _MOST_COLUMNS]
                partial = x_BD.new_empty(n_tiles, len(parts), width)
                _rbf_kernel[(len(parts) // blocks["BLOCK_B"], n_tiles)](
                    parts,
                    square_b,
                    prepared.parts,
                    prepared.norms,
                    coefficients,
                    partial,
                    len(parts),
                    -gamma,
                    D_PAD=parts.shape[1] // _n_parts(prepared.precision),
                    IN_TWO=prepared.precision == "tf32x3",
                    BLOCK_R=width,
                    **blocks,
                    **options,
                )
                _sum_kernel[(len(out_bC),)](
                    partial,
                    out_bC,
                    out_bC.stride(0),
                    len(parts),
                    N_TILES=n_tiles,
                    R=out_bC.shape[1],
                    BLOCK_R=width,
                    BLOCK_C=_TILES_A_SUM,
                    num_warps=2,
                )
    return out_BR


def _split(x_XD: Tensor, precision: str, multiple: int) -> tuple[Tensor, Tensor]:
    """Rows as the kernel reads them, as many as the next multiple, and the squares of their norms."""
    X, D = x_XD.shape
    if x_XD.stride(1) != 1:
        x_XD = x_XD.contiguous()
    padded_x, padded_d = triton.cdiv(X, multiple) * multiple, triton.cdiv(D, _DEPTH) * _DEPTH
    parts = x_XD.new_empty(padded_x, _n_parts(precision) * padded_d)
    square_X = x_XD.new_empty(padded_x)
    if X:
        _split_kernel[(padded_x // _SPLIT_ROWS,)](
            x_XD,
            parts,
            square_X,
            x_XD.stride(0),
            X,
            D=D,
            D_PAD=padded_d,
            IN_TWO=precision == "tf32x3",
            DEPTH=_DEPTH,
            BLOCK_R=_SPLIT_ROWS,
            BLOCK_D=128,
            num_warps=4,
        )
    return parts, square_X


def _n_parts(precision: str) -> int:
    return 2 if precision == "tf32x3" else 1


def _blocks(device: torch.device, precision: str) -> tuple[dict[str, int], dict[str, int]]:
    """Tile sizes by device, never by batch: a row's bits depend on them."""
    # a multiprocessor of the data-centre chips from Hopper on has 227 KB of shared memory; of others, 99 KB or more
    large = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in (9, 10)
    return _blocks_of(large, precision)


def _blocks_of(large: bool, precision: str) -> tuple[dict[str, int], dict[str, int]]:
    if precision == "ieee":
        return {"BLOCK_B": 64, "BLOCK_S": 64, "BLOCK_D": 16}, {"num_warps": 8, "num_stages": 3}
    size = 128 if large else 64
    return {"BLOCK_B": size, "BLOCK_S": size, "BLOCK_D": _DEPTH}, {"num_warps": 8, "num_stages": 3}


def _compiled(precision: str, large: bool, width: int) -> tuple[Any, ...]:
    pointers = ("x_ptr", "x_square_ptr", "vectors_ptr", "norms_ptr", "coefficients_ptr", "partial_ptr")
    signature = {**dict.fromkeys(pointers, "*fp32:16"), "n_x": "i32:16", "minus_gamma": "fp32"}
    blocks, options = _blocks_of(large, precision)
    constants = {"D_PAD": 1056, "IN_TWO": precision == "tf32x3", "BLOCK_R": width, **blocks}
    return _rbf_kernel, signature, constants, options


COMPILED = [
    (
        _split_kernel,
        {"x_ptr": "*fp32:16", "split_ptr": "*fp32:16", "square_ptr": "*fp32:16", "stride": "i32", "n_rows": "i32"},
        {"D": 1038, "D_PAD": 1056, "IN_TWO": True, "DEPTH": _DEPTH, "BLOCK_R": _SPLIT_ROWS, "BLOCK_D": 128},
        {"num_warps": 4},
    ),
    _compiled("tf32x3", True, 16),
    _compiled("tf32x3", False, 16),
    _compiled("tf32x3", False, 64),
    _compiled("ieee", True, 16),
    (
        _sum_kernel,
        {"partial_ptr": "*fp32:16", "out_ptr": "*fp32:16", "out_stride": "i32", "n_x": "i32:16"},
        {"N_TILES": 235, "R": 6, "BLOCK_R": 16, "BLOCK_C": _TILES_A_SUM},
        {"num_warps": 2},
    ),
]
"""What is compiled ahead in tests: kernel, signature (:16 for what is divisible by 16), constants, options."""
