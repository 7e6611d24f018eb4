from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.artifacts import selector_of
from gpu_select.training import knn
from gpu_select.training.knn import fit_knn

NAN = float("nan")


def decide(document, features) -> list[str]:
    selector = selector_of(document)
    return [selector.models[m] for m in selector(torch.as_tensor(features)).argmax(dim=1).tolist()]


def clusters(n_each: int, n_clusters: int, dim: int = 11, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Rows around far-away centres, and the number of each row's cluster."""
    rng = np.random.default_rng(seed)
    centres = 10 * np.eye(n_clusters, dim)
    owner = np.repeat(np.arange(n_clusters), n_each)
    rows = centres[owner] + 0.1 * rng.standard_normal((len(owner), dim))
    return torch.from_numpy(rows.astype(np.float32)), owner


@pytest.mark.parametrize("k", [1, 5, 100])
def test_the_file_has_one_row_a_query_and_the_k_that_was_asked_for(k):
    features, owner = clusters(13, 3)
    document = fit_knn(features, ["a", "b", "c"], np.eye(3)[owner], n_neighbors=k)
    assert document.k == k
    np.testing.assert_array_equal(document.embeddings_ND, features.numpy())
    assert len(document.labels) == len(document.qualities_N) == 39
    assert document.latencies_ns_N is None


@given(st.permutations(["a", "b", "c", "d"]), st.integers(0, 2**31), st.integers(12, 20))
@settings(max_examples=20, deadline=None)
def test_a_model_that_serves_a_whole_cluster_best_wins_it(models, seed, n_each):
    features, owner = clusters(n_each, 3, seed=seed)
    rng = np.random.default_rng(seed)
    utility = rng.uniform(0.0, 0.6, (len(owner), 4))
    utility[np.arange(len(owner)), owner] = rng.uniform(0.7, 1.0, len(owner))
    document = fit_knn(features, models, utility, n_neighbors=5)
    assert document.labels == [models[c] for c in owner]
    assert decide(document, clusters(4, 3, seed=seed + 1)[0]) == [m for m in models[:3] for _ in range(4)]


def test_labels_follow_expected_utility_where_single_outcomes_are_noise():
    features, owner = clusters(300, 2)
    rng = np.random.default_rng(1)
    chance = np.array([[0.8, 0.3], [0.3, 0.8]])[owner]
    utility = (rng.random(chance.shape) < chance).astype(float)
    document = fit_knn(features, ["a", "b"], utility, n_neighbors=5)
    wrong = [label != ["a", "b"][c] for label, c in zip(document.labels, owner, strict=True)]
    # by single outcomes, many of the queries would be labelled otherwise
    assert (utility.argmax(axis=1) != owner).mean() > 0.25
    assert np.mean(wrong) < 0.03


def test_the_estimate_and_the_weight_on_a_case_worked_by_hand():
    # sqrt(4) = 2 neighbours a query: itself and its pair; a model's mean counts as one more outcome
    features = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    utility = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.2]])
    document = fit_knn(features, ["a", "b"], utility, n_neighbors=1)
    mean = np.array([1.5, 1.7]) / 4
    near = (np.array([1.5, 0.5]) + mean) / 3
    far = (np.array([0.0, 1.2]) + mean) / 3
    assert document.labels == ["a", "a", "b", "b"]
    leads = [near[0] - near[1]] * 2 + [far[1] - far[0]] * 2
    np.testing.assert_allclose(document.qualities_N, 1000 * np.array(leads), atol=1e-3)


def test_the_weight_is_the_lead_over_the_runner_up():
    features, _ = clusters(9, 1)
    utility = np.tile([0.2, 0.9, 0.7], (9, 1))
    np.testing.assert_allclose(fit_knn(features, ["a", "b", "c"], utility, n_neighbors=5).qualities_N, 200, atol=0.01)


def test_a_row_with_a_large_lead_outvotes_many_with_a_small_one():
    features, owner = clusters(49, 2, dim=2)
    utility = np.where(owner[:, None] == 0, [0.51, 0.50], [0.0, 1.0])
    document = fit_knn(features, ["a", "b"], utility, n_neighbors=98)
    assert decide(document, features[:1]) == ["b"]


def test_rounding_of_the_weights_keeps_six_decimals():
    features, _ = clusters(13, 3)
    utility = np.random.default_rng(0).random((39, 3))
    qualities = fit_knn(features, ["a", "b", "c"], utility, n_neighbors=5).qualities_N
    np.testing.assert_array_equal(np.round(qualities, 6), qualities)
    assert (qualities >= 0).all()


def test_holes_take_no_part_and_a_query_with_one_outcome_has_a_label():
    features, owner = clusters(30, 2)
    utility = np.where(owner[:, None] == 0, [0.9, 0.1], [0.1, 0.9])
    holes = np.random.default_rng(2).random(utility.shape) < 0.4
    holes[:, 0] &= ~holes[:, 1]
    document = fit_knn(features, ["a", "b"], np.where(holes, NAN, utility), n_neighbors=5)
    assert document.labels == [["a", "b"][c] for c in owner]
    assert np.isfinite(document.qualities_N).all()


def test_where_nobody_scored_a_model_its_overall_mean_counts():
    features, owner = clusters(20, 2)
    utility = np.where(owner[:, None] == 0, [0.5, NAN], [0.5, 0.9])
    assert set(fit_knn(features, ["a", "b"], utility, n_neighbors=5).labels) == {"b"}


def test_a_single_model_wins_everything():
    features, _ = clusters(5, 2)
    document = fit_knn(features, ["only"], np.full((10, 1), 0.3), n_neighbors=5)
    assert document.labels == ["only"] * 10
    assert decide(document, features) == ["only"] * 10


@pytest.mark.parametrize("n_queries", [1, 2, 3])
def test_fewer_queries_than_neighbours(n_queries):
    features = torch.eye(3)[:n_queries]
    utility = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.1]])[:n_queries]
    document = fit_knn(features, ["a", "b"], utility, n_neighbors=5)
    assert document.k == 5
    assert decide(document, features) == ["a"] * n_queries


def test_models_that_always_do_alike_are_settled_by_order():
    features, _ = clusters(5, 2)
    document = fit_knn(features, ["b", "a"], np.full((10, 2), 0.5), n_neighbors=3)
    assert document.labels == ["b"] * 10


def test_blocks_make_no_difference(monkeypatch):
    features, _ = clusters(13, 3)
    utility = np.random.default_rng(3).random((39, 3))
    whole = fit_knn(features, ["a", "b", "c"], utility, n_neighbors=5)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 7 * 39)
    blocks = fit_knn(features, ["a", "b", "c"], utility, n_neighbors=5)
    assert blocks.labels == whole.labels
    np.testing.assert_allclose(blocks.qualities_N, whole.qualities_N, atol=1e-3)
