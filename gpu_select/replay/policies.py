"""What a policy does to a log: how many queries go to each model, what that costs, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gpu_select.replay.log import ReplayedLog
from gpu_select.replay.outcomes import Agreement, agreement

__all__ = ["DomainRow", "Kind", "ModelRow", "Policy", "play_policy"]

Kind = Literal["logged", "selector", "single", "best", "limits"]


@dataclass(frozen=True)
class ModelRow:
    """The queries that one model gets. Means a query; None where unknown, or without queries."""

    model: str
    queries: int
    quality: float | None
    time_s: float | None
    cost_usd: float | None


@dataclass(frozen=True)
class DomainRow:
    """The queries of one domain."""

    name: str
    queries: int
    quality: float | None
    time_s: float | None
    cost_usd: float | None
    chosen: dict[str, int]
    """Queries by model; those that get none are left out."""


@dataclass(frozen=True)
class Policy:
    """One way to choose, on the whole log."""

    name: str
    kind: Kind
    queries: int
    """Fewer than the log's only for what the log itself did, where it names models that the records know."""
    quality: float | None
    """Expected mean."""
    time_s: float | None
    cost_usd: float | None
    """A query."""
    models: list[ModelRow]
    """All models, those with most queries first."""
    domains: list[DomainRow]
    """By number of queries."""
    outcomes: list[Agreement]
    """Where the log tells what came of the same choices."""


def play_policy(log: ReplayedLog, name: str, kind: Kind, choice_Q: Tensor) -> Policy:
    """The figures of one policy.

    Args:
        log: Q rows, M models.
        name, kind: of the policy.
        choice_Q: (Q,) places of models, -1 for a row to leave out.
    """
    n_domains, n_models = len(log.domains), len(log.models)
    rows = (choice_Q >= 0).nonzero().squeeze(1)
    choice_R = choice_Q[rows]
    cell_R = log.domain_Q[rows] * n_models + choice_R

    def table(values_R: Tensor | None) -> Tensor:
        return torch.bincount(cell_R, values_R, minlength=n_domains * n_models).view(n_domains, n_models).cpu()

    count_GM = table(None)
    expected = {figure: values_QM[rows, choice_R].double() for figure, values_QM in log.figures.items()}
    sums = {figure: table(values_R) for figure, values_R in expected.items()}

    def means(where: tuple[int | slice, int | slice]) -> dict[str, float | None]:
        n = int(count_GM[where].sum())
        # a cell without queries adds 0, even where nothing is known of its model
        totals = {figure: float(sum_GM[where].sum()) for figure, sum_GM in sums.items()}
        return {figure: total / n if n and np.isfinite(total) else None for figure, total in totals.items()}

    everything = slice(None)
    model_counts, domain_counts = count_GM.sum(dim=0), count_GM.sum(dim=1)
    logged_R = log.logged_Q[rows].cpu().numpy()
    same_R = logged_R == choice_R.cpu().numpy()
    at = rows.cpu().numpy()[same_R]
    outcomes = [
        agreement(figure, values_R.cpu().numpy()[same_R], log.realised[figure][at], log.group_Q[at])
        for figure, values_R in expected.items()
    ]
    return Policy(
        name=name,
        kind=kind,
        queries=len(rows),
        **means((everything, everything)),
        models=[
            ModelRow(log.models[m], int(model_counts[m]), **means((everything, m)))
            for m in model_counts.argsort(descending=True, stable=True).tolist()
        ],
        domains=[
            DomainRow(log.domains[g], int(domain_counts[g]), **means((g, everything)), chosen=_chosen(log, count_GM[g]))
            for g in domain_counts.argsort(descending=True, stable=True).tolist()
        ],
        outcomes=[found for found in outcomes if found is not None],
    )


def _chosen(log: ReplayedLog, count_M: Tensor) -> dict[str, int]:
    return {
        log.models[m]: int(count_M[m]) for m in count_M.argsort(descending=True, stable=True).tolist() if count_M[m]
    }
