"""Training of SVM: one cost-sensitive machine a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.points import as_points, as_rows
from gpu_select.training.settings import SVMSettings
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.utility import SHRINKAGE, centred
from gpu_select.wire import LinearClassifier, RBFClassifier, SVMFile

__all__ = ["Problems", "fit_svm", "problems", "unit_points"]


def fit_svm(features_QD: Tensor, models: list[str], utility_QM: NDArray[np.float64], settings: SVMSettings) -> SVMFile:
    """Train, for each model, a machine that separates queries where it beats the best single model from the others.

    The best single model is what a selector has to beat, so its own machine is constant 0. For each other model, a
    query's sign is that of what choosing it gains or loses, its weight the size of that: queries on which both do alike
    weigh nothing. A reference that is no choice, such as the mean of all models, would spend the machines on telling
    good models from bad ones, and not on which is best.

    Args:
        features_QD: (Q, D) float32; scaled to unit norm here, as the engine does with queries.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        settings: see there.
    """
    points_QD = unit_points(features_QD, settings.domain_weight)
    todo = problems(utility_QM, points_QD)
    kernel = Kernel(points_QD, settings.gamma if settings.kernel == "rbf" else None)
    beta_MQ, rho_M = solve(kernel, todo.sign_MQ, settings.c * todo.weight_MQ)
    beta_MQ = beta_MQ.cpu().double() * todo.scale_M[:, None]
    rho_M = -todo.comparable(-rho_M[:, None])[:, 0]
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


@dataclass(frozen=True, eq=False)
class Problems:
    """What M machines have to learn."""

    sign_MQ: Tensor
    """1 where the model gains on the best single one, -1 where it loses."""
    weight_MQ: Tensor
    """What is at stake; 0 where there is no outcome, and for the best single model."""
    scale_M: Tensor
    """What a machine's value is worth; 0 for the best single model."""
    shift_M: Tensor
    """What is believed of a model of which few outcomes are known."""

    def comparable(self, values_MQ: Tensor) -> Tensor:
        """Values of solved machines in units of utility, on the CPU.

        A machine's values come near 1 or -1 whatever is at stake. So they are multiplied by the root mean square of the
        model's gains and losses: where several models gain, the one that gains more is chosen. Machines that know few
        outcomes are pulled to the model's mean.
        """
        return values_MQ.cpu().double() * self.scale_M[:, None] + self.shift_M[:, None]


def problems(utility_QM: NDArray[np.float64], like: Tensor) -> Problems:
    """The learning problems of a table of utilities, on the device of `like`."""
    gains = centred(utility_QM)
    best = int(gains.mean_M.argmax())
    best_Q = np.where(np.isfinite(utility_QM[:, best]), gains.gain_QM[:, best], gains.mean_M[best])
    lead_QM = gains.gain_QM - best_Q[:, None]
    known_M = np.isfinite(lead_QM).sum(axis=0)
    lead_QM = np.nan_to_num(lead_QM)
    stake_M = np.sqrt((lead_QM**2).sum(axis=0) / np.maximum(known_M, 1))
    trust_M = known_M / (known_M + SHRINKAGE)
    lead_MQ = torch.from_numpy(lead_QM.T.copy())
    lead_MQ = lead_MQ.to(like.device, torch.float32 if like.device.type == "mps" else torch.float64)
    return Problems(
        torch.where(lead_MQ >= 0, 1.0, -1.0),
        lead_MQ.abs(),
        torch.from_numpy(trust_M * stake_M),
        torch.from_numpy((1 - trust_M) * (gains.mean_M - gains.mean_M[best])),
    )
