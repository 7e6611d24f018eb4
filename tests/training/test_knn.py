from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.artifacts import selector_of
from gpu_select.training import KNNSettings, estimate
from gpu_select.training.knn import fit_knn, labels_of, vote_weights

NAN = float("nan")


def fit(features, models, utility, *, seed: int = 0, **options):
    domain = features[:, -14:].argmax(dim=1).cpu().numpy()
    return fit_knn(features, models, np.asarray(utility, dtype=float), domain, KNNSettings(**options), seed=seed)


def decide(document, features) -> list[str]:
    selector = selector_of(document)
    return [selector.models[m] for m in selector(torch.as_tensor(features)).argmax(dim=1).tolist()]


def clusters(n_each: int, n_clusters: int, dim: int = 11, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Features of as many kinds of queries, each with a domain of its own, and the number of each row's kind."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n_clusters), n_each)
    rows = np.eye(dim)[owner] + 0.1 * rng.standard_normal((len(owner), dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(np.hstack([rows, np.eye(14)[owner]]).astype(np.float32)), owner


@pytest.mark.parametrize("k", [1, 5, 100])
def test_the_file_has_one_row_a_query_and_the_k_that_was_asked_for(k):
    features, owner = clusters(13, 3)
    document = fit(features, ["a", "b", "c"], np.eye(3)[owner], k=k)
    assert document.k == k
    np.testing.assert_array_equal(document.embeddings_ND, features.numpy())
    assert len(document.labels) == len(document.qualities_N) == 39
    assert document.latencies_ns_N is None


@pytest.mark.parametrize("weight", [0.0, 0.25, 2.5])
def test_the_domain_weight_stands_in_the_one_hot_column(weight):
    features, owner = clusters(13, 3)
    rows = fit(features, ["a", "b", "c"], np.eye(3)[owner], domain_weight=weight).embeddings_ND
    np.testing.assert_array_equal(rows[:, :-14], features[:, :-14])
    np.testing.assert_array_equal(rows[:, -14:], np.float32(weight) * np.eye(14, dtype=np.float32)[owner])


@given(st.permutations(["a", "b", "c", "d"]), st.integers(0, 2**31), st.integers(12, 20))
@settings(max_examples=20, deadline=None)
def test_a_model_that_serves_a_whole_cluster_best_wins_it(models, seed, n_each):
    features, owner = clusters(n_each, 3, seed=seed)
    rng = np.random.default_rng(seed)
    utility = rng.uniform(0.0, 0.6, (len(owner), 4))
    utility[np.arange(len(owner)), owner] = rng.uniform(0.7, 1.0, len(owner))
    document = fit(features, models, utility)
    assert document.labels == [models[c] for c in owner]
    assert decide(document, clusters(4, 3, seed=seed + 1)[0]) == [m for m in models[:3] for _ in range(4)]


def test_labels_follow_expected_utility_where_single_outcomes_are_noise():
    features, owner = clusters(300, 2)
    rng = np.random.default_rng(1)
    chance = np.array([[0.8, 0.3], [0.3, 0.8]])[owner]
    utility = (rng.random(chance.shape) < chance).astype(float)
    document = fit(features, ["a", "b"], utility)
    wrong = [label != ["a", "b"][c] for label, c in zip(document.labels, owner, strict=True)]
    # by single outcomes, many of the queries would be labelled otherwise
    assert (utility.argmax(axis=1) != owner).mean() > 0.25
    assert np.mean(wrong) < 0.03


def two_spots(n_first: int, n_second: int) -> torch.Tensor:
    """So many times one query, and so many times another one that is far away for a narrow kernel."""
    return torch.from_numpy(np.eye(3, 17, dtype=np.float32)[[0] * n_first + [1] * n_second])


def test_the_estimate_and_the_weight_on_a_case_worked_by_hand():
    utility = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.4], [0.0, 1.0], [0.0, 0.2]])
    features = two_spots(3, 2)
    features[:3, -14] = features[3:, -13] = 1.0  # each spot a domain of its own
    document = fit(features, ["a", "b"], utility, gamma=50.0, ridge=2.0)
    gain = utility - utility.mean(axis=1, keepdims=True)  # of a: 0.5, 0, 0.3, -0.5, -0.1
    mean = gain.sum(axis=0) / (5 + 24)
    rest = gain - mean
    # a query's own outcome is left out; the ridge counts as two queries that are like the domain, and the domain is
    # believed to be like all as if there were 24 such queries
    belief = 1 / (1 / 2 + 1 / 24)
    expected = np.stack(
        [
            mean + (rest[1] + rest[2]) / (2 + belief),
            mean + (rest[0] + rest[2]) / (2 + belief),
            mean + (rest[0] + rest[1]) / (2 + belief),
            mean + rest[4] / (1 + belief),
            mean + rest[3] / (1 + belief),
        ]
    )
    assert document.labels == ["a", "a", "a", "b", "b"]
    # of two models, one gains on their mean what the other loses
    np.testing.assert_allclose(document.qualities_N, 500 * np.abs(expected[:, 0] - expected[:, 1]), rtol=1e-3)


def test_a_querys_own_outcome_does_not_make_its_label():
    # alone on its spot, where b was lucky: nothing else is known there, so the model that is better overall counts
    utility = np.array([*[[0.7, 0.5]] * 30, [0.0, 1.0]])
    assert fit(two_spots(30, 1), ["a", "b"], utility, gamma=50.0).labels == ["a"] * 31


def test_labels_and_what_they_gain():
    expected = np.array([[0.1, 0.3, 0.2], [0.4, 0.4, 0.1], [0.5, -0.2, 0.0]])
    label, stake = labels_of(expected, np.array([0.0, 0.1, 0.0]))
    assert label.tolist() == [1, 1, 0]
    np.testing.assert_allclose(stake, [0.1, 0.1, 0.4])
    label, stake = labels_of(expected[:, :1], np.zeros(1))
    assert label.tolist() == stake.tolist() == [0, 0, 0]


def test_vote_weights_are_those_of_the_engine(engine):
    """With one row a model and k rows, a query's scores are the rows' weights."""
    lead = np.array([0.0, 5e-6, 0.001, 0.02, 0.9])
    document = {
        "algorithm": "knn",
        "k": 5,
        "embeddings": np.eye(5).tolist(),
        "labels": list("abcde"),
        "qualities": (1000 * lead).tolist(),
    }
    (reading,) = engine.readings(document, np.ones((1, 5)))
    np.testing.assert_allclose(vote_weights(lead), reading.scores, rtol=1e-12)


def test_a_row_with_a_large_lead_outvotes_many_with_a_small_one():
    features, owner = clusters(49, 2, dim=2)
    utility = np.where(owner[:, None] == 0, [0.51, 0.50], [0.0, 1.0])
    document = fit(features, ["a", "b"], utility, k=98)
    assert decide(document, features[:1]) == ["b"]


def test_rounding_of_the_weights_keeps_six_decimals():
    features, _ = clusters(13, 3)
    utility = np.random.default_rng(0).random((39, 3))
    qualities = fit(features, ["a", "b", "c"], utility).qualities_N
    np.testing.assert_array_equal(np.round(qualities, 6), qualities)
    assert (qualities >= 0).all()


def test_holes_take_no_part_and_a_query_with_one_outcome_has_a_label():
    features, owner = clusters(30, 2)
    utility = np.where(owner[:, None] == 0, [0.9, 0.1], [0.1, 0.9])
    holes = np.random.default_rng(2).random(utility.shape) < 0.4
    holes[:, 0] &= ~holes[:, 1]
    document = fit(features, ["a", "b"], np.where(holes, NAN, utility))
    assert document.labels == [["a", "b"][c] for c in owner]
    assert np.isfinite(document.qualities_N).all()


def test_where_nobody_scored_a_model_its_mean_gain_counts():
    features, owner = clusters(20, 2)
    utility = np.where(owner[:, None] == 0, [0.5, NAN], [0.5, 0.9])
    assert set(fit(features, ["a", "b"], utility).labels) == {"b"}


def test_a_model_that_had_the_easy_queries_does_not_get_the_hard_ones():
    features, owner = clusters(60, 2)
    # all do well on the first kind; b, which is worse than a wherever both were asked, was asked there alone
    utility = np.where(owner[:, None] == 0, [0.95, 0.85], [0.2, NAN])
    assert set(fit(features, ["a", "b"], utility).labels) == {"a"}


def test_a_single_model_wins_everything():
    features, _ = clusters(5, 2)
    document = fit(features, ["only"], np.full((10, 1), 0.3))
    assert document.labels == ["only"] * 10
    assert decide(document, features) == ["only"] * 10


@pytest.mark.parametrize("n_queries", [1, 2, 3])
def test_fewer_queries_than_neighbours(n_queries):
    features = clusters(1, 3)[0][:n_queries]
    utility = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.1]])[:n_queries]
    document = fit(features, ["a", "b"], utility)
    assert document.k == 5
    assert decide(document, features) == ["a"] * n_queries


def test_models_that_always_do_alike_are_settled_by_order():
    features, _ = clusters(5, 2)
    document = fit(features, ["b", "a"], np.full((10, 2), 0.5), k=3)
    assert document.labels == ["b"] * 10
    assert not document.qualities_N.any()


@pytest.mark.parametrize("gamma", [1e-6, 1.0, 1e6])
def test_a_query_that_is_asked_again_and_again(gamma):
    features = two_spots(1500, 3)
    utility = np.where(np.arange(1503)[:, None] < 1500, [0.2, 0.6], [0.9, 0.1])
    utility += np.random.default_rng(0).normal(0, 0.1, utility.shape)
    document = fit(features, ["a", "b"], utility, gamma=gamma, ridge=1e-3)
    assert np.isfinite(document.qualities_N).all()
    assert document.labels[:1500] == ["b"] * 1500


def test_the_same_seed_gives_the_same_file(monkeypatch):
    monkeypatch.setattr(estimate, "_MOST_LANDMARKS", 500)
    features, owner = clusters(700, 3)
    utility = np.random.default_rng(3).random((2100, 3)) + 0.2 * np.eye(3)[owner]
    first, again, other = (fit(features, ["a", "b", "c"], utility, seed=seed) for seed in (1, 1, 2))
    assert first.labels == again.labels
    np.testing.assert_array_equal(first.qualities_N, again.qualities_N)
    assert not np.array_equal(first.qualities_N, other.qualities_N)
