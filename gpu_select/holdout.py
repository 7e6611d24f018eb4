"""A quick check of settings: train without a fifth of the queries, and see what the selector gains on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpu_select.artifacts import selector_of
from gpu_select.domain_head import DomainHead
from gpu_select.domains import DOMAIN_NAMES, KNOWN_DOMAINS, N_DOMAINS
from gpu_select.records import OutcomeTable, query_digests
from gpu_select.resampling import intervals
from gpu_select.training import TrainOptions, fit, fit_domain_head
from gpu_select.training.tuning.folds import FoldedData, assign_folds

__all__ = ["HeldOut", "check_domains", "check_held_out"]

_PARTS = 5
_LEAST_QUERIES = 50
"""With fewer in all, what is held out says nothing."""


@dataclass(frozen=True)
class HeldOut:
    """How a selector does against always choosing one model, both trained without the queries they are judged by."""

    algorithm: str
    single: str
    """The model that is best on average on the rest."""
    gain: float
    """Mean utility, less that of the single model."""
    gain_ci95: tuple[float, float]
    """95 % bootstrap interval of the gain, paired by query."""
    queries: int
    """Held-out queries on which both have an outcome."""


def check_held_out(
    features_QD: Tensor, table: OutcomeTable, options: TrainOptions, algorithms: Sequence[str]
) -> Iterator[HeldOut]:
    """Train on four fifths of the queries, judge by the last one. Nothing comes where there are under fifty queries.

    Args:
        features_QD: (Q, D) float32, row q for the table's query q.
        table: Q queries x M models.
        options: the settings to check.
        algorithms: the selectors to check.
    """
    if len(np.unique(query_digests(table.queries))) < _LEAST_QUERIES:
        return
    data = FoldedData.of(features_QD, table, n_folds=_PARTS, quality_weight=options.quality_weight, seed=options.seed)
    learned, held_out = data.rows(0)
    single = int(data.gains(0).mean_M.argmax())
    rest = table.take(learned)
    utility_HM = data.utility_QM[held_out]
    rows_H = np.arange(len(held_out))
    on_device = {
        name: features_QD[torch.from_numpy(rows).to(features_QD.device)]
        for name, rows in (("rest", learned), ("held out", held_out))
    }
    for name in algorithms:
        selector = selector_of(fit(name, on_device["rest"], rest, options, {})).to(features_QD.device)
        column_M = np.array([table.models.index(model) for model in selector.models])
        with torch.no_grad():
            choice_H = column_M[selector(on_device["held out"]).argmax(dim=1).cpu().numpy()]
        gain_H = utility_HM[rows_H, choice_H] - utility_HM[rows_H, single]
        known = np.isfinite(gain_H)
        if known.any():
            low, high = intervals(gain_H[None], options.seed)[0]
            yield HeldOut(
                name, table.models[single], float(gain_H[known].mean()), (float(low), float(high)), int(known.sum())
            )


def check_domains(features_QD: Tensor, table: OutcomeTable, *, seed: int = 0) -> tuple[float, int] | None:
    """Train the domain head on four fifths of the queries, and try it on the last one.

    Args:
        features_QD: (Q, D) float32, row q for the table's query q.
        table: Q queries.
        seed: decides which queries are held out.

    Returns:
        The share of held-out queries whose domain comes out right, and how many have one; None where there are too few.
    """
    if len(np.unique(query_digests(table.queries))) < _LEAST_QUERIES:
        return None
    fold_Q = assign_folds(table.queries, _PARTS, seed=seed)
    learned, held_out = np.flatnonzero(fold_Q != 0), np.flatnonzero(fold_Q == 0)
    rows = torch.from_numpy(learned).to(features_QD.device)
    document = fit_domain_head(features_QD[rows], table.take(learned))
    held_out = np.array(
        [q for q in held_out.tolist() if table.has_category(q) and table.domains[q] in DOMAIN_NAMES], np.int64
    )
    if document is None or not len(held_out):
        return None
    head = DomainHead(document).to(features_QD.device)
    with torch.no_grad():
        predicted_H = head.predict(features_QD[torch.from_numpy(held_out).to(features_QD.device), :-N_DOMAINS]).cpu()
    right = [KNOWN_DOMAINS[p] == table.domains[q] for p, q in zip(predicted_H.tolist(), held_out, strict=True)]
    return sum(right) / len(right), len(right)
