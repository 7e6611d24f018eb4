"""Choices that need no selector: the best model of each query, one model for all, one for each domain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gpu_select.records import OutcomeTable

__all__ = ["cheapest", "filled", "oracle", "per_domain"]


def filled(values_QM: NDArray[np.float64] | None, known_QM: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Seconds or USD of every outcome; one that is unknown counts as its model's mean.

    Args:
        values_QM: (Q, M), NaN where unknown; None where nothing is known.
        known_QM: (Q, M), where there is an outcome.

    Returns:
        (Q, M), NaN where there is no outcome, and for a model of which nothing is known.
    """
    if values_QM is None:
        return np.full(known_QM.shape, np.nan)
    told_QM = np.isfinite(values_QM) & known_QM
    counts_M = told_QM.sum(axis=0)
    means_M = np.where(counts_M > 0, np.where(told_QM, values_QM, 0).sum(axis=0) / np.maximum(counts_M, 1), np.nan)
    return np.where(known_QM, np.where(told_QM, values_QM, means_M), np.nan)


def oracle(quality_QM: NDArray[np.float64], latency_QM: NDArray[np.float64]) -> NDArray[np.int64]:
    """(Q,) the best model of each query; of several best ones the fastest, then the first."""
    best_Q1 = np.nan_to_num(quality_QM, nan=-1).max(axis=1, keepdims=True)
    time_QM = np.where(quality_QM == best_Q1, np.nan_to_num(latency_QM, nan=np.finfo(float).max), np.inf)
    return np.asarray(time_QM.argmin(axis=1))


def cheapest(values_QM: NDArray[np.float64]) -> int | None:
    """The model with the smallest mean, None unless all models that answered anything can be compared.

    Args:
        values_QM: from `filled`.
    """
    known_QM = np.isfinite(values_QM)
    counts_M = known_QM.sum(axis=0)
    if not counts_M.all():
        return None
    return int((np.nansum(values_QM, axis=0) / counts_M).argmin())


def per_domain(table: OutcomeTable, domain_models: Mapping[str, str] | None) -> NDArray[np.int64]:
    """(Q,) the best model of each query's domain.

    Args:
        table: Q queries x M models.
        domain_models: which that is on the training data; a domain or model that it does not know gets the best model
            of the table. Without it: the model that is best on the domain's other queries of this table.
    """
    quality_QM = np.nan_to_num(table.quality_QM)
    known_QM = np.isfinite(table.quality_QM)
    overall_M = quality_QM.sum(axis=0) / np.maximum(known_QM.sum(axis=0), 1)
    out = np.full(len(quality_QM), overall_M.argmax())
    domains = np.array(table.domains)
    for domain in set(table.domains):
        rows = np.flatnonzero(domains == domain)
        if domain_models is not None:
            if domain_models.get(domain) in table.models:
                out[rows] = table.models.index(domain_models[domain])
            continue
        # without the query itself: a model must not be chosen for the very outcome it is judged by
        sums = quality_QM[rows].sum(axis=0) - quality_QM[rows] + overall_M
        counts = known_QM[rows].sum(axis=0) - known_QM[rows] + 1.0
        out[rows] = (sums / counts).argmax(axis=1)
    return out
