"""The nearest centroid: float64, exact ties, candidates, the same bits in any batch."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.centroid import MOST_FUSED_MODELS, nearest_centroid

IMPLS = ["torch", "triton"]


def problem(B, K, D, M, *, with_candidates=False, whole=False):
    generator = torch.Generator().manual_seed(B + K + D)
    if whole:  # values without any rounding, and many ties
        features_BD, centroids_KD = (torch.randint(-1, 2, (n, D), generator=generator).float() for n in (B, K))
    else:
        features_BD, centroids_KD = (torch.randn(n, D, generator=generator) for n in (B, K))
    owner_K = torch.randint(0, M, (K,), generator=generator)
    candidates_BM = torch.rand(B, M, generator=generator) < 0.4 if with_candidates else None
    return features_BD, centroids_KD, centroids_KD.square().sum(1), owner_K, M, candidates_BM


def exact(features_BD, centroids_KD, norms_K, owner_K, n_models, candidates_BM):
    values_BK = 2 * features_BD.double() @ centroids_KD.double().T - norms_K.double()
    if candidates_BM is not None:
        values_BK = values_BK.masked_fill(~candidates_BM[:, owner_K], -torch.inf)
    best_BM = torch.full((len(features_BD), n_models), -torch.inf, dtype=torch.float64)
    for model in range(n_models):
        if (owner_K == model).any():
            best_BM[:, model] = values_BK[:, owner_K == model].amax(1)
    return values_BK, best_BM


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("with_candidates", [False, True])
@pytest.mark.parametrize(
    ("B", "K", "D", "M"), [(1, 1, 8, 1), (63, 5, 100, 9), (70, 133, 38, 3), (3, 33, 1038, 6), (20, 70, 21, 100)]
)
def test_values_are_close_to_float64_and_the_centroid_is_as_near_as_the_best(B, K, D, M, with_candidates, impl):
    arguments = problem(B, K, D, M, with_candidates=with_candidates)
    best_BM, nearest_B = nearest_centroid(*arguments, impl=impl)
    values_BK, expected_BM = exact(*arguments)
    torch.testing.assert_close(best_BM.double(), expected_BM, atol=2e-6 * D, rtol=0)
    assert nearest_B.dtype == torch.int64
    reached_B = values_BK.gather(1, nearest_B[:, None])[:, 0]
    torch.testing.assert_close(reached_B, values_BK.amax(1), atol=2e-6 * D, rtol=0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("with_candidates", [False, True])
@pytest.mark.parametrize(("B", "K", "D", "M"), [(40, 9, 2, 3), (30, 150, 3, 4)])
def test_of_equal_values_the_lowest_centroid_wins(B, K, D, M, with_candidates, impl):
    arguments = problem(B, K, D, M, with_candidates=with_candidates, whole=True)
    best_BM, nearest_B = nearest_centroid(*arguments, impl=impl)
    values_BK, expected_BM = exact(*arguments)
    assert torch.equal(best_BM.double(), expected_BM)
    assert ((values_BK == values_BK.amax(1, keepdim=True)).sum(1) > 1).float().mean() > 0.5
    for b in range(B):
        assert nearest_B[b] == next(k for k in range(K) if values_BK[b, k] == values_BK[b].max())


@pytest.mark.interpreted
def test_a_row_does_not_depend_on_the_batch():
    # whole numbers: under the interpreter, NumPy's product may round a row by its place among the others
    features_BD, *fixed, _ = problem(67, 70, 40, 5, whole=True)
    together = nearest_centroid(features_BD, *fixed, impl="triton")
    for rows in (slice(0, 1), slice(3, 40), slice(66, 67)):
        alone = nearest_centroid(features_BD[rows], *fixed, impl="triton")
        assert all(torch.equal(ours, theirs[rows]) for ours, theirs in zip(alone, together, strict=True))


@pytest.mark.parametrize("impl", IMPLS)
def test_without_any_candidate_the_first_centroid_stands(impl):
    arguments = problem(3, 7, 4, 2)[:5]
    best_BM, nearest_B = nearest_centroid(*arguments, torch.zeros(3, 2, dtype=torch.bool), impl=impl)
    assert best_BM.tolist() == [[-torch.inf] * 2] * 3
    assert nearest_B.tolist() == [0, 0, 0]


@pytest.mark.parametrize("impl", IMPLS)
def test_rows_may_be_strided_and_a_batch_empty(impl):
    features_BD, *fixed, _ = problem(6, 12, 10, 3)
    expected = nearest_centroid(features_BD, *fixed, impl=impl)
    for view in (torch.cat([features_BD, features_BD[:, :3]], dim=1)[:, :10], features_BD.T.contiguous().T):
        torch.testing.assert_close(nearest_centroid(view, *fixed, impl=impl), expected)
    best_BM, nearest_B = nearest_centroid(features_BD[:0], *fixed, impl=impl)
    assert (best_BM.shape, nearest_B.shape) == ((0, 3), (0,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features_BD": torch.zeros(2, 4)}, r"features_BD: expected \(B, 3\) float32, got \(2, 4\)"),
        ({"centroids_KD": torch.zeros(0, 3)}, r"centroids_KD: expected \(K >= 1, D\) float32, got \(0, 3\)"),
        ({"norms_K": torch.zeros(4)}, r"norms_K: expected \(5,\) float32, got \(4,\)"),
        ({"owner_K": torch.zeros(5)}, r"owner_K: expected \(5,\) int64, got \(5,\) torch.float32"),
        ({"n_models": 0}, "n_models: expected at least 1, got 0"),
        ({"candidates_BM": torch.ones(2, 3).bool()}, r"candidates_BM: expected \(2, 2\) bool, got \(2, 3\)"),
        (
            {"n_models": MOST_FUSED_MODELS + 1, "impl": "triton"},
            "n_models: expected at most 512 for triton, got 513; use torch",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    names = ("features_BD", "centroids_KD", "norms_K", "owner_K", "n_models", "candidates_BM")
    arguments = dict(zip(names, problem(2, 5, 3, 2), strict=True))
    with pytest.raises(ValueError, match=message):
        nearest_centroid(**{**arguments, **change})
