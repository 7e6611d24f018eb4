"""What a place with a capped model and a dollar of a budget are worth: the linear program's dual, made smooth."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["dual_prices"]

_COOLING = 0.2
_STEPS = 30
"""Newton steps at one temperature, at most; a few are enough."""
_DAMPING = (1e-9, 1e-5, 1e-3, 1e-1, 1e1, 1e3, 1e5)
"""Of a step, against the largest curvature: the next one where a step leads up, as where prices replace one another."""
_ROWS_A_WIDTH = 1000
"""Rows that tell the curvature at one temperature: the hotter, the fewer are needed."""
_LEAST_ROWS = 4096


def dual_prices(value_QM: Tensor, cap_M: Tensor, cost_QM: Tensor | None, budget: float) -> tuple[Tensor, float]:
    """Prices at which rows that each choose value - price keep about within the limits.

    The dual of the assignment's linear program is min over prices >= 0 of sum_q max_m (value - price_m - rate *
    cost)_qm + sum_m price_m * cap_m + rate * budget. The maximum is replaced by a soft one, whose temperature falls
    until only a few rows are undecided; each time Newton's method with the prices kept >= 0 starts from the prices
    before.

    Args:
        value_QM: (Q, M) float64, finite.
        cap_M: (M,) float64, most rows a model; Q for a model without a limit.
        cost_QM: (Q, M) float64 of each row and model, all >= 0; None without a budget.
        budget: for all rows together.

    Returns:
        (M,) price of a place with each model, 0 for one without a limit, and the price of a unit of cost.

    Source:
        Nesterov (2005), Smooth minimization of non-smooth functions, doi:10.1007/s10107-004-0552-5; Bertsekas (1982),
        Projected Newton methods, doi:10.1137/0320018; Levenberg (1944), doi:10.1090/qam/10666, damping.
    """
    n = len(value_QM)
    capped = (cap_M < n).nonzero().squeeze(1)
    scale = 1.0
    if cost_QM is not None:
        scale = float(cost_QM.amax(dim=1).mean()) or 1.0
    limit_K = cap_M[capped] / n
    if cost_QM is not None:
        limit_K = torch.cat([limit_K, limit_K.new_tensor([budget / scale / n])])
    order_Q = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(value_QM.device)
    price_K = torch.zeros_like(limit_K)
    spread = float((value_QM.amax(dim=1) - value_QM.amin(dim=1)).mean()) or 1.0
    sample: Tensor | None = None
    for temperature in _temperatures(spread, n):
        n_rows = min(n, max(_LEAST_ROWS, int(_ROWS_A_WIDTH * spread / temperature)))
        if sample is None or n_rows > len(sample):
            rows = order_Q[:n_rows] if n_rows < n else slice(None)
            sample = value_QM[rows]
            costs = None if cost_QM is None else cost_QM[rows] / scale
        price_K = _newton(sample, costs, capped, limit_K, price_K, temperature)
    price_M = torch.zeros_like(cap_M)
    price_M[capped] = price_K[: len(capped)]
    return price_M, float(price_K[-1]) / scale if cost_QM is not None else 0.0


def _temperatures(spread: float, n: int) -> Iterator[float]:
    """From the values' own spread to about that between two rows that are next to each other."""
    temperature = spread
    while True:
        yield temperature
        if temperature <= spread / n:
            return
        temperature = max(_COOLING * temperature, spread / n)


def _newton(
    value_RM: Tensor, cost_RM: Tensor | None, capped: Tensor, limit_K: Tensor, price_K: Tensor, temperature: float
) -> Tensor:
    at = _Point(value_RM, cost_RM, capped, limit_K, price_K, temperature)
    for _ in range(_STEPS):
        free = ((at.price_K > 0) | (at.slope_K < 0)).nonzero().squeeze(1)
        slope_F = at.slope_K[free]
        if not len(free) or float(slope_F.abs().max()) < 0.5 / len(value_RM):
            break
        curve_FF = at.curve_KK[free][:, free]
        widest = float(curve_FF.diagonal().amax()) + 1e-10
        for damping in _DAMPING:
            damped_FF = curve_FF + damping * widest * torch.eye(len(free)).to(curve_FF)
            step_K = torch.zeros_like(at.price_K).index_put((free,), torch.linalg.solve(damped_FF, slope_F))
            new = _Point(value_RM, cost_RM, capped, limit_K, (at.price_K - step_K).clamp(min=0), temperature)
            if new.height < at.height + 1e-4 * float(at.slope_K @ (new.price_K - at.price_K)):
                break
        else:
            break
        at = new
    return at.price_K


class _Point:
    """The smoothed dual, a row's mean, with slope and curvature."""

    def __init__(
        self,
        value_RM: Tensor,
        cost_RM: Tensor | None,
        capped: Tensor,
        limit_K: Tensor,
        price_K: Tensor,
        temperature: float,
    ) -> None:
        n, n_capped = len(value_RM), len(capped)
        self.price_K = price_K
        price_M = price_K.new_zeros(value_RM.shape[1]).index_put((capped,), price_K[:n_capped])
        scores_RM = value_RM - price_M
        if cost_RM is not None:
            scores_RM = scores_RM - price_K[-1] * cost_RM
        best_R1 = scores_RM.amax(dim=1, keepdim=True)
        weight_RM = ((scores_RM - best_R1) / temperature).exp_()
        sum_R1 = weight_RM.sum(dim=1, keepdim=True)
        soft = best_R1.mean() + temperature * sum_R1.log().mean()
        self.height = float(soft + price_K @ limit_K)
        weight_RM /= sum_R1
        use_RK = weight_RM[:, capped]
        both_KK = use_RK.sum(dim=0).diag()  # the same model twice, never two of them
        if cost_RM is not None:
            paid_RM = weight_RM * cost_RM
            use_RK = torch.cat([use_RK, paid_RM.sum(dim=1, keepdim=True)], dim=1)
            across_K = torch.cat([paid_RM[:, capped].sum(dim=0), (paid_RM * cost_RM).sum()[None]])
            both_KK = torch.cat([torch.cat([both_KK, across_K[None, :-1]]), across_K[:, None]], dim=1)
        self.slope_K = limit_K - use_RK.mean(dim=0)
        self.curve_KK = (both_KK - use_RK.T @ use_RK) / (n * temperature)
