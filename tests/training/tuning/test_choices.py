"""What cross-validation thinks a selector would choose is what its file chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.training import KMeansSettings, KNNSettings, MLPSettings, SVMSettings
from gpu_select.training.kmeans import fit_kmeans
from gpu_select.training.knn import fit_knn
from gpu_select.training.mlp import fit_mlp
from gpu_select.training.svm import fit_svm
from gpu_select.training.tuning import kmeans, svm
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData
from gpu_select.training.tuning.kmeans import kmeans_choices
from gpu_select.training.tuning.knn import knn_choices
from gpu_select.training.tuning.mlp import mlp_choices
from gpu_select.training.tuning.svm import svm_choices

NAN = float("nan")
SEED = 3
GRIDS = {
    "knn": [KNNSettings(1, 1.0, 1.0, 3.0), KNNSettings(25, 0.25, 2.0, 10.0), KNNSettings(7, 2.5, 1.0, 3.0)],
    "kmeans": [KMeansSettings(8, 0.25, 8.0, 1.0, 3.0), KMeansSettings(30, 1.0, 24.0, 1.0, 10.0)],
    "svm": [
        SVMSettings("rbf", 1.0, 0.3, 1.0),
        SVMSettings("rbf", 2.0, 1.0, 0.25),
        SVMSettings("linear", 1.0, 1.0, 2.5),
    ],
    "mlp": [MLPSettings(hidden_sizes=(16,), members=2, epochs=4)],
}


def data_of(task, *, holes: bool, n: int = 400) -> FoldedData:
    features, table = task(n)
    if holes:
        quality = table.quality_QM.copy()
        gone = np.random.default_rng(0).random(quality.shape) < [0.2, 0.5, 0.1]
        gone[:, 2] &= ~gone.all(axis=1)
        quality[gone] = NAN
        table = replace(table, quality_QM=quality)
    return FoldedData.of(features, table, n_folds=4, quality_weight=0.9, seed=SEED)


def choices_of(algorithm: str, data: FoldedData, grid=None) -> dict:
    grid = grid or GRIDS[algorithm]
    ridges = {s.ridge if algorithm in ("knn", "kmeans") else s.label_ridge for s in grid}
    choices = {"knn": knn_choices, "kmeans": kmeans_choices, "svm": svm_choices, "mlp": mlp_choices}[algorithm]
    return dict(choices(data, Estimates(data, sorted(ridges)), grid))


def trained(algorithm: str, data: FoldedData, settings) -> np.ndarray:
    """(Q,) what files say that are trained on the other folds."""
    choice_Q = np.empty(len(data.fold_Q), np.int64)
    fits = {"knn": fit_knn, "kmeans": fit_kmeans, "svm": fit_svm, "mlp": fit_mlp}
    for fold in range(data.n_folds):
        learned, held_out = data.rows(fold)
        document = fits[algorithm](
            data.features_QD[torch.from_numpy(learned)],
            list("abc"),
            data.utility_QM[learned],
            data.domain_Q[learned],
            settings,
            seed=SEED,
        )
        selector = selector_of(document)
        column = np.array(["abc".index(name) for name in selector.models])
        choice_Q[held_out] = column[selector(data.features_QD[torch.from_numpy(held_out)]).argmax(dim=1).numpy()]
    return choice_Q


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm"])
def test_choices_are_those_of_files_trained_on_the_rest(task, monkeypatch, algorithm, holes):
    monkeypatch.setattr(kmeans, "_N_INIT", None)  # as many runs as training makes
    monkeypatch.setattr(svm, "_TOLERANCE", 1e-4)
    data = data_of(task, holes=holes)
    found = choices_of(algorithm, data)
    assert list(map(repr, sorted(found, key=repr))) == sorted(map(repr, GRIDS[algorithm]))
    for settings, choice_Q in found.items():
        same = choice_Q == trained(algorithm, data, settings)
        assert same.mean() >= 0.98, settings
        assert len(set(choice_Q.tolist())) > 1


@pytest.mark.parametrize("algorithm", ["kmeans", "svm"])
def test_the_shortcuts_of_tuning_cost_hardly_any_utility(task, algorithm):
    """One run of Lloyd's algorithm instead of many, and a wider tolerance; the choices gain 0.2 in all."""
    data = data_of(task, holes=False)
    rows = np.arange(len(data.fold_Q))
    for settings, choice_Q in choices_of(algorithm, data).items():
        exact = data.utility_QM[rows, trained(algorithm, data, settings)].mean()
        assert data.utility_QM[rows, choice_Q].mean() == pytest.approx(exact, abs=0.04)


def test_an_mlp_does_as_well_as_one_that_is_trained_on_the_rest_alone(task):
    """Its batches are others, so its choices are not the same, but worth the same."""
    data = data_of(task, holes=False)
    rows = np.arange(len(data.fold_Q))
    ((settings, choice_Q),) = choices_of("mlp", data).items()
    alone = trained("mlp", data, settings)
    assert (choice_Q == alone).mean() > 0.8
    worth = data.utility_QM[rows, choice_Q].mean()
    assert worth == pytest.approx(data.utility_QM[rows, alone].mean(), abs=0.015)
    assert worth > data.utility_QM.mean(axis=0).max() + 0.1


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_the_outcomes_of_a_fold_have_no_part_in_its_choices(task, algorithm):
    data = data_of(task, holes=False, n=120)
    held_out = data.fold_Q == 2
    spoilt = replace(data, utility_QM=np.where(held_out[:, None], 1 - data.utility_QM[:, ::-1], data.utility_QM))
    before, after = choices_of(algorithm, data), choices_of(algorithm, spoilt)
    changed = 0
    for settings in GRIDS[algorithm]:
        np.testing.assert_array_equal(before[settings][held_out], after[settings][held_out])
        changed += (before[settings] != after[settings]).sum()
    assert changed  # while the other folds learn from them


def test_blocks_make_no_difference_to_knn(task, monkeypatch):
    data = data_of(task, holes=False, n=120)
    whole = choices_of("knn", data)
    monkeypatch.setattr("gpu_select.training.tuning.knn._BLOCK_ELEMENTS", 7 * 90)
    blocks = choices_of("knn", data)
    for settings in GRIDS["knn"]:
        np.testing.assert_array_equal(whole[settings], blocks[settings])


def test_more_voters_than_rows_and_more_clusters_than_queries(task):
    data = data_of(task, holes=False, n=24)
    for algorithm, settings in (("knn", KNNSettings(k=500)), ("kmeans", KMeansSettings(clusters=500))):
        ((_, choice_Q),) = choices_of(algorithm, data, [settings]).items()
        np.testing.assert_array_equal(choice_Q, trained(algorithm, data, settings))
