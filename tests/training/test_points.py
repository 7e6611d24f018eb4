"""The domain counts as much in a file, read by an engine that knows no weights, as it did in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.training.points import as_centroids, as_points, as_rows

WEIGHTS = [0.0, 0.25, 1.0, 2.5, 100.0]


def features(n: int, seed: int, dim: int = 19) -> torch.Tensor:
    """(n, dim + 14) float32: unit embeddings and the one-hot of a domain."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(np.hstack([rows, np.eye(14)[rng.integers(14, size=n)]]).astype(np.float32))


def squared(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    return torch.cdist(one.double(), other.double()).square().numpy()


def weighted(one: torch.Tensor, other: torch.Tensor, weight: float) -> np.ndarray:
    """Squared distances where another domain adds 2 * weight, by definition, in float64."""
    same = one[:, -14:].double() @ other[:, -14:].double().T
    return squared(one[:, :-14], other[:, :-14]) + 2 * weight * (1 - same.numpy())


def assert_same_order(found_BK: np.ndarray, expected_BK: np.ndarray, tolerance: float) -> None:
    """Up to a constant a row, the same distances; so all pairs that clearly differ come in the same order."""
    shift_B1 = (found_BK - expected_BK).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found_BK - shift_B1, expected_BK, atol=tolerance)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_points_are_as_far_apart_as_the_weight_says(weight):
    one, other = features(23, 0), features(31, 1)
    found = squared(as_points(one, weight), as_points(other, weight))
    np.testing.assert_allclose(found, weighted(one, other, weight), atol=1e-4)


@given(st.sampled_from(WEIGHTS), st.integers(0, 10_000))
def test_rows_are_in_the_order_of_the_points(weight, seed):
    queries, rows = features(11, seed), features(29, seed + 1)
    expected = weighted(queries, rows, weight)
    assert_same_order(squared(queries, as_rows(rows, weight)), expected, 1e-5)
    by_row, by_point = squared(queries, as_rows(rows, weight)).argsort(axis=1), expected.argsort(axis=1)
    gaps = np.diff(np.sort(expected, axis=1), axis=1).min(axis=1)
    np.testing.assert_array_equal(by_row[gaps > 1e-5], by_point[gaps > 1e-5])


@given(st.sampled_from(WEIGHTS), st.integers(0, 10_000), st.integers(1, 12))
def test_centroids_are_in_the_order_of_the_centers(weight, seed, n_centers):
    queries, members = features(11, seed), features(60, seed + 1)
    owner = np.random.default_rng(seed).integers(n_centers, size=60)
    owner[:n_centers] = np.arange(n_centers)
    points = as_points(members, weight)
    centers = torch.stack([points[torch.from_numpy(owner == k)].mean(dim=0) for k in range(n_centers)])
    expected = squared(as_points(queries, weight), centers)
    found = squared(queries, as_centroids(centers, weight))
    assert_same_order(found, expected, 1e-4 if weight <= 2.5 else 2e-3)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_centroids_keep_their_embeddings_type_and_shape(weight):
    centers = as_points(features(7, 0), weight)
    found = as_centroids(centers, weight)
    assert (found.dtype, found.shape) == (torch.float32, (7, 33))
    assert torch.equal(found[:, :-14], centers[:, :-14])
    assert torch.isfinite(found).all()


def test_a_weight_of_one_leaves_everything_as_it_is():
    rows = features(9, 0)
    for function in (as_points, as_rows, as_centroids):
        assert torch.equal(function(rows, 1.0), rows)


def test_what_is_given_is_not_changed():
    rows = features(9, 0)
    before = rows.clone()
    for function in (as_points, as_rows, as_centroids):
        function(rows, 0.3)
    assert torch.equal(rows, before)
