from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from gpu_select.errors import ConfigError, DataError
from gpu_select.training import KMeansSettings, KNNSettings, MLPSettings, SVMSettings, TrainOptions
from gpu_select.training.tuning import tune
from gpu_select.training.tuning.folds import assign_folds
from gpu_select.training.tuning.grids import kmeans_grid, knn_grid, mlp_grid, svm_grid
from gpu_select.training.tuning.search import _beyond_chance, _steadiest

NAN = float("nan")
ALL = ("knn", "kmeans", "svm", "mlp")
QUICK = TrainOptions(mlp=MLPSettings(members=2, epochs=2))


def test_on_thousands_of_queries_there_are_two_hundred_settings_forty_of_them_of_svm():
    grids = [knn_grid(4000), kmeans_grid(4000), svm_grid(SVMSettings()), mlp_grid(MLPSettings())]
    assert sum(map(len, grids)) >= 200
    assert len(grids[2]) >= 40
    for grid in grids:
        assert len(set(grid)) == len(grid)


def test_every_setting_of_the_grids_is_one_that_train_takes():
    for name, grid in zip(
        ALL,
        (knn_grid(4000), kmeans_grid(4000), svm_grid(SVMSettings()), mlp_grid(MLPSettings())),
        strict=True,
    ):
        for settings in grid:
            assert getattr(TrainOptions().changed({name: asdict(settings)}), name) == settings


@pytest.mark.parametrize("n_rows", [1, 10, 40, 1000])
def test_grids_fit_the_number_of_queries(n_rows):
    assert knn_grid(n_rows)
    assert all(s.k == 5 or s.k <= n_rows for s in knn_grid(n_rows))
    assert kmeans_grid(n_rows)
    assert all(s.clusters == 8 or 2 * s.clusters <= n_rows for s in kmeans_grid(n_rows))


def test_what_is_not_tuned_stays():
    linear = svm_grid(SVMSettings(kernel="linear", gamma=7.0))
    assert {(s.kernel, s.gamma) for s in linear} == {("linear", 7.0)}
    assert {s.members for s in mlp_grid(MLPSettings(members=3))} == {3}


def test_the_steadiest_setting_on_a_case_worked_by_hand():
    # k:                       1     5    10    25    50
    utility = {0.5: [0.30, 0.40, 0.41, 0.40, 0.39], 1.0: [0.30, 0.31, 0.31, 0.47, 0.32]}
    settings = [KNNSettings(k, w) for w in utility for k in (1, 5, 10, 25, 50)]
    values = [u for row in utility.values() for u in row]
    # 0.47 stands alone: with its neighbours (0.31, 0.32, 0.40) it is 0.375; the one below it, in company, 0.4175
    chosen = settings[_steadiest(settings, values)]
    assert chosen == KNNSettings(25, 0.5)
    assert _steadiest(settings[:1], [0.1]) == 0
    # at a tie the first
    assert _steadiest(settings, [0.2] * 10) == 0


def test_neighbours_are_one_step_away_in_one_setting():
    settings = [KMeansSettings(c, w) for c in (8, 16, 32) for w in (0.25, 1.0)]
    #          8/.25 8/1  16/.25 16/1 32/.25 32/1
    utility = [0.0, 0.0, 0.0, 0.0, 0.0, 0.9]
    # the two corners share their mean, 0.9 / 3: the first of them; 16 clusters have a neighbour more, 0.9 / 4
    assert _steadiest(settings, utility) == 4
    # grids of tuples, as hidden sizes are
    assert _steadiest([MLPSettings(hidden_sizes=(n,)) for n in (32, 64)], [0.1, 0.1]) == 0


def test_what_lies_above_zero_by_chance_and_what_does_not():
    rng = np.random.default_rng(0)
    noise = rng.choice([-1.0, 0.0, 1.0], 4000)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 4000**0.5
    assert not _beyond_chance(noise + 1.6 * error)
    assert _beyond_chance(noise + 1.7 * error)
    assert not _beyond_chance(-noise - 1.7 * error)
    # unknown outcomes do not count, and the same choice everywhere is no gain
    assert _beyond_chance(np.concatenate([noise + 1.7 * error, np.full(9000, NAN)]))
    for nothing in (np.zeros(50), np.full(50, NAN), np.array([0.5]), np.array([])):
        assert not _beyond_chance(nothing)


def test_settings_stay_unless_others_gain_more_than_chance(task):
    features, table = task(150)
    rng = np.random.default_rng(1)
    noise = replace(table, quality_QM=rng.random(table.quality_QM.shape))
    for base in (QUICK, replace(QUICK, kmeans=KMeansSettings(clusters=3), knn=KNNSettings(k=7, ridge=0.7))):
        tuning = tune(features, noise, base, algorithms=["knn", "kmeans"], n_folds=3)
        assert tuning.options == base
        assert sum(t.chosen for t in tuning.trials) == 2
    # one cluster cannot tell the domains apart
    tuning = tune(features, table, replace(QUICK, kmeans=KMeansSettings(clusters=1)), algorithms=["kmeans"], n_folds=3)
    assert tuning.options.kmeans.clusters > 1


@pytest.fixture(scope="module")
def found(task):
    features, table = task(150)
    seen: list[tuple[str, int]] = []
    tuning = tune(features, table, QUICK, algorithms=ALL, n_folds=3, progress=lambda *step: seen.append(step))
    return table, tuning, seen


def test_progress_adds_up_and_one_setting_an_algorithm_is_chosen(found):
    _, tuning, seen = found
    tried = Counter(t.algorithm for t in tuning.trials)
    done: Counter[str] = Counter()
    for name, n in seen:
        done[name] += n
    assert done == tried == {"knn": 120, "kmeans": 36, "svm": 48, "mlp": len(mlp_grid(MLPSettings()))}
    for name in ALL:
        (chosen,) = (t for t in tuning.trials if t.algorithm == name and t.chosen)
        assert asdict(getattr(tuning.options, name)) == chosen.settings


def test_the_figures_of_a_trial_fit_together(found):
    table, tuning, _ = found
    fold = assign_folds(table.queries, 3, seed=0)
    sizes = np.bincount(fold)
    for t in tuning.trials:
        assert t.quality == pytest.approx(np.dot(t.folds, sizes) / 150)
        assert t.gain == pytest.approx(t.quality - tuning.baselines["best_single"]["quality"])
        assert t.gain_ci95[0] <= t.gain <= t.gain_ci95[1]
        assert 0 <= t.utility <= 1
    assert max(t.gain for t in tuning.trials if t.algorithm == "svm") > 0.1


def test_baselines_are_on_the_same_queries(found):
    table, tuning, _ = found
    quality = table.quality_QM
    assert tuning.baselines["oracle"] == pytest.approx(quality.max(axis=1).mean())
    assert tuning.baselines["random"] == pytest.approx(quality.mean())
    single = tuning.baselines["best_single"]
    assert single["model"] in table.models
    assert single["quality"] <= tuning.baselines["oracle"]
    assert all(t.quality <= tuning.baselines["oracle"] for t in tuning.trials)


def test_the_same_seed_gives_the_same_result_and_another_one_other_folds(task, found):
    features, table = task(150)
    again = tune(features, table, QUICK, algorithms=ALL, n_folds=3)
    assert again == found[1]
    other = tune(features, table, replace(QUICK, seed=1), algorithms=["knn"], n_folds=3)
    assert [t.folds for t in other.trials] != [t.folds for t in found[1].trials if t.algorithm == "knn"]


def test_only_what_is_asked_for_is_tuned(task):
    features, table = task(60)
    base = replace(QUICK, knn=KNNSettings(k=77), quality_weight=0.5, seed=4)
    tuning = tune(features, table, base, algorithms=["kmeans"], n_folds=2)
    assert {t.algorithm for t in tuning.trials} == {"kmeans"}
    assert replace(tuning.options, kmeans=base.kmeans) == base


def test_the_quality_weight_decides_what_is_tuned_for(task):
    features, table = task(120)
    fast = replace(table, latency_s_QM=np.tile([0.1, 5.0, 9.0], (120, 1)))
    tuning = tune(features, fast, replace(QUICK, quality_weight=0.0), algorithms=["knn", "svm"], n_folds=2)
    assert all(t.utility == pytest.approx(1.0) for t in tuning.trials)


@pytest.mark.parametrize("algorithm", ALL)
def test_outcomes_that_never_differ_and_a_single_model(task, algorithm):
    features, table = task(40)
    alike = replace(table, quality_QM=np.full((40, 3), 0.5), latency_s_QM=np.full((40, 3), NAN))
    single = replace(table, models=["a"], quality_QM=table.quality_QM[:, :1], latency_s_QM=table.latency_s_QM[:, :1])
    for other in (alike, single):
        tuning = tune(features, other, QUICK, algorithms=[algorithm], n_folds=2)
        assert all((t.gain, t.gain_ci95) == (0, (0, 0)) for t in tuning.trials)
        assert sum(t.chosen for t in tuning.trials) == 1


@pytest.mark.parametrize("algorithm", ALL)
def test_tables_with_holes(task, algorithm):
    features, table = task(90)
    quality = table.quality_QM.copy()
    rng = np.random.default_rng(0)
    quality[rng.random(quality.shape) < 0.5] = NAN
    quality[3:, 2] = NAN  # hardly known, and in some folds not at all
    quality[np.isnan(quality).all(axis=1), 0] = 0.5
    tuning = tune(features, replace(table, quality_QM=quality), QUICK, algorithms=[algorithm], n_folds=5)
    for t in tuning.trials:
        assert np.isfinite([t.quality, t.utility, t.gain, *t.gain_ci95, *t.folds]).all()
    assert np.isfinite([tuning.baselines[name] for name in ("oracle", "per_domain", "random")]).all()


def test_queries_that_are_all_alike_to_the_encoder(task):
    _, table = task(60)
    features = torch.zeros(60, 31)
    features[:, 0] = features[:, 20] = 1.0
    for algorithm in ALL:
        tuning = tune(features, table, QUICK, algorithms=[algorithm], n_folds=3)
        assert all(np.isfinite(t.quality) for t in tuning.trials)


@pytest.mark.parametrize(("n_queries", "n_folds", "least"), [(19, 5, 20), (29, 15, 30)])
def test_too_few_queries(task, n_queries, n_folds, least):
    features, table = task(n_queries)
    with pytest.raises(DataError) as caught:
        tune(features, table, QUICK, algorithms=["knn"], n_folds=n_folds)
    assert str(caught.value) == f"expected at least {least} different queries to tune on, got {n_queries}"


def test_queries_that_differ_in_case_alone_are_too_few(task):
    features, table = task(40)
    table = replace(table, queries=["why?" + " " * i for i in range(40)])
    with pytest.raises(DataError, match=r"^expected at least 20 different queries to tune on, got 1$"):
        tune(features, table, QUICK, algorithms=["knn"], n_folds=5)


@pytest.mark.parametrize("n_folds", [1, 0, -2])
def test_one_fold_is_none(task, n_folds):
    features, table = task(40)
    with pytest.raises(ConfigError, match=rf"^folds: expected an integer >= 2, got {n_folds}$"):
        tune(features, table, QUICK, algorithms=["knn"], n_folds=n_folds)
