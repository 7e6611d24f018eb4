"""Candidates ranked on the device: every query by the selector of its own decision, among its own candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_select.selectors import Selector

__all__ = ["CandidateRanking", "Ranked"]


class Ranked(NamedTuple):
    """The candidates of B queries, the best first."""

    model_BK: Tensor
    """(B, K) int64, indices into `models`; what lies behind a decision's own number of candidates means nothing."""
    score_B: Tensor
    """(B,) float32, the best one's score."""
    margin_B: Tensor
    """(B,) float32, how far the next one lies behind; infinite where there is none."""


class CandidateRanking(nn.Module):
    """Ranks E lists of candidates. A tie goes to the model that its selector has first.

    Candidates that a list's selector does not have come last, in the order of the list.

    Args:
        candidates: the names of each list, at most K; one may be empty.
        selectors: S selectors of the same width.
        selector_of: for each list, which of them ranks it; None for the order of the list, with scores 0, -1, -2 and
            so on.

    Attributes:
        models: all names in the lists.
    """

    order_EK: Tensor
    score_EK: Tensor

    def __init__(
        self, candidates: Sequence[Sequence[str]], selectors: Sequence[Selector], selector_of: Sequence[int | None]
    ) -> None:
        super().__init__()
        self.models = tuple(dict.fromkeys(name for names in candidates for name in names))
        place = {name: m for m, name in enumerate(self.models)}
        E, K = len(candidates), max(1, *map(len, candidates))
        order_EK, score_EK = torch.zeros(E, K, dtype=torch.int64), torch.full((E, K), -torch.inf)
        score_EK[:, 0] = 0  # of an empty list, too: every score is to be a number
        for e, names in enumerate(candidates):
            order_EK[e, : len(names)] = torch.tensor([place[name] for name in names], dtype=torch.int64)
            score_EK[e, : len(names)] = -torch.arange(len(names), dtype=torch.float32)
        self.register_buffer("order_EK", order_EK)
        self.register_buffer("score_EK", score_EK)
        self.parts = nn.ModuleList(
            _Part(
                selector,
                [names if selector_of[e] == s else None for e, names in enumerate(candidates)],
                place,
                K,
            )
            for s, selector in enumerate(selectors)
        )

    def forward(self, features_BD: Tensor, list_B: Tensor) -> Ranked:
        """Rank each query's list. No host sync; every selector scores every query.

        Args:
            features_BD: (B, D) float32.
            list_B: (B,) int64 in [0, E).
        """
        model_BK, score_BK = self.order_EK[list_B], self.score_EK[list_B]
        for part in self.parts:
            here_B1, models_BK, scores_BK = part(features_BD, list_B)
            model_BK = torch.where(here_B1, models_BK, model_BK)
            score_BK = torch.where(here_B1, scores_BK, score_BK)
        # some rows come out as the nearest of a NaN, too, and their votes are finite
        best_B = score_BK[:, 0] + 0 * features_BD.sum(dim=1)
        if score_BK.shape[1] == 1:
            return Ranked(model_BK, best_B, torch.full_like(best_B, torch.inf))
        return Ranked(model_BK, best_B, best_B - score_BK[:, 1])


class _Part(nn.Module):
    """One selector, and the lists that it ranks."""

    here_E: Tensor
    candidate_EM: Tensor
    place_M: Tensor
    rest_EK: Tensor

    def __init__(
        self, selector: Selector, lists: Sequence[Sequence[str] | None], place: dict[str, int], K: int
    ) -> None:
        super().__init__()
        self.selector = selector
        # what is not this selector's is scored like any query, and its scores are not looked at
        candidate_EM = [[names is None or model in names for model in selector.models] for names in lists]
        self.register_buffer("here_E", torch.tensor([names is not None for names in lists]))
        self.register_buffer("candidate_EM", torch.tensor(candidate_EM))
        self.register_buffer("place_M", torch.tensor([place.get(model, 0) for model in selector.models]))
        self._takes_all = all(map(all, candidate_EM))
        rest_EK = torch.full((len(lists), K), -1)
        for e, names in enumerate(lists):
            rest = [place[name] for name in names or () if name not in selector.models]
            n_ranked = len(names or ()) - len(rest)
            rest_EK[e, n_ranked : n_ranked + len(rest)] = torch.tensor(rest, dtype=torch.int64)
        self.register_buffer("rest_EK", rest_EK)
        self._has_all = bool((rest_EK < 0).all())

    def forward(self, features_BD: Tensor, list_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1) whether a query's list is this selector's, (B, K) its candidates in order, (B, K) their scores."""
        mask_BM = None if self._takes_all else self.candidate_EM[list_B]
        scores_BM = self.selector(features_BD, mask_BM)
        scores_BM, order_BM = torch.sort(scores_BM, dim=1, descending=True, stable=True)
        K = self.rest_EK.shape[1]
        scores_BK, models_BK = scores_BM[:, :K], self.place_M[order_BM[:, :K]]
        if scores_BK.shape[1] < K:
            beyond = 0, K - scores_BK.shape[1]
            scores_BK = functional.pad(scores_BK, beyond, value=-torch.inf)
            models_BK = functional.pad(models_BK, beyond)
        if not self._has_all:  # behind the ranked ones stand only models that are no candidates
            rest_BK = self.rest_EK[list_B]
            models_BK = torch.where(rest_BK >= 0, rest_BK, models_BK)
        return self.here_E[list_B][:, None], models_BK, scores_BK
