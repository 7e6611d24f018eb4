"""Training of SVM: one cost-sensitive machine a model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.smo import Kernel, solve
from gpu_select.training.utility import advantages
from gpu_select.wire import LinearClassifier, RBFClassifier, SVMFile

__all__ = ["fit_svm"]

_C = 1.0


def fit_svm(
    features_QD: Tensor,
    models: list[str],
    utility_QM: NDArray[np.float64],
    *,
    kernel: Literal["rbf", "linear"],
    gamma: float,
) -> SVMFile:
    """Train, for each model, a machine that separates queries where it gains from those where it loses.

    A query's sign is that of the model's advantage over the mean of the query's outcomes, its weight the advantage's
    size: queries on which all models do alike weigh nothing, and a query that nobody else answers weighs most. C = 1.
    A machine's values come near 1 or -1 whatever is at stake. So they are multiplied by the root mean square of the
    model's advantages: where several models gain, the one that gains more is chosen.

    Args:
        features_QD: (Q, D) float32; scaled to unit norm here, as the engine does with queries.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer.
        kernel: "rbf" or "linear".
        gamma: of the RBF kernel.
    """
    unit_QD = features_QD / torch.linalg.vector_norm(features_QD, dim=1, keepdim=True).clamp(min=1e-10)
    gain_MQ = torch.from_numpy(advantages(utility_QM).T.copy())
    gain_MQ = gain_MQ.to(unit_QD.device, torch.float32 if unit_QD.device.type == "mps" else torch.float64)
    sign_MQ = torch.where(gain_MQ >= 0, 1.0, -1.0)
    beta_MQ, rho_M = solve(Kernel(unit_QD, gamma if kernel == "rbf" else None), sign_MQ, _C * gain_MQ.abs())
    answered_M = torch.from_numpy(np.isfinite(utility_QM).sum(axis=0)).clamp(min=1)
    stake_M = (gain_MQ.cpu().double().square().sum(dim=1) / answered_M).sqrt()
    beta_MQ, rho_M, unit_QD = beta_MQ.cpu() * stake_M[:, None], rho_M.cpu() * stake_M, unit_QD.cpu()
    if kernel == "linear":
        weights_MD = beta_MQ @ unit_QD.double()
        linear = [LinearClassifier(name, weights_MD[m].numpy(), float(rho_M[m])) for m, name in enumerate(models)]
        return SVMFile(models, "Linear", gamma, linear_classifiers=linear)
    classifiers = []
    for m, name in enumerate(models):
        support = (beta_MQ[m] != 0).nonzero().squeeze(1)
        if not len(support):  # a constant decision still needs one row in the file
            support = torch.zeros(1, dtype=torch.int64)
        vectors_SD = unit_QD[support].numpy()
        classifiers.append(RBFClassifier(name, beta_MQ[m, support].numpy(), vectors_SD, float(rho_M[m]), gamma))
    return SVMFile(models, "Rbf", gamma, rbf_classifiers=classifiers)
