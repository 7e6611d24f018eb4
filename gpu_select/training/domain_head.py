"""Training of the domain head: multinomial logistic regression on embeddings whose domain the records tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select.domain_file import DomainFile
from gpu_select.domains import DOMAIN_NAMES, N_DOMAINS
from gpu_select.records import OutcomeTable

__all__ = ["RIDGE", "fit_domain_head"]

RIDGE = 0.25
"""Chosen on MMLU-Pro by cross-validation, on 5,000 queries and on 1,000 (`bench/domains.py`)."""

_MOST_ITERATIONS = 300
_LEAST_GRADIENT = 1e-6


def fit_domain_head(
    features_QD: Tensor,
    table: OutcomeTable,
    own: Mapping[str, Any] | None = None,
    *,
    ridge: float = RIDGE,
) -> DomainFile | None:
    """Fit the head on the queries whose records name one of the documented domains.

    Minimises the sum of cross-entropies + ridge / 2 * the sum of squared weights: a prior that weighs the same whatever
    the number of queries.

    Args:
        features_QD: (Q, d + 14) float32, as for the selectors; only the embeddings are looked at.
        table: Q queries.
        own: what the selector files say of where they come from; the encoder is taken from it.
        ridge: on the weights, not on the biases.

    Returns:
        The file's contents, its domains in alphabetical order; None where there are fewer than two.

    Source:
        L-BFGS: Liu and Nocedal (1989), doi:10.1007/BF01589116.
    """
    rows = [q for q in range(len(table.queries)) if table.has_category(q) and table.domains[q] in DOMAIN_NAMES]
    domains = sorted({table.domains[q] for q in rows})
    if len(domains) < 2:
        return None
    place = {name: c for c, name in enumerate(domains)}
    x_Ld = features_QD[torch.tensor(rows, device=features_QD.device), :-N_DOMAINS]
    label_L = torch.tensor([place[table.domains[q]] for q in rows], device=features_QD.device)
    weight_Cd, bias_C = _minimise(x_Ld, label_L, len(domains), ridge)
    note = {"encoder": own["encoder"]} if own and "encoder" in own else {}
    note |= {"data": {"queries": len(rows)}, "ridge": ridge}
    return DomainFile(tuple(domains), weight_Cd.float().cpu().numpy(), bias_C.float().cpu().numpy(), note)


def _minimise(x_Ld: Tensor, label_L: Tensor, C: int, ridge: float) -> tuple[Tensor, Tensor]:
    """(C, d) weights and (C,) biases in float64; in float32 on MPS, which has no other."""
    x_Ld = x_Ld if x_Ld.device.type == "mps" else x_Ld.double()
    mean_d = x_Ld.mean(dim=0)
    x_Ld = x_Ld - mean_d  # the same minimum, in fewer steps
    weight_Cd = x_Ld.new_zeros(C, x_Ld.shape[1], requires_grad=True)
    bias_C = x_Ld.new_zeros(C, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_Cd, bias_C],
        max_iter=_MOST_ITERATIONS,
        history_size=20,
        tolerance_grad=_LEAST_GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = ridge / (2 * len(x_Ld)) * weight_Cd.square().sum()
        value = functional.cross_entropy(functional.linear(x_Ld, weight_Cd, bias_C), label_L) + penalty
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight_Cd, bias_C = weight_Cd.detach(), bias_C.detach()
    return weight_Cd, bias_C - weight_Cd @ mean_d
