"""Choosing settings by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.errors import ConfigError, DataError
from gpu_select.records import OutcomeTable, query_digests
from gpu_select.resampling import intervals
from gpu_select.training.settings import TrainOptions
from gpu_select.training.tuning.estimates import Estimates
from gpu_select.training.tuning.folds import FoldedData, best_of_domains, best_single
from gpu_select.training.tuning.grids import kmeans_grid, knn_grid, mlp_grid, svm_grid
from gpu_select.training.tuning.kmeans import kmeans_choices
from gpu_select.training.tuning.knn import knn_choices
from gpu_select.training.tuning.mlp import mlp_choices
from gpu_select.training.tuning.svm import svm_choices

__all__ = ["Trial", "Tuning", "tune"]

_LEAST_QUERIES = 20

_BEYOND_CHANCE = 1.645
"""Standard errors by which settings have to do better than those of `base`: one chance in twenty for equals."""

_Choices = Callable[[FoldedData, Estimates, list[Any]], Iterator[tuple[Any, NDArray[np.int64]]]]


@dataclass(frozen=True)
class Trial:
    """One setting, as it does on held-out queries."""

    algorithm: str
    settings: dict[str, Any]
    quality: float
    """Mean performance of the chosen models."""
    utility: float
    """Mean utility: what is tuned for."""
    gain: float
    """Quality less that of the best single model."""
    gain_ci95: tuple[float, float]
    """95 % percentile bootstrap interval of the gain, paired by query."""
    folds: tuple[float, ...]
    """Quality by fold."""
    chosen: bool


@dataclass(frozen=True)
class Tuning:
    """What a search found."""

    options: TrainOptions
    """The settings to train with."""
    trials: list[Trial]
    baselines: dict[str, Any]
    """Qualities on the same held-out queries: oracle, best_single (model and quality), per_domain, random."""


def tune(
    features_QD: Tensor,
    table: OutcomeTable,
    base: TrainOptions,
    *,
    algorithms: Sequence[str],
    n_folds: int = 5,
    progress: Callable[[str, int], None] | None = None,
) -> Tuning:
    """Try settings on queries that take no part in training, each in turn.

    Folds, distances, regressions, clusters and kernel matrices are shared by all settings that need the same. The
    largest of a hundred noisy figures is mostly luck, so of each algorithm's settings the one is looked at that does
    best together with its neighbours in the grid, and it takes the place of `base` where it gains more on the same
    queries than chance would give. On MMLU-Pro and LLMRouter outcomes, what is chosen so does better on other queries
    than the largest figure for KNN and SVM, whose settings are nearly alike, and as well for KMeans.

    Args:
        features_QD: (Q, D) float32 on the device to work on, row q for the table's query q.
        table: Q queries x M models.
        base: what to start from; what is not tuned stays as here. Its seed makes folds and everything else.
        algorithms: which selectors to tune.
        n_folds: parts, each of which is held out once.
        progress: called with an algorithm and the number of its settings done since the last call.

    Raises:
        ConfigError: fewer than two folds.
        DataError: too few different queries.
    """
    if n_folds < 2:
        raise ConfigError("folds", n_folds, "an integer >= 2")
    least = max(_LEAST_QUERIES, 2 * n_folds)
    n_different = len(np.unique(query_digests(table.queries)))
    if n_different < least:
        raise DataError(f"expected at least {least} different queries to tune on, got {n_different}")
    data = FoldedData.of(features_QD, table, n_folds=n_folds, quality_weight=base.quality_weight, seed=base.seed)
    n_rows = min(int((data.fold_Q != fold).sum()) for fold in range(data.n_folds))
    grids: dict[str, list[Any]] = {
        "knn": knn_grid(n_rows),
        "kmeans": kmeans_grid(n_rows),
        "svm": svm_grid(base.svm),
        "mlp": mlp_grid(base.mlp),
    }
    for name, grid in grids.items():
        if getattr(base, name) not in grid:
            grid.insert(0, getattr(base, name))
    ridges = {s.ridge for name in ("knn", "kmeans") for s in grids[name]}
    ridges |= {s.label_ridge for name in ("svm", "mlp") for s in grids[name]}
    estimates = Estimates(data, sorted(ridges))
    choices_of: dict[str, _Choices] = {
        "knn": knn_choices,
        "kmeans": kmeans_choices,
        "svm": svm_choices,
        "mlp": mlp_choices,
    }
    single_Q = best_single(data)
    options, trials = base, []
    for name in algorithms:
        found = []
        for settings, choice_Q in choices_of[name](data, estimates, grids[name]):
            found.append((settings, choice_Q))
            if progress is not None:
                progress(name, 1)
        choice_TQ = np.stack([choice_Q for _, choice_Q in found])
        scored = _scores(data, single_Q, choice_TQ)
        tried = [settings for settings, _ in found]
        best, first = _steadiest(tried, [s["utility"] for s in scored]), tried.index(getattr(base, name))
        rows = np.arange(len(single_Q))
        if not _beyond_chance(data.utility_QM[rows, choice_TQ[best]] - data.utility_QM[rows, choice_TQ[first]]):
            best = first
        trials += [
            Trial(name, asdict(settings), **score, chosen=i == best)
            for i, ((settings, _), score) in enumerate(zip(found, scored, strict=True))
        ]
        options = options.changed({name: asdict(found[best][0])})
    return Tuning(options, trials, _baselines(data, table.models, single_Q))


def _scores(data: FoldedData, single_Q: NDArray[np.int64], choice_TQ: NDArray[np.int64]) -> list[dict[str, Any]]:
    """How held-out choices do on the outcomes that are known, as fields of `Trial`."""
    rows = np.arange(choice_TQ.shape[1])
    quality_TQ, utility_TQ = data.quality_QM[rows, choice_TQ], data.utility_QM[rows, choice_TQ]
    gain_TQ = quality_TQ - data.quality_QM[rows, single_Q]
    folds_TF = np.stack([_means(quality_TQ[:, data.fold_Q == fold]) for fold in range(data.n_folds)], axis=1)
    return [
        {
            "quality": float(quality),
            "utility": float(utility),
            "gain": float(gain),
            "gain_ci95": (float(low), float(high)),
            "folds": tuple(map(float, folds_F)),
        }
        for quality, utility, gain, (low, high), folds_F in zip(
            _means(quality_TQ),
            _means(utility_TQ),
            _means(gain_TQ),
            np.nan_to_num(intervals(gain_TQ, data.seed)),
            folds_TF,
            strict=True,
        )
    ]


def _means(values_TQ: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) over what is known; 0 where nothing is."""
    known_TQ = np.isfinite(values_TQ)
    return np.asarray(np.nan_to_num(values_TQ).sum(axis=1) / np.maximum(known_TQ.sum(axis=1), 1))


def _steadiest(settings: list[Any], utility_T: list[float]) -> int:
    """The trial with the largest mean utility of itself and those one step away in one setting."""
    values = [asdict(s) for s in settings]
    axes = {name: sorted({v[name] for v in values}) for name in values[0]}
    place_TA = np.array([[axis.index(v[name]) for name, axis in axes.items()] for v in values])
    utilities_T = np.array(utility_T)
    means = [utilities_T[np.abs(place_TA - place_A).sum(axis=1) <= 1].mean() for place_A in place_TA]
    return int(np.argmax(means))


def _beyond_chance(difference_Q: NDArray[np.float64]) -> bool:
    """Whether the mean of what is known lies above zero by more than chance."""
    known = difference_Q[np.isfinite(difference_Q)]
    if len(known) < 2:
        return False
    return bool(known.mean() > _BEYOND_CHANCE * known.std(ddof=1) / len(known) ** 0.5)


def _baselines(data: FoldedData, models: list[str], single_Q: NDArray[np.int64]) -> dict[str, Any]:
    rows, quality_QM = np.arange(len(single_Q)), data.quality_QM
    domain_Q = best_of_domains(data)
    overall_M = np.bincount(single_Q, minlength=len(models))
    return {
        "oracle": float(np.nanmax(quality_QM, axis=1).mean()),
        "best_single": {
            "model": models[int(overall_M.argmax())],
            "quality": float(np.nanmean(quality_QM[rows, single_Q])),
        },
        "per_domain": float(np.nanmean(quality_QM[rows, domain_Q])),
        "random": float(np.nanmean(np.nanmean(quality_QM, axis=1))),
    }
