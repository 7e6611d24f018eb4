"""The most value within a budget and within limits for single models."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from gpu_select.errors import ConfigError
from gpu_select.replay.capped import assign_capped
from gpu_select.replay.frontier import Frontier
from gpu_select.replay.smoothed_dual import dual_prices

__all__ = ["Allocation", "allocate"]

_ROUNDING = 1e-9
"""Share of a budget by which sums of many small costs may be off."""
_NEAR_ROWS = 16
"""About so many rows change at the first step away from the smoothed price of money."""
_MOST_LINES = 100
"""Assignments that the search for the price of money may take; some ten are enough."""
_PRECISION = 1e-12


@dataclass(frozen=True, eq=False)
class Allocation:
    """A model for every row."""

    choice_Q: Tensor
    """(Q,) int64."""
    bound: float
    """No allocation within the limits has more value, not even one that may split rows."""


def allocate(
    value_QM: Tensor, *, cost_QM: Tensor | None = None, budget: float | None = None, cap_M: Tensor | None = None
) -> Allocation:
    """Maximise the sum of value over Q rows.

    Without limits every row gets its best model. Limits for models alone make a transportation problem, which is solved
    exactly. A budget alone makes a multiple-choice knapsack problem, and both together a linear program with a few
    coupled rows: there the result is short of the bound by what a row or two are worth, as rows are not split.

    Args:
        value_QM: (Q, M) float64, finite; at equal value the first model wins.
        cost_QM: (Q, M) float64, finite and >= 0; needed with a budget.
        budget: most cost of all rows together.
        cap_M: (M,) int64, most rows a model.

    Raises:
        ConfigError: nothing keeps the limits: the text says what is the least that would do.
    """
    n_rows = len(value_QM)
    if cap_M is not None:
        cap_M = cap_M.clamp(max=n_rows)
        if int(cap_M.sum()) < n_rows:
            raise ConfigError("max-share", int(cap_M.sum()), f"shares with room for all {n_rows} rows together")
        open_models = cap_M.nonzero().squeeze(1)
        if len(open_models) < len(cap_M):
            costs = None if cost_QM is None else cost_QM[:, open_models]
            found = allocate(value_QM[:, open_models], cost_QM=costs, budget=budget, cap_M=cap_M[open_models])
            return Allocation(open_models[found.choice_Q], found.bound)
        if bool((cap_M == n_rows).all()):
            cap_M = None
    best = _best(value_QM, cap_M)
    if budget is None:
        return best
    assert cost_QM is not None
    budget *= 1 + _ROUNDING
    if _total(cost_QM, best.choice_Q) <= budget:
        return best
    cheapest = _best(-cost_QM, cap_M).choice_Q
    least = _total(cost_QM, cheapest)
    if least > budget:
        within = "" if cap_M is None else " within these shares"
        expected = f"at least {least:.6g} USD for all {n_rows} rows, the cost of the cheapest choices{within}"
        raise ConfigError("budget", budget / (1 + _ROUNDING), expected)
    if cap_M is None:
        return _knapsack(value_QM, cost_QM, budget)
    return _both(value_QM, cost_QM, budget, cap_M, best.choice_Q, cheapest)


def _total(figure_QM: Tensor, choice_Q: Tensor) -> float:
    return float(figure_QM.gather(1, choice_Q[:, None]).sum())


def _best(value_QM: Tensor, cap_M: Tensor | None) -> Allocation:
    if cap_M is None:
        value_Q, choice_Q = value_QM.max(dim=1)
        return Allocation(choice_Q, float(value_Q.sum()))
    price_M, _ = dual_prices(value_QM, cap_M.double(), None, 0.0)
    return _assigned(value_QM, cap_M, price_M)[0]


def _assigned(value_QM: Tensor, cap_M: Tensor, price_M: Tensor) -> tuple[Allocation, Tensor]:
    """The best assignment, and the models' prices in it."""
    choice_Q, worth_M = assign_capped(value_QM, cap_M, (value_QM - price_M).argmax(dim=1))
    bound = (value_QM - worth_M).amax(dim=1).sum() + (worth_M * cap_M).sum()
    return Allocation(choice_Q, float(bound)), worth_M


def _knapsack(value_QM: Tensor, cost_QM: Tensor, budget: float) -> Allocation:
    """Upgrades from the cheapest choices on, as long as the money lasts."""
    frontier = Frontier.of(value_QM, cost_QM)
    left = budget - _total(cost_QM, frontier.start_Q)
    n_bought = frontier.affordable(left)
    choice_Q = frontier.choice(n_bought)
    bound = _total(value_QM, choice_Q)
    if n_bought < len(frontier.rate_E):  # the next one in part, as the linear program would
        bound += (left - float(frontier.extra_E[:n_bought].sum())) * float(frontier.rate_E[n_bought])
    return Allocation(choice_Q, bound)


def _both(
    value_QM: Tensor, cost_QM: Tensor, budget: float, cap_M: Tensor, best_Q: Tensor, cheapest_Q: Tensor
) -> Allocation:
    """Find the price of money at which assignments of most value within the shares cost just the budget.

    An assignment's value - price * cost is a line over the price. Where the lines of one that is too dear and one that
    is not meet, there is either an assignment above both, which takes the place of one, or the price is found.
    """
    dear = _total(value_QM, best_Q), _total(cost_QM, best_Q)
    cheap = _total(value_QM, cheapest_Q), _total(cost_QM, cheapest_Q)
    choice_Q, bound = cheapest_Q, float("inf")
    price_M, rate = dual_prices(value_QM, cap_M.double(), cost_QM, budget)
    near, sides, at_meeting = _NEAR_ROWS / len(value_QM), set[bool](), False
    for _ in range(_MOST_LINES):
        found, price_M = _assigned(value_QM - rate * cost_QM, cap_M, price_M)
        bound = min(bound, found.bound + rate * budget)
        line = _total(value_QM, found.choice_Q), _total(cost_QM, found.choice_Q)
        sides.add(line[1] > budget)
        if line[0] - rate * line[1] - max(v - rate * c for v, c in (dear, cheap)) > _PRECISION * abs(line[0]):
            if line[1] > budget:
                dear = min(dear, line, key=itemgetter(1))
            elif line[1] > cheap[1] or line[0] > cheap[0]:
                cheap, choice_Q = line, found.choice_Q
        elif at_meeting:
            break
        at_meeting = at_meeting or near >= 1 or len(sides) == 2
        if at_meeting:
            rate = (dear[0] - cheap[0]) / (dear[1] - cheap[1])
        else:  # first on both sides of the smoothed price, where few rows change
            rate *= 1 + near if line[1] > budget else 1 - near
            near *= 4
    return Allocation(_filled(value_QM, cost_QM, choice_Q, budget, cap_M), bound)


def _filled(value_QM: Tensor, cost_QM: Tensor, choice_Q: Tensor, budget: float, cap_M: Tensor) -> Tensor:
    """Spend what is left on the single changes that gain most a dollar, where their models have room."""
    left = budget - _total(cost_QM, choice_Q)
    room_M = cap_M - torch.bincount(choice_Q, minlength=len(cap_M))
    gain_QM = value_QM - value_QM.gather(1, choice_Q[:, None])
    extra_QM = cost_QM - cost_QM.gather(1, choice_Q[:, None])
    rate_QM = torch.where((gain_QM > 0) & (extra_QM <= left) & (room_M > 0), gain_QM / extra_QM.clamp(min=1e-300), 0.0)
    rate_Q, model_Q = rate_QM.max(dim=1)
    order_R = rate_Q.argsort(descending=True, stable=True)[: int((rate_Q > 0).sum())]
    model_R = model_Q[order_R]
    extra_R = extra_QM[order_R, model_R]
    member_RM = torch.nn.functional.one_hot(model_R, len(cap_M))
    fits_R = (extra_R.clamp(min=0).cumsum(dim=0) <= left) & (member_RM.cumsum(dim=0) <= room_M).all(dim=1)
    taken = order_R[fits_R]
    return choice_Q.index_put((taken,), model_Q[taken])
