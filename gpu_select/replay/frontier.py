"""The best trades of value for price: all allocations between the cheapest and the best, in one sort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["Frontier"]


@dataclass(frozen=True, eq=False)
class Frontier:
    """Every row starts with its cheapest model; E upgrades follow, those that gain most value a unit of price first.

    After any number of upgrades no other allocation of the same price has more value: this is the greedy solution of
    the linear relaxation of the multiple-choice knapsack problem. A row's own upgrades follow its upper concave hull,
    so their rates fall, and one sort over all rows keeps them in order.

    Source:
        Sinha and Zoltners (1979), The multiple-choice knapsack problem, doi:10.1287/opre.27.3.503.
    """

    start_Q: Tensor
    """(Q,) the cheapest model, of several the one of most value."""
    row_E: Tensor
    before_E: Tensor
    after_E: Tensor
    """The row, and its model before and after the upgrade."""
    gain_E: Tensor
    extra_E: Tensor
    """Value gained and price paid in addition, both > 0."""
    rate_E: Tensor
    """Value a unit of price, falling."""

    @classmethod
    def of(cls, value_QM: Tensor, price_QM: Tensor) -> Self:
        """Walk all rows' hulls at once: at most M - 1 steps.

        Args:
            value_QM: (Q, M) float64, finite.
            price_QM: (Q, M) float64, finite, on the same device.
        """
        cheapest_Q1 = price_QM.amin(dim=1, keepdim=True)
        start_Q = value_QM.masked_fill(price_QM > cheapest_Q1, -torch.inf).argmax(dim=1)
        rows, now_R = torch.arange(len(start_Q), device=start_Q.device), start_Q
        last_R = value_QM.new_full((len(rows),), torch.inf)
        parts = []
        while True:
            values_RM, prices_RM = value_QM[rows], price_QM[rows]
            gain_RM = values_RM - values_RM.gather(1, now_R[:, None])
            extra_RM = prices_RM - prices_RM.gather(1, now_R[:, None])
            rate_RM = torch.where((gain_RM > 0) & (extra_RM > 0), gain_RM / extra_RM, -torch.inf)
            rate_R, next_R = rate_RM.max(dim=1)
            moving = (rate_R > -torch.inf).nonzero().squeeze(1)
            if not len(moving):
                break
            rows, before_R, now_R = rows[moving], now_R[moving], next_R[moving]
            last_R = torch.minimum(rate_R[moving], last_R[moving])  # rounding must not put a later upgrade first
            at = moving, now_R
            parts.append((rows, before_R, now_R, gain_RM[at], extra_RM[at], last_R))
        if not parts:
            none, nothing = start_Q[:0], value_QM.new_empty(0)
            return cls(start_Q, none, none, none, nothing, nothing, nothing)
        row_E, before_E, after_E, gain_E, extra_E, rate_E = (torch.cat(c) for c in zip(*parts, strict=True))
        order_E = rate_E.argsort(descending=True, stable=True)
        return cls(start_Q, *(x[order_E] for x in (row_E, before_E, after_E, gain_E, extra_E, rate_E)))

    def choice(self, n_upgrades: int) -> Tensor:
        """(Q,) each row's model after the first upgrades."""
        places = torch.arange(n_upgrades, device=self.start_Q.device)
        last_Q = torch.full_like(self.start_Q, -1).scatter_reduce(0, self.row_E[:n_upgrades], places, "amax")
        return torch.where(last_Q >= 0, self.after_E[last_Q.clamp(min=0)], self.start_Q) if n_upgrades else self.start_Q

    def affordable(self, price: float) -> int:
        """How many upgrades may be bought, from the first on, for that much in addition to the start."""
        paid_E = self.extra_E.cumsum(dim=0)
        return int(torch.searchsorted(paid_E, paid_E.new_tensor(price), right=True))

    def stops(self, most: int) -> list[int]:
        """Up to `most` numbers of upgrades, evenly spaced in price, none of them between upgrades of one rate."""
        n = len(self.rate_E)
        if not n:
            return [0]
        falls = torch.nonzero(self.rate_E[1:] < self.rate_E[:-1]).squeeze(1) + 1
        possible = torch.cat([falls.new_tensor([0]), falls, falls.new_tensor([n])])
        paid_P = torch.cat([self.extra_E.new_zeros(1), self.extra_E.cumsum(dim=0)])[possible]
        targets = torch.linspace(0, float(paid_P[-1]), most, dtype=paid_P.dtype, device=paid_P.device)
        chosen = possible[torch.searchsorted(paid_P, targets).clamp(max=len(possible) - 1)]
        return sorted({0, n, *chosen.tolist()})

    def rate_at(self, n_upgrades: int) -> float:
        """A rate at which just these upgrades pay: infinite before the first, 0 after the last."""
        if n_upgrades == 0:
            return float("inf")
        if n_upgrades == len(self.rate_E):
            return 0.0
        return float(self.rate_E[n_upgrades - 1] + self.rate_E[n_upgrades]) / 2

    def totals(self, figure_QM: Tensor, stops: list[int]) -> Tensor:
        """(P,) float64 sums of a (Q, M) figure over all rows, after each number of upgrades."""
        start = figure_QM.gather(1, self.start_Q[:, None]).sum(dtype=torch.float64)
        change_E = figure_QM[self.row_E, self.after_E].double() - figure_QM[self.row_E, self.before_E].double()
        changes = torch.cat([change_E.new_zeros(1), change_E.cumsum(dim=0)])
        return start + changes[torch.tensor(stops, device=changes.device)]
