"""The quick check at the end of `train`: does a selector with these settings gain anything on other queries?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpu_select.domains import WIRE_ORDER
from gpu_select.holdout import check_held_out
from gpu_select.records import OutcomeTable
from gpu_select.training import KMeansSettings, KNNSettings, MLPSettings, SVMSettings, TrainOptions
from gpu_select.training.tuning.folds import assign_folds

NAN = float("nan")
ALL = ("knn", "kmeans", "svm", "mlp")
BY_HEART = KMeansSettings(clusters=10_000, shrinkage=1e-3, gamma=1e5, ridge=1e-3)
"""As many clusters as queries, each of which believes its one outcome."""


def task(n: int, *, noise: bool, n_models: int = 2, seed: int = 0) -> tuple[torch.Tensor, OutcomeTable]:
    """Queries whose outcomes are chance (a does better on average), or told by their domain."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 20))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    domain = rng.integers(14, size=n)
    features = torch.from_numpy(np.hstack([rows, np.eye(14)[domain]]).astype(np.float32))
    if noise:
        quality = rng.normal(np.linspace(0.6, 0.4, n_models), 0.2, (n, n_models)).clip(0, 1)
    else:
        quality = np.where((domain[:, None] + np.arange(n_models)) % n_models == 0, 0.9, 0.2)
    names = [WIRE_ORDER[d] for d in domain]
    return features, OutcomeTable([f"q{i}" for i in range(n)], names, list("abc")[:n_models], quality, quality * NAN)


def found(features, table, options=None, algorithms=ALL) -> dict:
    return {h.algorithm: h for h in check_held_out(features, table, options or TrainOptions(), algorithms)}


def test_selectors_that_gain_are_seen_to_gain():
    results = found(*task(300, noise=False))
    assert list(results) == list(ALL)
    for held_out in results.values():
        assert held_out.queries == 60
        assert held_out.gain_ci95[0] > 0.1
        assert held_out.gain_ci95[0] <= held_out.gain <= held_out.gain_ci95[1]


def test_settings_that_learn_by_heart_are_seen_to_lose():
    features, table = task(1000, noise=True)
    held_out = found(features, table, TrainOptions(kmeans=BY_HEART), ["kmeans"])["kmeans"]
    assert held_out.single == "a"
    assert held_out.gain < -0.02
    assert held_out.gain_ci95[1] < 0
    # while the default settings do no harm
    assert found(features, table, TrainOptions(), ["kmeans"])["kmeans"].gain > -0.03


def test_the_gain_on_a_case_worked_by_hand():
    """The domain tells which of two models is right; knn sees it on every query, a single model cannot."""
    features, table = task(200, noise=False)
    held_out = assign_folds(table.queries, 5, seed=0) == 0
    results = found(features, table, TrainOptions(knn=KNNSettings(k=1, domain_weight=100, gamma=0.1)), ["knn"])["knn"]
    column = table.models.index(results.single)
    rest = table.quality_QM[~held_out]
    assert column == rest.mean(axis=0).argmax()
    assert (results.queries, held_out.sum()) == (40, 40)
    expected = 0.9 * (table.quality_QM.max(axis=1) - table.quality_QM[:, column])[held_out].mean()
    assert results.gain == pytest.approx(expected)


def test_fewer_than_fifty_queries_say_nothing():
    features, table = task(49, noise=False)
    assert found(features, table) == {}
    assert list(found(*task(50, noise=False))) == list(ALL)
    # one query in fifty spellings is one
    same = replace(task(60, noise=False)[1], queries=["why?" + " " * i for i in range(60)])
    assert found(task(60, noise=False)[0], same) == {}


def test_what_is_held_out_takes_no_part_in_training():
    features, table = task(200, noise=False)
    held_out = assign_folds(table.queries, 5, seed=0) == 0
    spoilt = replace(table, quality_QM=np.where(held_out[:, None], table.quality_QM[:, ::-1], table.quality_QM))
    honest, other = found(features, table), found(features, spoilt)
    for name in ALL:
        assert honest[name].gain > 0
        # the same choices, where the outcomes are now the other way round
        assert other[name].gain < 0
        assert other[name].single == honest[name].single


def test_queries_without_both_outcomes_do_not_count():
    features, table = task(300, noise=False, n_models=3)
    quality = table.quality_QM.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.3] = NAN
    quality[np.isnan(quality).all(axis=1), 0] = 0.5
    for held_out in found(features, replace(table, quality_QM=quality)).values():
        assert 20 <= held_out.queries < 60
        assert np.isfinite([held_out.gain, *held_out.gain_ci95]).all()


def test_nothing_is_said_where_the_single_model_has_no_outcome_to_compare_with():
    features, table = task(100, noise=False)
    held_out = assign_folds(table.queries, 5, seed=0) == 0
    quality = table.quality_QM.copy()
    quality[held_out] = [NAN, NAN]
    assert found(features, replace(table, quality_QM=quality)) == {}


def test_a_single_model_gains_nothing():
    features, table = task(60, noise=True)
    one = replace(table, models=["a"], quality_QM=table.quality_QM[:, :1], latency_s_QM=table.latency_s_QM[:, :1])
    assert [h.gain for h in found(features, one).values()] == [0.0] * 4


def test_the_seed_decides():
    features, table = task(120, noise=False)
    options = [
        TrainOptions(
            seed=seed,
            mlp=MLPSettings(members=2, epochs=2),
            svm=SVMSettings(c=0.3),
        )
        for seed in (0, 0, 1)
    ]
    first, again, other = (found(features, table, o) for o in options)
    assert first == again != other
