"""Training of SVM: one cost-sensitive machine a model."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Regression
from gpu_select.training.points import as_points, as_rows
from gpu_select.training.settings import SVMSettings
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.utility import centred
from gpu_select.wire import LinearClassifier, RBFClassifier, SVMFile

__all__ = ["fit_svm", "problems", "unit_points"]


def fit_svm(
    features_QD: Tensor,
    models: list[str],
    utility_QM: NDArray[np.float64],
    domain_Q: NDArray[np.int64],
    settings: SVMSettings,
    *,
    seed: int,
) -> SVMFile:
    """Train, for each model, a machine that separates the queries where it is the best choice from the others.

    Single outcomes are mostly chance, so what counts is what a model is expected to gain, by a regression over all
    other queries. A query's weight in a machine is what choosing the model there gains or loses against the best other.

    Args:
        features_QD: (Q, D) float32; scaled to unit norm here, as the engine does with queries.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        domain_Q: (Q,) the domain of each query, by name.
        settings: see there.
        seed: of the regression's landmarks.
    """
    points_QD = unit_points(features_QD, settings.domain_weight)
    regression = Regression(features_QD, domain_Q, settings.label_gamma, seed=seed)
    expected_QM = regression.fit(centred(utility_QM), settings.label_ridge).held_out_QM
    sign_MQ, weight_MQ = problems(expected_QM, points_QD)
    kernel = Kernel(points_QD, settings.gamma if settings.kernel == "rbf" else None)
    solved_MQ, rho_M = solve(kernel, sign_MQ, settings.c * weight_MQ)
    beta_MQ = solved_MQ.cpu().double()
    rows_QD = as_rows(unit_points(features_QD, 1.0), settings.domain_weight).cpu()
    if settings.kernel == "linear":
        weights_MD = beta_MQ @ rows_QD.double()
        linear = [LinearClassifier(name, weights_MD[m].numpy(), float(rho_M[m])) for m, name in enumerate(models)]
        return SVMFile(models, "Linear", settings.gamma, linear_classifiers=linear)
    # rows whose one-hot was rescaled are not of unit norm: all distances grow alike
    beta_MQ *= math.exp(settings.gamma * (1 - settings.domain_weight) ** 2 / 2)
    classifiers = []
    for m, name in enumerate(models):
        support = (beta_MQ[m] != 0).nonzero().squeeze(1)
        if not len(support):  # a constant decision still needs one row in the file
            support = torch.zeros(1, dtype=torch.int64)
        vectors_SD = rows_QD[support].numpy()
        classifiers.append(
            RBFClassifier(name, beta_MQ[m, support].numpy(), vectors_SD, float(rho_M[m]), settings.gamma)
        )
    return SVMFile(models, "Rbf", settings.gamma, rbf_classifiers=classifiers)


def unit_points(features_QD: Tensor, domain_weight: float) -> Tensor:
    """Features at unit norm, then with the domain weighted."""
    norms_Q1 = torch.linalg.vector_norm(features_QD, dim=1, keepdim=True)
    return as_points(features_QD / norms_Q1.clamp(min=1e-10), domain_weight)


def problems(expected_QM: NDArray[np.float64], like: Tensor) -> tuple[Tensor, Tensor]:
    """What M machines have to learn.

    Args:
        expected_QM: (Q, M) expected gains; NaN rows take no part.
        like: a tensor on the device where the machines are solved.

    Returns:
        (M, Q) signs, 1 where the model is the best choice, else -1; and (M, Q) weights, what is at stake, as multiples
        of its root mean square. Where two models are equally good, nothing is at stake for them.
    """
    best_Q1 = expected_QM.max(axis=1, keepdims=True)
    lead_QM = expected_QM - best_Q1
    if expected_QM.shape[1] > 1:
        second_Q1 = np.sort(expected_QM, axis=1)[:, -2:-1]
        lead_QM = np.where(expected_QM == best_Q1, expected_QM - second_Q1, lead_QM)
    lead_QM = np.nan_to_num(lead_QM)
    taking_part = np.count_nonzero(np.isfinite(best_Q1)) * expected_QM.shape[1]
    size = math.sqrt(float((lead_QM**2).sum()) / max(1, taking_part)) or 1.0
    lead_MQ = torch.from_numpy(np.ascontiguousarray(lead_QM.T) / size)
    lead_MQ = lead_MQ.to(like.device, torch.float32 if like.device.type == "mps" else torch.float64)
    return torch.where(lead_MQ > 0, 1.0, -1.0), lead_MQ.abs()
