"""The parts of the nearest-neighbour search: Triton against the reference, and the reference against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_select_kernels.knn import (
    BIN,
    BLOCK,
    TILE,
    bin_distances,
    bin_minima,
    interleaved,
    pair_distances,
    refine_minima,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.usefixtures("interpreted_loops")
each_impl = pytest.mark.parametrize("impl", ["torch", "triton"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stored(n_vectors, dim, n_places, seed=0):
    """Vectors, norms, and a storage in which every third place or so is empty."""
    vectors_UD = torch.randn(n_vectors, dim, generator=generator(seed))
    vector_W = torch.full((n_places,), -1, dtype=torch.int32)
    places = torch.randperm(n_places, generator=generator(seed))[:n_vectors].sort().values
    vector_W[places] = torch.arange(n_vectors, dtype=torch.int32)
    return vectors_UD.to(DEVICE), vectors_UD.square().sum(1).to(DEVICE), vector_W.to(DEVICE)


def test_interleaved_puts_every_eighth_place_of_a_block_into_one_bin():
    rows = interleaved(torch.arange(TILE)[:, None]).squeeze(1)
    assert torch.equal(rows.sort().values, torch.arange(TILE))
    assert torch.equal(rows[:BLOCK:8], torch.arange(BIN))
    assert torch.equal(rows[BLOCK + 3 :: 8], BLOCK + 3 * BIN + torch.arange(BIN))


@each_impl
@pytest.mark.parametrize(("n_queries", "depth", "n_tiles"), [(5, 64, 1), (131, 192, 3)])
def test_minima_over_bins_and_blocks(impl, n_queries, depth, n_tiles):
    x_BK = torch.randn(n_queries, depth, generator=generator(1)).half()
    u_WK = torch.randn(n_tiles * TILE, depth, generator=generator(2)).half()
    norm_W = torch.rand(n_tiles * TILE, generator=generator(3))
    norm_W[-70:] = torch.inf
    factor_B = 2.0 ** torch.randint(-3, 4, (n_queries,), generator=generator(4))
    query_R = torch.randint(n_queries, (3 * 128,), generator=generator(5)).int()
    # all tiles, none, and the last one only
    first_T, last_T = torch.tensor([0, 0, n_tiles - 1]).int(), torch.tensor([n_tiles, 0, n_tiles]).int()
    arguments = (x_BK, factor_B, interleaved(u_WK), interleaved(norm_W[:, None]).squeeze(1), query_R, first_T, last_T)
    fine_RX, coarse_RY = bin_minima(*(t.to(DEVICE) for t in arguments), width=n_tiles, impl=impl)
    assert fine_RX.shape == (384, n_tiles * 16)
    fine_RX, coarse_RY = fine_RX.cpu(), coarse_RY.cpu()
    value_RW = norm_W.double() - (factor_B.double()[:, None] * (x_BK.double() @ u_WK.double().T))[query_R.long()]
    expected_RX = value_RW.reshape(384, -1, BIN).amin(dim=2).float()
    expected_RY = value_RW.reshape(384, -1, BLOCK).amin(dim=2).float()
    for got, expected in ((fine_RX, expected_RX), (coarse_RY, expected_RY)):
        torch.testing.assert_close(got[:128], expected[:128], rtol=1e-4, atol=1e-3)
        width = got.shape[1] // n_tiles
        torch.testing.assert_close(got[256:, :width], expected[256:, -width:], rtol=1e-4, atol=1e-3)
    assert (coarse_RY[128:256] == torch.inf).all()
    assert (coarse_RY[256:, 2:] == torch.inf).all()


@each_impl
@pytest.mark.parametrize(("n_queries", "dim", "n_places"), [(3, 1, 128), (7, 300, 640)])
def test_distances_to_bins(impl, n_queries, dim, n_places):
    vectors_UD, norm_U, vector_W = stored(n_places * 2 // 3, dim, n_places)
    x_BD = torch.randn(n_queries, dim, generator=generator(1)).to(DEVICE)
    bin_Bm = torch.randint(-1, n_places // BIN, (n_queries, 5), generator=generator(2)).int().to(DEVICE)
    got = bin_distances(x_BD, vectors_UD, norm_U, vector_W, bin_Bm, impl=impl)
    assert got.shape == (n_queries, 5, BIN)
    vector_Bmb = vector_W.reshape(-1, BIN)[bin_Bm.clamp(min=0).long()].long()
    none = (vector_Bmb < 0) | (bin_Bm < 0)[:, :, None]
    expected = torch.cdist(x_BD.double(), vectors_UD.double()).square() - x_BD.double().square().sum(1, keepdim=True)
    expected = expected.gather(1, vector_Bmb.clamp(min=0).flatten(1)).view_as(got).masked_fill(none, torch.inf)
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-3)


@each_impl
def test_refined_minima(impl):
    n_places, dim = 640, 70
    vectors_UD, norm_U, vector_W = stored(500, dim, n_places)
    x_BD = torch.randn(3, dim, generator=generator(1)).to(DEVICE)
    query_R = torch.tensor([2, 0, 0, 1]).int().to(DEVICE)
    all_bins = torch.arange(n_places // BIN, device=DEVICE).int().expand(3, -1).contiguous()
    true_BX = bin_distances(x_BD, vectors_UD, norm_U, vector_W, all_bins).amin(dim=2)
    true_RX = true_BX[query_R.long()]
    noise = 0.1 * torch.randn(true_RX.shape, generator=generator(3)).to(DEVICE)
    width = -(-n_places // TILE)
    fine_RX = torch.full((4, width * 16), torch.nan, device=DEVICE)
    coarse_RY = torch.full((4, width * 2), torch.inf, device=DEVICE)
    fine_RX[:, : n_places // BIN] = true_RX + noise
    coarse_RY[:, : n_places // BLOCK] = (true_RX + noise).reshape(4, -1, BLOCK // BIN).amin(dim=2)
    before = fine_RX.clone(), coarse_RY.clone()
    middle = float(true_RX.median())
    limit_R = torch.tensor([middle, -torch.inf, float(true_RX.min()) - 9, torch.inf]).to(DEVICE)
    refine_minima(fine_RX, coarse_RY, limit_R, query_R, x_BD, vectors_UD, norm_U, vector_W, impl=impl)
    assert torch.equal(fine_RX[1].nan_to_num(), before[0][1].nan_to_num())
    assert torch.equal(coarse_RY[1], before[1][1])
    assert (coarse_RY[2] == torch.inf).all()
    for place in (0, 3):
        matters_X = before[0][place, : n_places // BIN] <= limit_R[place]
        expected_X = true_RX[place].masked_fill(~matters_X, torch.inf)
        expected_Y = expected_X.reshape(-1, BLOCK // BIN).amin(dim=1)
        got_Y = coarse_RY[place, : len(expected_Y)]
        torch.testing.assert_close(got_Y, expected_Y, rtol=1e-5, atol=1e-4)
        seen_X = (got_Y < torch.inf).repeat_interleave(BLOCK // BIN)
        got_X = fine_RX[place, : n_places // BIN][seen_X]
        torch.testing.assert_close(got_X, expected_X[seen_X], rtol=1e-5, atol=1e-4)


@each_impl
@pytest.mark.parametrize(("n_queries", "dim", "n"), [(1, 1, 1), (9, 1038, 5)])
def test_distances_of_pairs(impl, n_queries, dim, n):
    vectors_UD = torch.randn(50, dim, generator=generator(1)).to(DEVICE)
    x_BD = vectors_UD[:n_queries] + 1e-4 * torch.randn(n_queries, dim, generator=generator(2)).to(DEVICE)
    vector_Bn = torch.randint(50, (n_queries, n), generator=generator(3)).to(DEVICE)
    wanted_Bn = torch.rand(n_queries, n, generator=generator(4)).to(DEVICE) < 0.7
    wanted_Bn[0, 0] = True
    got = pair_distances(x_BD, vectors_UD, vector_Bn, wanted_Bn, impl=impl)
    expected = (x_BD[:, None].double() - vectors_UD[vector_Bn].double()).square().sum(2)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected.masked_fill(~wanted_Bn, torch.inf), rtol=1e-13, atol=0)
    single = pair_distances(x_BD, vectors_UD, vector_Bn, wanted_Bn, dtype=torch.float32, impl=impl)
    assert single.dtype == torch.float32


@each_impl
def test_nothing_to_do(impl):
    vectors_UD, norm_U, vector_W = stored(100, 5, 256)
    x_BD = torch.zeros(0, 5, device=DEVICE)
    none = torch.zeros(0, 3, device=DEVICE)
    assert bin_distances(x_BD, vectors_UD, norm_U, vector_W, none.int(), impl=impl).shape == (0, 3, BIN)
    assert pair_distances(x_BD, vectors_UD, none.long(), none.bool(), impl=impl).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"low_BK": torch.zeros(2, 64)}, "expected float16 queries and vectors, got torch.float32"),
        ({"low_BK": torch.zeros(2, 32).half()}, r"K a multiple of 64 and W of 256; got \(2, 32\) and \(256, 64\)"),
        ({"low_WK": torch.zeros(128, 64).half()}, r"got \(2, 64\) and \(128, 64\)"),
        ({"factor_B": torch.ones(3)}, r"a factor a query and a norm a vector, got \(3,\) for 2"),
        ({"query_R": torch.zeros(5).int()}, "expected 128 places a tile of queries, got 5 for 1"),
    ],
)
def test_other_shapes_are_refused(change, text):
    good = {
        "low_BK": torch.zeros(2, 64).half(),
        "factor_B": torch.ones(2),
        "low_WK": torch.zeros(256, 64).half(),
        "norm_W": torch.zeros(256),
        "query_R": torch.zeros(128).int(),
        "first_T": torch.zeros(1).int(),
        "last_T": torch.ones(1).int(),
    }
    with pytest.raises(ValueError, match=text):
        bin_minima(*(good | change).values(), width=1)


SASS_OF_THE_PRODUCT = """
import subprocess
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import compile_kernels
from gpu_select_kernels.knn_triton import COMPILED
kernel, types, constants, options = COMPILED[0]
types = {name: kind for name, kind in types.items() if name in kernel.arg_names}
made = compile_kernels.compiled(kernel, types, constants, options, compile_kernels.GPUTarget("cuda", 90, 32))
Path("kernel.cubin").write_bytes(made.asm["cubin"])
tool = compile_kernels.TOOLS / "nvdisasm"
print(subprocess.run([tool, "-c", "kernel.cubin"], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.slow
def test_the_assembler_leaves_the_tensor_core_products_in(tmp_path):
    """ptxas 12.8 drops them, and all that depends on them, where it unrolls the inner of two loops."""
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm").exists():
        pytest.skip("needs a triton that brings nvdisasm")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    kernels = Path(__file__).parents[2] / "kernels"
    environment |= {"PYTHONPATH": str(kernels), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SASS_OF_THE_PRODUCT, str(Path(__file__).parent)]
    sass = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert sass.count("HGMMA.64x256x16.F32") == 4
    assert "HGMMA.64x8x16" not in sass
