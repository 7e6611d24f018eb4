"""The kernels on a CUDA device, in each dtype: float64, odd sizes, the same bits in any batch and in any run."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.centroid import nearest_centroid
from gpu_select_kernels.pool import pool_features
from gpu_select_kernels.rbf import prepare_vectors, rbf_decision
from gpu_select_kernels.rms_norm import rms_norm
from gpu_select_kernels.rope import qk_norm_rope
from gpu_select_kernels.swiglu import swiglu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BOUNDS = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Relative to the largest number: three roundings or so."""
EPS = 1e-6


def close(found, expected, bound):
    assert found.shape == expected.shape
    assert bool(torch.isfinite(found).all())
    assert float((found.double() - expected).abs().max()) <= bound * max(1.0, float(expected.abs().max()))


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).cuda()


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D", [1, 100, 384, 1024, 1038, 8192])
def test_pool(D, dtype, pooling):
    lengths = [5, 1, 300, 33, 2]
    hidden_TD = normal(sum(lengths), D, dtype=dtype) + 0.3
    offsets_B1 = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    domain_B = torch.tensor([3, 0, 13, 7, 7]).cuda()
    found = pool_features(hidden_TD, offsets_B1.cuda(), domain_B, n_domains=14, pooling=pooling)
    for b, length in enumerate(lengths):
        tokens_TD = hidden_TD[offsets_B1[b] : offsets_B1[b + 1]]
        pooled_D = {"last": tokens_TD[-1], "mean": tokens_TD.double().mean(0), "cls": tokens_TD[0]}[pooling].double()
        expected = torch.cat([pooled_D / pooled_D.norm(), torch.eye(14).double().cuda()[domain_B[b]]])
        close(found[b], expected, 5e-6)
        alone = pool_features(
            tokens_TD.clone(), torch.tensor([0, length]).cuda(), domain_B[b : b + 1], n_domains=14, pooling=pooling
        )
        assert torch.equal(alone[0], found[b])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "D"), [(1, 1), (129, 100), (77, 384), (1001, 1024), (9, 1038), (5, 16384)])
def test_rms_norm(T, D, dtype):
    x_TD, residual_TD, weight_D = normal(T, D, dtype=dtype), normal(T, D, seed=1, dtype=dtype), normal(D, dtype=dtype)
    normed_TD, y_TD = rms_norm(x_TD, weight_D, EPS, residual_TD)
    assert torch.equal(y_TD, x_TD + residual_TD)
    y64_TD = y_TD.double()
    exact_TD = y64_TD * torch.rsqrt(y64_TD.square().mean(1, keepdim=True) + EPS) * weight_D.double()
    close(normed_TD, exact_TD, BOUNDS[dtype])
    reference_TD, _ = rms_norm(x_TD, weight_D, EPS, residual_TD, impl="torch")
    if dtype != torch.float32:
        assert float((normed_TD != reference_TD).float().mean()) < 0.02 + 1 / normed_TD.numel()
    for t in (0, T // 2, T - 1):
        assert torch.equal(rms_norm(x_TD[t : t + 1], weight_D, EPS, residual_TD[t : t + 1])[0][0], normed_TD[t])
    x_before, residual_before = x_TD.clone(), residual_TD.clone()
    in_place = rms_norm(x_TD, weight_D, EPS, residual_TD, inplace=True)
    assert torch.equal(x_TD, normed_TD)
    assert torch.equal(residual_TD, y_TD)
    assert in_place[0].data_ptr() == x_TD.data_ptr()
    plain_TD, _ = rms_norm(y_TD, weight_D, EPS)
    assert torch.equal(plain_TD, normed_TD)
    assert torch.equal(x_before + residual_before, y_TD)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("table", [torch.float32, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "n_q", "n_kv", "d"), [(1, 1, 1, 2), (101, 16, 8, 128), (37, 14, 2, 64), (50, 0, 8, 128), (9, 5, 0, 96)]
)
def test_rope(T, n_q, n_kv, d, dtype, table, norm):
    qkv_TE = normal(T, (n_q + 2 * n_kv) * d, dtype=dtype)
    weights = (normal(d, seed=1, dtype=dtype), normal(d, seed=2, dtype=dtype)) if norm else (None, None)
    angle_Td = (torch.arange(T)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)).repeat(1, 2).cuda()
    cos_Td, sin_Td = angle_Td.cos().to(table or dtype), angle_Td.sin().to(table or dtype)
    rest = n_q, n_kv, d, EPS
    q_THd, k_THd, v_THd = qk_norm_rope(qkv_TE, *weights, cos_Td, sin_Td, *rest)
    heads_THd = qkv_TE.view(T, -1, d)
    for found, heads, weight_d in (
        (q_THd, heads_THd[:, :n_q], weights[0]),
        (k_THd, heads_THd[:, n_q : n_q + n_kv], weights[1]),
    ):
        if not found.numel():
            continue
        x_THd = heads.double()
        if weight_d is not None:
            x_THd = x_THd * torch.rsqrt(x_THd.square().mean(2, keepdim=True) + EPS) * weight_d.double()
        turned_THd = torch.cat([-x_THd[..., d // 2 :], x_THd[..., : d // 2]], dim=2)
        close(found, x_THd * cos_Td.double()[:, None] + turned_THd * sin_Td.double()[:, None], BOUNDS[dtype])
    assert torch.equal(v_THd, heads_THd[:, n_q + n_kv :])
    t = T // 2
    one = slice(t, t + 1)
    alone = qk_norm_rope(qkv_TE[one], *weights, cos_Td[one], sin_Td[one], *rest)
    assert torch.equal(alone[0][0], q_THd[t])
    assert torch.equal(alone[1][0], k_THd[t])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "n_columns"), [(1, 1), (101, 100), (1001, 3072), (6, 1038)])
def test_swiglu(T, n_columns, dtype):
    gate_up_TE = 4 * normal(T, 2 * n_columns, dtype=dtype)
    found_TI = swiglu(gate_up_TE)
    gate_TI, up_TI = gate_up_TE.double().chunk(2, dim=1)
    close(found_TI, gate_TI * gate_TI.sigmoid() * up_TI, BOUNDS[dtype])
    assert torch.equal(swiglu(gate_up_TE[T // 2 :])[0], found_TI[T // 2])


@pytest.mark.parametrize("with_candidates", [False, True])
@pytest.mark.parametrize(
    ("B", "K", "D", "M"),
    [(1, 1, 8, 1), (200, 64, 1038, 6), (129, 133, 384, 20), (70, 1000, 398, 5), (33, 300, 50, 500)],
)
def test_nearest_centroid(B, K, D, M, with_candidates):
    features_BD, centroids_KD = normal(B, D), normal(K, D, seed=1)
    centroids_KD[K // 2] = centroids_KD[0]  # equal ones, in different tiles where there are several
    norms_K = centroids_KD.double().square().sum(1).float()
    owner_K = torch.randint(0, M, (K,), generator=torch.Generator().manual_seed(0)).cuda()
    candidates_BM = (normal(B, M, seed=2) > -0.3) if with_candidates else None
    best_BM, nearest_B = nearest_centroid(features_BD, centroids_KD, norms_K, owner_K, M, candidates_BM)
    values_BK = 2 * features_BD.double() @ centroids_KD.double().T - norms_K.double()
    if candidates_BM is not None:
        values_BK = values_BK.masked_fill(~candidates_BM[:, owner_K], -torch.inf)
    expected_BM = torch.full((B, M), -torch.inf, dtype=torch.float64).cuda()
    expected_BM.scatter_reduce_(1, owner_K.expand(B, K), values_BK, "amax")
    bound = 2e-6 * float(norms_K.max())
    torch.testing.assert_close(best_BM.double(), expected_BM, atol=bound, rtol=0)
    reached_B = values_BK.gather(1, nearest_B[:, None])[:, 0]
    torch.testing.assert_close(reached_B, values_BK.amax(1), atol=bound, rtol=0)
    one = slice(B // 2, B // 2 + 1)
    mask_1M = None if candidates_BM is None else candidates_BM[one]
    alone = nearest_centroid(features_BD[one], centroids_KD, norms_K, owner_K, M, mask_1M)
    assert torch.equal(alone[0][0], best_BM[B // 2])
    assert torch.equal(alone[1][0], nearest_B[B // 2])


def test_of_equal_centroids_the_lowest_is_nearest():
    centroids_KD = normal(200, 1038)
    centroids_KD[70] = centroids_KD[150] = centroids_KD[3]
    features_BD = centroids_KD[3] + 0.01 * normal(90, 1038, seed=1)
    norms_K = centroids_KD.square().sum(1)
    norms_K[70] = norms_K[150] = norms_K[3]
    best_BM, nearest_B = nearest_centroid(features_BD, centroids_KD, norms_K, torch.arange(200).cuda(), 200)
    assert bool((nearest_B == 3).all())
    assert torch.equal(best_BM[:, 3], best_BM[:, 70])
    assert torch.equal(best_BM[:, 3], best_BM[:, 150])


@pytest.mark.parametrize("precision", ["tf32x3", "ieee"])
@pytest.mark.parametrize(
    ("B", "S", "D", "R"),
    [(1, 1, 1, 1), (129, 5000, 1038, 6), (300, 700, 398, 17), (65, 259, 100, 70), (2, 9000, 64, 3)],
)
def test_rbf(B, S, D, R, precision):
    x_BD = torch.nn.functional.normalize(normal(B, D))
    vectors_SD = torch.nn.functional.normalize(normal(S, D, seed=1))
    coefficients_SR = normal(S, R, seed=2)
    norms_S = vectors_SD.double().square().sum(1).float()
    fixed = vectors_SD, norms_S, coefficients_SR
    prepared = prepare_vectors(*fixed, precision=precision)
    found_BR = rbf_decision(x_BD, *fixed, 1.0, prepared=prepared, precision=precision)
    distances_BS = torch.cdist(x_BD.double(), vectors_SD.double()).square()
    exact_BR = torch.exp(-distances_BS) @ coefficients_SR.double()
    # against the sum of the magnitudes: terms of both signs cancel
    scale_BR = torch.exp(-distances_BS) @ coefficients_SR.double().abs()
    assert float(((found_BR.double() - exact_BR).abs() / scale_BR).max()) < 2e-6
    for rows in (slice(0, 1), slice(B // 2, B)):
        alone_BR = rbf_decision(x_BD[rows], *fixed, 1.0, prepared=prepared, precision=precision)
        assert torch.equal(alone_BR, found_BR[rows])
    assert torch.equal(rbf_decision(x_BD, *fixed, 1.0, precision=precision), found_BR)


def test_nothing_waits_for_the_device():
    x, offsets_B1 = normal(64, 32), torch.tensor([0, 3, 64]).cuda()
    square, owner_K = x.square().sum(1), torch.zeros(64, dtype=torch.int64).cuda()

    def run():
        pool_features(x, offsets_B1, pooling="mean")
        pool_features(x, offsets_B1, pooling="mean", impl="torch")
        rms_norm(x, x[0], EPS, x)
        qk_norm_rope(x, x[0, :8], x[0, :8], x[:, :8], x[:, :8], 2, 1, 8, EPS)
        swiglu(x)
        nearest_centroid(x, x, square, owner_K, 1)
        rbf_decision(x, x, square, x, 1.0)

    run()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
