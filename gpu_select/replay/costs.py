"""What a query costs with each model: prices by tokens, or the costs that benchmark records name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.records import OutcomeTable
from gpu_select.replay.expected import Expected

__all__ = ["Costs", "Price"]

Price = tuple[float | None, float | None]
"""USD for a million input tokens and for a million output tokens; None where unknown."""


@dataclass(frozen=True, eq=False)
class Costs:
    """How the cost of each of M models is found.

    A model with both prices costs its tokens. Input tokens are those that the log names, else the encoder's tokens of
    the query, times what the model's own tokens are to the encoder's on the records, where those tell. Output tokens
    are what the records let expect. A model without prices costs what the records let expect, where they name costs.
    """

    price_M2: NDArray[np.float64]
    """USD a token in and out; NaN where tokens do not decide the cost."""
    from_records_M: NDArray[np.bool_]
    ratio_M: NDArray[np.float64]
    """The model's input tokens a token of the encoder's tokenizer, on the records; 1 where they do not tell."""
    measured_M: NDArray[np.bool_]
    """Whether the records tell that ratio."""
    unknown: dict[str, str]
    """Models without a cost, and why."""

    @classmethod
    def of(
        cls, table: OutcomeTable, prices: Mapping[str, Price], count: Callable[[Sequence[str]], NDArray[np.int64]]
    ) -> Costs:
        """Costs as records and prices allow.

        Args:
            table: Q queries x M models.
            prices: by model name.
            count: tokens of texts by the encoder's tokenizer, `Tokenizer.count`.
        """
        price_M2 = np.array([prices.get(name, (None, None)) for name in table.models], dtype=np.float64) / 1e6
        priced_M = np.asarray(np.isfinite(price_M2).all(axis=1))
        has_tokens_M = _any_known(table.output_tokens_QM, len(table.models))
        by_tokens_M = priced_M & (has_tokens_M | (price_M2[:, 1] == 0))
        from_records_M = ~by_tokens_M & _any_known(table.cost_usd_QM, len(table.models))
        unknown = {
            name: "the records have no output_tokens of it" if priced_M[m] else "it has no prices"
            for m, name in enumerate(table.models)
            if not (by_tokens_M[m] or from_records_M[m])
        }
        ratio_M = np.full(len(table.models), np.nan)
        if table.input_tokens_QM is not None and (by_tokens_M & (price_M2[:, 0] > 0)).any():
            known_QM = np.isfinite(table.input_tokens_QM)
            counted_M = np.asarray(count(table.queries), dtype=np.float64) @ known_QM
            told_M = np.where(known_QM, table.input_tokens_QM, 0).sum(axis=0)
            ratio_M = np.where(counted_M > 0, told_M / np.maximum(counted_M, 1), np.nan)
        return cls(
            price_M2=np.where(by_tokens_M[:, None], price_M2, np.nan),
            from_records_M=from_records_M,
            ratio_M=np.nan_to_num(ratio_M, nan=1.0),
            measured_M=np.isfinite(ratio_M),
            unknown=unknown,
        )

    @property
    def pay_for_input(self) -> bool:
        """Whether input tokens have to be known."""
        return bool((self.price_M2[:, 0] > 0).any())

    def usd(self, expected: Expected, logged_B: NDArray[np.float64], counted_B: NDArray[np.int64]) -> Tensor:
        """(B, M) float32 USD of each query with each model; NaN where it is not known.

        Args:
            expected: what the records tell.
            logged_B: (B,) input tokens that the log names, NaN where it does not.
            counted_B: (B,) the encoder's tokens of each query; looked at only where `logged_B` has none.
        """
        device = expected.quality_BM.device
        tokens_BM = np.where(np.isfinite(logged_B)[:, None], logged_B[:, None], counted_B[:, None] * self.ratio_M)
        price_M2 = torch.from_numpy(self.price_M2.astype(np.float32)).to(device)
        input_BM = torch.from_numpy(tokens_BM.astype(np.float32)).to(device) * price_M2[:, 0]
        # what costs nothing does so whatever its length
        output_BM = torch.where(price_M2[:, 1] == 0, 0.0, expected.output_tokens_BM * price_M2[:, 1])
        from_records_M = torch.from_numpy(self.from_records_M).to(device)
        return torch.where(from_records_M, expected.cost_usd_BM, input_BM + output_BM)


def _any_known(values_QM: NDArray[np.float64] | None, n_models: int) -> NDArray[np.bool_]:
    return np.zeros(n_models, bool) if values_QM is None else np.asarray(np.isfinite(values_QM).any(axis=0))
