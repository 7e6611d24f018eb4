"""The search for CUDA, on the CPU: the same rows as in float64, whether or not float16 was enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_select_kernels import knn as kernels

from gpu_select.selectors import knn_bins
from gpu_select.selectors.knn_bins import BinSearch
from gpu_select.selectors.knn_flat import Float32Search
from gpu_select.selectors.knn_groups import TailGroups, distinct_by_tail
from gpu_select.selectors.knn_search import RowIndex

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.usefixtures("interpreted_loops")
each_impl = pytest.mark.parametrize("impl", ["torch", "triton"])


def features(n, dim, seed, *, n_domains=0, spread=1.0):
    """Unit vectors, and behind them the one-hot of a domain."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randn(n, dim, generator=generator)
    heads = spread * heads / torch.linalg.vector_norm(heads, dim=1, keepdim=True)
    if not n_domains:
        return heads
    return torch.cat([heads, torch.eye(n_domains)[torch.randint(n_domains, (n,), generator=generator)]], dim=1)


def search_over(rows_ND, impl, n_tail=0):
    vectors_UD, _, _ = distinct_by_tail(rows_ND, n_tail)
    groups = TailGroups.of(vectors_UD, n_tail)
    exact = Float32Search(vectors_UD).to(DEVICE)
    return BinSearch(exact, None if groups is None else groups.to(DEVICE), impl)


def counted(monkeypatch):
    """How many queries look at anything in a pass, and how many are left for float32."""
    counts = {"passes": [], "left": 0}

    def minima(low_BK, factor_B, low_WK, norm_W, query_R, first_T, last_T, **options):
        busy_R = (last_T > first_T).repeat_interleave(kernels.QUERY_TILE)
        counts["passes"].append(len(query_R[busy_R].unique()))
        return kernels.bin_minima(low_BK, factor_B, low_WK, norm_W, query_R, first_T, last_T, **options)

    def refine(fine_RX, coarse_RY, limit_R, *others, **options):
        counts["left"] += int((limit_R > -torch.inf).sum())
        kernels.refine_minima(fine_RX, coarse_RY, limit_R, *others, **options)

    monkeypatch.setattr(knn_bins, "bin_minima", minima)
    monkeypatch.setattr(knn_bins, "refine_minima", refine)
    return counts


def assert_closest(search, x_BD, k, n):
    """The k proposals are no farther than the k closest, up to float32 rounding, and their values are right."""
    approx_Bn, vector_Bn = search(x_BD.to(DEVICE), k, n, None)
    assert approx_Bn.shape == vector_Bn.shape == (len(x_BD), n)
    vectors_UD = search._exact.vectors.double().cpu()
    squared_BU = torch.cdist(x_BD.double(), vectors_UD, compute_mode="donot_use_mm_for_euclid_dist").square()
    approx_Bn, vector_Bn = approx_Bn.cpu(), vector_Bn.cpu()
    true_Bn = squared_BU.gather(1, vector_Bn)
    error_B1 = search._exact.error(x_BD.to(DEVICE)).double().cpu()
    off_Bn = approx_Bn + x_BD.double().square().sum(1, keepdim=True) - true_Bn
    assert (off_Bn.abs() <= error_B1)[approx_Bn < torch.inf].all()
    assert (approx_Bn[:, 1:] >= approx_Bn[:, :-1]).all()
    best_Bk = squared_BU.topk(k, dim=1, largest=False).values
    assert (true_Bn[:, :k].sort(dim=1).values - best_Bk <= 2 * error_B1).all()
    for found, valid in zip(vector_Bn.tolist(), (approx_Bn < torch.inf).tolist(), strict=True):
        kept = [vector for vector, is_valid in zip(found, valid, strict=True) if is_valid]
        assert len(set(kept)) == len(kept)


@each_impl
@pytest.mark.parametrize(
    ("n_rows", "dim", "n_queries", "k"), [(1, 3, 1, 1), (255, 64, 5, 3), (1300, 65, 7, 7), (900, 150, 3, 40)]
)
def test_the_closest_among_all(impl, n_rows, dim, n_queries, k):
    search = search_over(features(n_rows, dim, 1), impl)
    k = min(k, n_rows)
    assert_closest(search, features(n_queries, dim, 2), k, min(k + 16, n_rows))


@each_impl
@pytest.mark.parametrize(("spread", "n_queries"), [(0.6, 9), (1.0, 17)])
def test_the_closest_where_domains_are_searched_first(impl, spread, n_queries):
    search = search_over(features(1500, 40, 1, n_domains=5, spread=spread), impl, n_tail=5)
    x_BD = features(n_queries, 40, 2, n_domains=5, spread=spread)
    x_BD[0, 40:] = 0.2  # a tail that no vector has
    assert_closest(search, x_BD, 5, 21)


def test_the_closest_for_several_tiles_of_queries():
    search = search_over(features(3000, 40, 1, n_domains=5), "torch", n_tail=5)
    assert_closest(search, features(700, 40, 2, n_domains=5), 5, 21)


def test_spread_vectors_are_decided_in_float16_and_within_their_domain(monkeypatch):
    counts = counted(monkeypatch)
    search = search_over(features(6000, 64, 1, n_domains=4, spread=0.6), "torch", n_tail=4)
    search(features(90, 64, 2, n_domains=4, spread=0.6).to(DEVICE), 3, 19, None)
    assert counts == {"passes": [90, 0], "left": 0}


@each_impl
@pytest.mark.parametrize("n_tail", [0, 3])
def test_vectors_closer_to_each_other_than_float16_can_tell(monkeypatch, impl, n_tail):
    """Far more bins within the bound than are proposed, in one domain at least: these are done in float32."""
    counts = counted(monkeypatch)
    rows_ND = features(700, 30, 1, n_domains=3)
    rows_ND[:400] = rows_ND[0]
    rows_ND[:400, :30] += 0.03 * features(400, 30, 3)
    search = search_over(rows_ND, impl, n_tail)
    x_BD = torch.cat([rows_ND[:5], rows_ND[-9:]])
    x_BD[:5, :30] += 0.03 * features(5, 30, 4)
    assert_closest(search, x_BD, 2, 18)
    assert 5 <= counts["left"] < 14
    index = RowIndex(rows_ND, torch.zeros(len(rows_ND)).long(), 1, "torch").to(DEVICE)
    expected_Bk = index(x_BD.to(DEVICE), 2)
    monkeypatch.setattr(RowIndex, "_search", lambda self, x, n, masked: BinSearch(self.flat, self.groups, impl))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(index(x_BD.to(DEVICE), 2), expected_Bk)


@pytest.mark.parametrize(("impl", "scale"), [("torch", 1e-30), ("torch", 1e-15), ("triton", 1e-15), ("triton", 1e15)])
def test_numbers_of_any_size(impl, scale):
    rows_ND, x_BD = scale * features(700, 20, 1), scale * features(6, 20, 2)
    approx_Bn, _ = search_over(rows_ND, impl)(x_BD.to(DEVICE), 3, 19, None)
    assert not approx_Bn.isnan().any()
    if scale > 1e-30:  # squares of less are zero in float32
        assert_closest(search_over(rows_ND, impl), x_BD, 3, 19)


def test_queries_of_zeros_and_of_numbers_far_apart():
    rows_ND = features(700, 20, 1) * 10.0 ** torch.randint(-6, 6, (700, 1), generator=torch.Generator().manual_seed(2))
    x_BD = features(9, 20, 3)
    x_BD[0] = 0
    x_BD[1, 3:] *= 1e-9
    assert_closest(search_over(rows_ND, "torch"), x_BD, 4, 20)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_no_float16_value_is_farther_off_than_the_bound(scale):
    rows_ND, x_BD = scale * features(512, 77, 1), scale * features(40, 77, 2)
    rows_ND[::3] *= 0.01
    search = search_over(rows_ND, "torch")
    low = search._round(x_BD.to(DEVICE))
    group_B = torch.zeros(40, dtype=torch.int64, device=DEVICE)
    minima = search._minima(low, group_B, search._first_all, search._last_all, 2)
    vectors_UD = search._exact.vectors.double()
    value_BU = vectors_UD.square().sum(1) - 2 * x_BD.double().to(DEVICE) @ vectors_UD.T
    expected_BX = value_BU.reshape(40, -1, 16).amin(dim=2)
    off_BX = (minima.fine_RX[minima.place_B] - expected_BX).abs()
    assert (off_BX <= low.error_B1).all()
    assert off_BX.max() > 1e-3 * low.error_B1.min(), "a bound that says something"


def test_a_bound_that_is_too_small_is_noticed(monkeypatch):
    """Without the bound, queries count as sure that are not: the checks above can fail."""
    rows_ND = 1e-4 * features(1200, 30, 1)
    rows_ND[:, 0] += 1
    search = search_over(rows_ND, "torch")
    round_queries = search._round
    monkeypatch.setattr(search, "_round", lambda x: (low := round_queries(x))._replace(error_B1=0 * low.error_B1))
    x_BD = 1e-4 * features(20, 30, 2)
    x_BD[:, 0] += 1
    monkeypatch.setattr(search._exact, "error", lambda x: torch.zeros(len(x), 1, device=x.device))
    with pytest.raises(AssertionError):
        assert_closest(search, x_BD, 2, 18)


@pytest.mark.parametrize("n_queries", [1, 2, 127, 128, 129, 300])
def test_each_tile_of_queries_is_of_one_group(n_queries):
    search = search_over(features(900, 8, 1, n_domains=3), "torch", n_tail=3)
    group_B = torch.randint(3, (n_queries,), generator=torch.Generator().manual_seed(n_queries)).to(DEVICE)
    low = search._round(features(n_queries, 8, 2, n_domains=3).to(DEVICE))
    minima = search._minima(low, group_B, search._first_G, search._last_G, search._largest)
    assert len(minima.place_B.unique()) == n_queries
    assert torch.equal(minima.query_R[minima.place_B].cpu(), torch.arange(n_queries).int())
    tile_B = minima.place_B // kernels.QUERY_TILE
    for tile in tile_B.unique():
        assert len(group_B[tile_B == tile].unique()) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n_domains", [0, 14])
@pytest.mark.parametrize(("n_queries", "k"), [(1, 5), (700, 5), (5000, 33)])
def test_cuda_finds_what_a_flat_float32_search_finds(n_domains, n_queries, k):
    rows_ND = features(70_001, 200, 1, n_domains=n_domains).numpy()
    rows_ND[35_000:35_500, :200] = rows_ND[:500, :200] + np.float32(1e-6)
    index = RowIndex(torch.from_numpy(rows_ND), torch.zeros(len(rows_ND)).long(), 1, "torch", n_domains).cuda()
    x_BD = features(n_queries, 200, 2, n_domains=n_domains).cuda()
    x_BD[: n_queries // 3] = torch.from_numpy(rows_ND[: n_queries // 3]).cuda()
    assert isinstance(index._search(x_BD, k + 16, masked=False), BinSearch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows_Bk = index(x_BD, k)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    index._search = lambda x, n, masked: index.flat
    assert torch.equal(rows_Bk, index(x_BD, k))
