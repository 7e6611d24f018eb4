"""Training of KNN: one row a query, labelled with the model that is expected to serve such queries best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Regression
from gpu_select.training.points import as_rows
from gpu_select.training.settings import KNNSettings
from gpu_select.training.utility import best_model, centred
from gpu_select.wire import KNNFile

__all__ = ["fit_knn", "labels_of", "vote_weights"]

_QUALITY_SCALE = 1000.0
"""A vote is 0.9 * quality + 0.1. The scale makes the constant, which would count rows, negligible; there is no cap."""


def fit_knn(
    features_QD: Tensor,
    models: list[str],
    utility_QM: NDArray[np.float64],
    domain_Q: NDArray[np.int64],
    settings: KNNSettings,
    *,
    seed: int,
) -> KNNFile:
    """Label each training query by expected utility, and let its row vote with what that label gains.

    A single outcome says little about a query: with graded or 0/1 scores most queries have several best models, and
    which one wins is chance. So each query's gains are first estimated by a regression over all other queries; the
    label is the model with the largest estimate, the weight what that gains over the average model. (Its lead over the
    next model would give no vote at all to one of two that do alike and are better than all others.)

    Args:
        features_QD: (Q, D) float32, on the device to train on.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        domain_Q: (Q,) the domain of each query, by name.
        settings: see there.
        seed: of the regression's landmarks.

    Source:
        Wilson (1972), doi:10.1109/TSMC.1972.4309137: editing training labels by other rows; here with expected
        utilities in place of class counts.
    """
    gains = centred(utility_QM)
    estimate = Regression(features_QD, domain_Q, settings.gamma, seed=seed).fit(gains, settings.ridge)
    label_Q, stake_Q = labels_of(estimate.held_out_QM, gains.mean_M)
    return KNNFile(
        k=settings.k,
        embeddings_ND=as_rows(features_QD, settings.domain_weight).cpu().numpy(),
        labels=[models[m] for m in label_Q],
        # six decimals of a thousandth: shorter files, the same decisions
        qualities_N=np.round(_QUALITY_SCALE * stake_Q, 6),
    )


def labels_of(
    expected_QM: NDArray[np.float64], mean_M: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(Q,) the model with the largest expected gain on each query, and (Q,) that gain over the query's mean."""
    return best_model(expected_QM, mean_M), expected_QM.max(axis=1) - expected_QM.mean(axis=1)


def vote_weights(stake_Q: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q,) what a row's vote counts in a file that `fit_knn` writes: the engine's rule, without latencies."""
    return 0.9 * np.maximum(_QUALITY_SCALE * stake_Q, 0.01) + 0.1
