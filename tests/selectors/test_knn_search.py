"""Rows are those of exact arithmetic, the lower row first at equal distance, by either backend."""

from __future__ import annotations

import copy
import importlib.util
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.errors import MissingDependencyError
from gpu_select.selectors import KNNSelector, knn_flat, knn_search
from gpu_select.selectors.knn_bins import BinSearch
from gpu_select.selectors.knn_flat import has_fast_bfloat16
from gpu_select.selectors.knn_search import RowIndex

N_LABELS = 4
COORDINATES = st.sampled_from([0.0, -0.0, 1.0, -1.0])

needs_bfloat16 = pytest.mark.skipif(not has_fast_bfloat16(), reason="needs bfloat16 products")
each_way = pytest.mark.parametrize(
    "way",
    [
        "float32",
        pytest.param("bfloat16", marks=needs_bfloat16),
        pytest.param("faiss", marks=pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss")),
        "device",
        "bins",
        "exported",
    ],
)
"""How neighbours are proposed, and as on a device: without any look at the numbers."""
LOOKS_AWAY = ("device", "bins", "exported")


def brute_force(rows_ND, labels_N, queries_BD, k, masks_BM=None):
    """The k first rows by (exact distance, row) among the allowed ones, ascending, padded with N."""
    out = []
    for b, query in enumerate(queries_BD.astype(np.float64)):
        squared = ((rows_ND.astype(np.float64) - query) ** 2).sum(axis=1)
        order = np.argsort(squared, kind="stable")
        if masks_BM is not None:
            order = order[masks_BM[b][labels_N[order]]]
        found = sorted(order[:k].tolist())
        out.append(found + [len(rows_ND)] * (min(k, len(rows_ND)) - len(found)))
    return out


def search(way, rows_ND, labels_N, queries_BD, k, masks_BM=None, n_tail=0):
    masks = None if masks_BM is None else torch.from_numpy(masks_BM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_search, "_FEW_VECTORS", 1)
        patch.setattr(knn_search, "has_fast_bfloat16", lambda: way == "bfloat16")
        patch.setattr(torch.compiler, "is_compiling", lambda: way in LOOKS_AWAY)
        patch.setattr(torch.compiler, "is_exporting", lambda: way == "exported")
        if way == "bins" and masks is None:
            patch.setattr(RowIndex, "_search", lambda self, x, n, masked: BinSearch(self.flat, self.groups, "torch"))
        backend = "faiss" if way == "faiss" else "torch"
        patch.setattr(knn_flat, "_FEW_QUERIES", 0)
        index = RowIndex(torch.from_numpy(rows_ND), torch.from_numpy(labels_N), N_LABELS, backend, n_tail)
        return index(torch.from_numpy(queries_BD), k, masks).tolist()


@st.composite
def problems(draw):
    """Few different points, many rows and ties, a mask for each query or none, and k up to more than there are."""
    n, dim, n_queries = draw(st.integers(1, 40)), draw(st.integers(1, 2)), draw(st.integers(0, 5))
    rows_ND = draw(hnp.arrays(np.float32, (n, dim), elements=COORDINATES))
    labels_N = draw(hnp.arrays(np.int64, n, elements=st.integers(0, N_LABELS - 1)))
    queries_BD = draw(hnp.arrays(np.float32, (n_queries, dim), elements=COORDINATES))
    masks_BM = draw(st.none() | hnp.arrays(np.bool_, (n_queries, N_LABELS)))
    return rows_ND, labels_N, queries_BD, draw(st.integers(1, n + 5)), masks_BM


@each_way
@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_rows_on_a_small_grid(way, problem):
    assert search(way, *problem) == brute_force(*problem)


@each_way
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "dim", "k"), [(3001, 7, 1), (3001, 7, 5), (2500, 9, 40), (40, 3, 64)])
def test_rows_where_hundreds_of_points_are_equally_close(way, masked, n, dim, k):
    if n > 40 and way in LOOKS_AWAY:
        pytest.skip("more near-ties than are proposed may be cut short there")
    rng = np.random.default_rng(n + k)
    rows_ND = rng.integers(-1, 2, (n, dim)).astype(np.float32)
    labels_N = rng.integers(0, N_LABELS, n)
    queries_BD = rng.integers(-1, 2, (33, dim)).astype(np.float32)
    masks_BM = rng.random((33, N_LABELS)) < 0.5 if masked else None
    problem = rows_ND, labels_N, queries_BD, k, masks_BM
    assert search(way, *problem) == brute_force(*problem)


@each_way
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_rows_that_float32_cannot_order(way, offset):
    """Neighbours one step of float32 apart; far from zero, all of them are closer than what a product resolves."""
    if offset and way in LOOKS_AWAY:
        pytest.skip("more near-ties than are proposed may be cut short there")
    rng = np.random.default_rng(5)
    rows_ND = np.repeat(rng.normal(size=(100, 24)), 15, axis=0).astype(np.float32) + np.float32(offset)
    for i in range(15):
        rows_ND[i::15, 3] += np.spacing(rows_ND[i::15, 3]) * (7 - i)
    rows_ND = rows_ND[rng.permutation(len(rows_ND))]
    labels_N = rng.integers(0, N_LABELS, len(rows_ND))
    queries_BD = rows_ND[::50] + rng.normal(scale=1e-3, size=(30, 24)).astype(np.float32)
    problem = rows_ND, labels_N, queries_BD, 11, None
    assert search(way, *problem) == brute_force(*problem)


@each_way
@pytest.mark.parametrize("seed", range(12))
def test_rows_of_any_scale_and_spread(way, seed):
    """From points all around zero to points so close together and far from it that their products are alike."""
    rng = np.random.default_rng(seed)
    dim, n, k = int(rng.choice([3, 64, 300])), int(rng.choice([50, 1500])), int(rng.integers(1, 30))
    scale, spread = 10.0 ** rng.uniform(-3, 3), 10.0 ** rng.uniform(-0.5 if way in LOOKS_AWAY else -7, 0)
    middle = rng.normal(size=(1, dim))
    rows_ND = scale * (middle + spread * rng.normal(size=(n, dim)) * 10 ** rng.uniform(-2, 0, size=(n, 1)))
    queries_BD = (scale * (middle + spread * rng.normal(size=(20, dim)))).astype(np.float32)
    masks_BM = rng.random((20, N_LABELS)) < 0.5 if seed % 2 else None
    problem = rows_ND.astype(np.float32), rng.integers(0, N_LABELS, n), queries_BD, k, masks_BM
    assert search(way, *problem) == brute_force(*problem)


@each_way
def test_blocks_do_not_change_rows(monkeypatch, way):
    rng = np.random.default_rng(1)
    rows_ND, labels_N = rng.normal(size=(200, 8)).astype(np.float32), rng.integers(0, N_LABELS, 200)
    queries_BD, masks_BM = rng.normal(size=(17, 8)).astype(np.float32), rng.random((17, N_LABELS)) < 0.5
    monkeypatch.setitem(knn_search._BLOCK_BYTES, "cpu", 4 * 200 * 5)
    monkeypatch.setattr(knn_search, "_PAIRS", 3)
    for masks in (None, masks_BM):
        problem = rows_ND, labels_N, queries_BD, 7, masks
        assert search(way, *problem) == brute_force(*problem)


@each_way
def test_one_query_at_a_time_finds_the_same_rows(way):
    rng = np.random.default_rng(2)
    rows_ND, labels_N = rng.normal(size=(500, 30)).astype(np.float32), rng.integers(0, N_LABELS, 500)
    rows_ND[250:] = rows_ND[:250]
    queries_BD = rng.normal(size=(20, 30)).astype(np.float32)
    together = search(way, rows_ND, labels_N, queries_BD, 9)
    assert together == [search(way, rows_ND, labels_N, query[None], 9)[0] for query in queries_BD]
    assert together == brute_force(rows_ND, labels_N, queries_BD, 9)


@st.composite
def tailed_problems(draw):
    """Points on a grid and few tails: heads and tails are often equally far apart, and groups smaller than k."""
    n, n_queries, n_tail = draw(st.integers(2, 40)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    heads = st.sampled_from([0.0, 1.0, -1.0]) if draw(st.booleans()) else st.just(0.0)
    tails_GT = draw(hnp.arrays(np.float32, (draw(st.integers(1, 4)), n_tail), elements=st.sampled_from([0, 1, 2, 0.5])))

    def points(count, tails_GT):
        group = draw(hnp.arrays(np.int64, count, elements=st.integers(0, len(tails_GT) - 1)))
        return np.concatenate([draw(hnp.arrays(np.float32, (count, 2), elements=heads)), tails_GT[group]], axis=1)

    rows_ND = points(n, tails_GT)
    queries_BD = points(n_queries, np.concatenate([tails_GT, np.full((1, n_tail), 1.5, np.float32)]))
    scale = draw(st.sampled_from([1.0, 1e-20, 1e15, 1e17]))
    labels_N = draw(hnp.arrays(np.int64, n, elements=st.integers(0, N_LABELS - 1)))
    masks_BM = draw(st.none() | hnp.arrays(np.bool_, (n_queries, N_LABELS)))
    problem = (rows_ND * np.float32(scale), labels_N, queries_BD * np.float32(scale), draw(st.integers(1, n)), masks_BM)
    return problem, n_tail


@each_way
@settings(max_examples=200, deadline=None)
@given(problem=tailed_problems())
def test_groups_do_not_change_rows(way, problem):
    problem, n_tail = problem
    assert search(way, *problem, n_tail=n_tail) == brute_force(*problem)


def domain_features(rng, n, dim, spread):
    heads = rng.normal(size=(n, dim))
    heads = spread * heads / np.linalg.norm(heads, axis=1, keepdims=True)
    return np.concatenate([heads, np.eye(14)[rng.integers(0, 14, n)]], axis=1).astype(np.float32)


@each_way
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("spread", "k"), [(0.3, 5), (0.71, 5), (1.0, 5), (1.0, 130)])
def test_rows_of_domains(monkeypatch, way, masked, spread, k):
    """From domains that are clearly apart to such that other domains' rows are often closer; in several blocks."""
    rng = np.random.default_rng(8)
    rows_ND, labels_N = domain_features(rng, 1300, 40, spread), rng.integers(0, N_LABELS, 1300)
    rows_ND = np.concatenate([rows_ND, rows_ND[:400]])
    labels_N = np.concatenate([labels_N, labels_N[:400]])
    queries_BD = domain_features(rng, 90, 40, spread)
    queries_BD[:3, -14:] = 0
    masks_BM = rng.random((90, N_LABELS)) < 0.3 if masked else None
    problem = rows_ND, labels_N, queries_BD, k, masks_BM
    expected = brute_force(*problem)
    assert search(way, *problem, n_tail=14) == expected
    monkeypatch.setitem(knn_search._BLOCK_BYTES, "cpu", 4 * 1300 * 8)
    assert search(way, *problem, n_tail=14) == expected


def grouped_index(rows_ND, monkeypatch, low):
    monkeypatch.setattr(knn_search, "_FEW_VECTORS", 1)
    monkeypatch.setattr(knn_search, "has_fast_bfloat16", lambda: low)
    return RowIndex(torch.from_numpy(rows_ND), torch.zeros(len(rows_ND), dtype=torch.int64), 1, "torch", 14)


def searched_in(index, monkeypatch):
    """Records how many queries are searched in one group and how many in all."""
    counts = {"group": 0, "all": 0}
    quick = index._search(torch.zeros(1, 1), 1, masked=False)
    inner = quick._search

    def spy(x_bD, k, n, allowed_bU, group_b=None):
        counts["all" if group_b is None else "group"] += len(x_bD)
        return inner(x_bD, k, n, allowed_bU, group_b)

    monkeypatch.setattr(quick, "_search", spy)
    return counts


def test_queries_far_from_other_domains_look_at_their_own_only(monkeypatch):
    rng = np.random.default_rng(9)
    index = grouped_index(domain_features(rng, 900, 30, 0.6), monkeypatch, low=False)
    counts = searched_in(index, monkeypatch)
    index(torch.from_numpy(domain_features(rng, 77, 30, 0.6)), 5)
    assert counts == {"group": 77, "all": 0}


def test_a_row_of_another_domain_at_the_same_distance_counts(monkeypatch):
    """sqrt(2) away: as far as the k-th row of the query's own domain, and the lower row wins."""
    rows_ND = np.zeros((3, 16), np.float32)
    rows_ND[0, 3] = 1.0  # same head, other domain
    rows_ND[1, 2] = rows_ND[2, 2] = 1.0
    rows_ND[1, :2] = 0.5, 0.0
    rows_ND[2, :2] = 1.0, 1.0
    query = torch.zeros(1, 16)
    query[0, 2] = 1.0
    index = grouped_index(rows_ND, monkeypatch, low=False)
    counts = searched_in(index, monkeypatch)
    assert index(query, 2).tolist() == [[0, 1]]
    assert counts == {"group": 1, "all": 1}
    assert index(query, 1).tolist() == [[1]]
    assert counts == {"group": 2, "all": 1}


@pytest.mark.parametrize(("n_tails", "grouped"), [(1, False), (2, True), (64, True), (65, False)])
def test_few_groups_only(monkeypatch, n_tails, grouped):
    rows_ND = np.random.default_rng(3).normal(size=(200, 20)).astype(np.float32)
    rows_ND[:, -14:] = 0
    rows_ND[:, -1] = np.arange(200) % n_tails
    index = grouped_index(rows_ND, monkeypatch, low=False)
    assert (index.groups is not None) == grouped
    assert index(torch.from_numpy(rows_ND[:9]), 1).tolist() == [[i] for i in range(9)]


@pytest.mark.parametrize("low", [False, pytest.param(True, marks=needs_bfloat16)])
def test_a_copy_of_a_grouped_index_finds_the_same_rows(monkeypatch, low):
    rng = np.random.default_rng(4)
    index = grouped_index(domain_features(rng, 300, 10, 0.6), monkeypatch, low)
    queries_BD = torch.from_numpy(domain_features(rng, 20, 10, 0.6))
    rows_Bk = index(queries_BD, 3)
    assert torch.equal(copy.deepcopy(index)(queries_BD, 3), rows_Bk)
    assert torch.equal(index.cpu()(queries_BD, 3), rows_Bk)


@pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss")
def test_faiss_keeps_an_index_for_each_candidate_set():
    rows_ND = np.arange(6, dtype=np.float32)[:, None]
    labels_N = np.array([0, 1, 2, 0, 1, 2])
    index = RowIndex(torch.from_numpy(rows_ND), torch.from_numpy(labels_N), N_LABELS, "faiss")
    for label, expected in [(0, [0, 3]), (1, [1, 4]), (2, [2, 5]), (0, [0, 3]), (3, [6, 6])]:
        mask = torch.zeros(1, N_LABELS, dtype=torch.bool)
        mask[0, label] = True
        assert index(torch.zeros(1, 1), 2, mask).tolist() == [expected]


def test_faiss_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"the KNN backend faiss needs the package faiss.*pip install"):
        KNNSelector(torch.zeros(1, 2), ["a"], n_neighbors=1, backend="faiss")
