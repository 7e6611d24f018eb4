"""Quality and choices by domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_select.evaluation.play import Play, Selection

__all__ = ["DomainRow", "by_domain"]


@dataclass(frozen=True)
class DomainRow:
    """One domain."""

    name: str
    queries: int
    quality: dict[str, float | None]
    """Mean quality by strategy; None where its choices have no outcome here."""
    chosen: dict[str, dict[str, int]]
    """By selector, how many queries go to each model; models that get none are left out."""


def by_domain(played: Play, selections: Mapping[str, Selection]) -> list[DomainRow]:
    """One row a domain, by name."""
    models = played.table.models
    names, domain_Q = np.unique(np.array(played.table.domains), return_inverse=True)
    known_SQ = np.isfinite(played.quality_SQ)
    member_QG = (domain_Q[:, None] == np.arange(len(names))).astype(float)
    counts_SG = known_SQ @ member_QG
    means_SG = np.where(played.quality_SQ == played.quality_SQ, played.quality_SQ, 0) @ member_QG
    rows = []
    for g, name in enumerate(names.tolist()):
        quality = {
            strategy: float(means_SG[s, g] / counts_SG[s, g]) if counts_SG[s, g] else None
            for s, strategy in enumerate(played.names)
        }
        chosen = {}
        for selector, selection in selections.items():
            counts = np.bincount(selection.choice_Q[domain_Q == g], minlength=len(models))
            chosen[selector] = {models[m]: int(counts[m]) for m in np.argsort(-counts, kind="stable") if counts[m]}
        rows.append(DomainRow(name, int((domain_Q == g).sum()), quality, chosen))
    return rows
