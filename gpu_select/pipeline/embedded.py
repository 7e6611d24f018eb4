"""Deciding on rows that bring their embedding along: no encoder, and nothing an encoder would need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.domains import DEFAULT_DOMAIN, N_DOMAINS, domain_index
from gpu_select.features import build_features
from gpu_select.router import Routes
from gpu_select.selectors import Choice, Selector, choose
from gpu_select.stages import StageTimes

__all__ = ["EmbeddedRouter", "Vectors"]


class Vectors(NamedTuple):
    """Embeddings to decide on."""

    vectors_Bd: NDArray[np.float32]
    """(B, d), finite and of any length but 0."""
    slot_B: NDArray[np.int64]
    """(B,) slots of `domains.WIRE_ORDER`."""


class EmbeddedRouter:
    """A selector for embeddings that are there already. That they are the selector's encoder's, nobody can check.

    Args:
        selector: on any device.
        candidates: names of the models to choose from; by default all.

    Attributes:
        dim: d, the length of the embeddings it takes.
        models: what can be chosen.

    Raises:
        CandidateError: no candidate, or an unknown one.
    """

    def __init__(self, selector: Selector, candidates: Sequence[str] | None = None) -> None:
        self.selector = selector
        self.dim = selector.dim - N_DOMAINS
        self.models = selector.models
        self._mask = None if candidates is None else selector.candidate_mask(candidates)

    def prepare(self, vectors: Sequence[NDArray[np.float32]], domains: Sequence[str | None]) -> Vectors:
        """Bring B vectors and the names of their domains together; what has no domain counts as other."""
        slots = [domain_index(DEFAULT_DOMAIN if name is None else name) for name in domains]
        stacked = np.stack(vectors) if len(vectors) else np.empty((0, self.dim), np.float32)
        return Vectors(stacked, np.array(slots, np.int64))

    @torch.inference_mode()
    def choose(self, prepared: Vectors) -> Choice:
        """(B,) choices on the host. The vectors are brought to length 1 first."""
        device = self.selector.device
        # not by torch, which would first have to copy what Arrow lends for reading only
        square_B = np.einsum("ij,ij->i", prepared.vectors_Bd, prepared.vectors_Bd)
        unit_Bd = torch.from_numpy(prepared.vectors_Bd / np.sqrt(square_B)[:, None])
        features_BD = build_features(unit_Bd.to(device), torch.from_numpy(prepared.slot_B).to(device))
        return Choice(*(column.cpu() for column in choose(self.selector(features_BD, self._mask))))

    def decide(self, prepared: Vectors, *, times: StageTimes) -> _Decided:
        """The choices, as `pipeline.route_rows` takes them."""
        with times.host("select"):
            return _Decided(self.models, self.choose(prepared))


class _Decided(NamedTuple):
    models: Sequence[str]
    choice: Choice

    def routes(self) -> Routes:
        model_B, score_B, margin_B = (column.numpy() for column in self.choice)
        return Routes([self.models[m] for m in model_B], score_B, margin_B)
