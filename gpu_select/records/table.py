"""The outcome table: what each of M models scored, took and cost on each of Q queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpu_select.domains import domain_index

__all__ = ["OutcomeTable", "with_prices"]


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """What each of M models scored on each of Q queries. A model that did not answer a query has NaN there."""

    queries: list[str]
    domains: list[str]
    models: list[str]
    quality_QM: NDArray[np.float64]
    """In [0, 1]."""
    latency_s_QM: NDArray[np.float64]
    """Seconds; NaN also where a record has no response_time."""
    input_tokens_QM: NDArray[np.float64] | None = None
    """Tokens of the prompt, NaN where unknown; None where no record has them."""
    output_tokens_QM: NDArray[np.float64] | None = None
    """Tokens of the answer."""
    cost_usd_QM: NDArray[np.float64] | None = None
    """USD for the call, NaN where unknown; None where nothing is known."""
    without_category_Q: NDArray[np.bool_] | None = None
    """Whether no record names the query's domain, which then is "other"; None where all are named."""

    def has_category(self, q: int) -> bool:
        """Whether a record names the domain of query q."""
        return self.without_category_Q is None or not self.without_category_Q[q]

    def domain_indices(self) -> NDArray[np.int64]:
        """Slot of each query's domain in the one-hot."""
        return np.array([domain_index(name) for name in self.domains], dtype=np.int64)

    def domain_groups(self) -> NDArray[np.int64]:
        """(Q,) the number of each query's domain name among those that occur: two names may share a slot."""
        return np.unique(self.domains, return_inverse=True)[1].reshape(-1)

    def take(self, rows_R: NDArray[np.int64]) -> OutcomeTable:
        """The table of some queries: (R,) row numbers. All models stay, even without an outcome."""
        return replace(
            self,
            queries=[self.queries[q] for q in rows_R],
            domains=[self.domains[q] for q in rows_R],
            quality_QM=self.quality_QM[rows_R],
            latency_s_QM=self.latency_s_QM[rows_R],
            input_tokens_QM=None if self.input_tokens_QM is None else self.input_tokens_QM[rows_R],
            output_tokens_QM=None if self.output_tokens_QM is None else self.output_tokens_QM[rows_R],
            cost_usd_QM=None if self.cost_usd_QM is None else self.cost_usd_QM[rows_R],
            without_category_Q=None if self.without_category_Q is None else self.without_category_Q[rows_R],
        )


def with_prices(table: OutcomeTable, prices: Mapping[str, tuple[float | None, float | None]]) -> OutcomeTable:
    """Fill in what outcomes cost from their token counts. A cost that the records tell stays.

    Args:
        table: Q queries x M models.
        prices: by model name, USD for a million input tokens and for a million output tokens; None where unknown.

    Returns:
        The table with more of `cost_usd_QM`.
    """
    if table.input_tokens_QM is None or table.output_tokens_QM is None:
        return table
    price_2M = np.array([prices.get(model, (None, None)) for model in table.models], dtype=np.float64).T
    cost_QM = (table.input_tokens_QM * price_2M[0] + table.output_tokens_QM * price_2M[1]) / 1e6
    if table.cost_usd_QM is not None:
        cost_QM = np.where(np.isfinite(table.cost_usd_QM), table.cost_usd_QM, cost_QM)
    return replace(table, cost_usd_QM=cost_QM if np.isfinite(cost_QM).any() else None)
