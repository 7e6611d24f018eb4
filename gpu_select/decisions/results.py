"""What a router of decisions says of queries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_select.domains import KNOWN_DOMAINS
from gpu_select.errors import DecisionError, GpuSelectError

__all__ = ["DECISION_FIELDS", "Decided", "DecisionRoutes", "Query"]

DECISION_FIELDS = ("decision", "domain", "model", "score", "margin", "error")
"""What routing by decisions adds to a row of a log, in the order of the output's columns."""


@dataclass(frozen=True)
class Query:
    """A text to route, and its domain where it is known."""

    text: str
    domain: str | None = None


@dataclass(frozen=True)
class Decided:
    """Where one query goes, and why."""

    model: str
    """The best candidate."""
    ranking: tuple[str, ...]
    """All candidates of the decision, the best first."""
    decision: str
    domain: str
    domain_given: bool
    """Whether the query came with the domain; else it was predicted, or there was nothing to predict it by."""
    score: float
    """The chosen model's score; its scale depends on the selector."""
    margin: float
    """How far the runner-up lies behind; infinite where there is no other candidate."""
    n_tokens: int
    """Tokens of the query, as the encoder took it."""


@dataclass(frozen=True, eq=False)
class DecisionRoutes:
    """Decisions for N queries, in their order; K is the largest number of candidates."""

    model_names: Sequence[str]
    """What `model_NK` counts."""
    decision_names: Sequence[str]
    """What `decision_N` counts."""
    n_candidates: Sequence[int]
    """How many candidates each of them has; 0 for that of queries that no decision takes."""
    decision_N: NDArray[np.int64]
    domain_N: NDArray[np.int64]
    """Indices into `domains.KNOWN_DOMAINS`."""
    given_N: NDArray[np.bool_]
    """Whether the query came with its domain."""
    model_NK: NDArray[np.int64]
    """Candidates, the best first."""
    score_N: NDArray[np.float32]
    margin_N: NDArray[np.float32]
    token_N: NDArray[np.int64]
    """Tokens of each query; 0 where its embedding came from a cache."""
    without_domain: str | None = None
    """Why a query without domain cannot be decided on; None where it can."""
    n_tokens: int = 0
    """Tokens that went through the encoder: each distinct text once."""
    n_truncated: int = 0
    """Distinct texts longer than the encoder takes."""
    n_cached: int = 0
    """Distinct texts whose embedding came from the cache."""

    def decided(self) -> list[Decided | GpuSelectError]:
        """Each query's decision, or why there is none."""
        return list(self._each())

    def rows(self) -> Iterator[dict[str, Any]]:
        """What routing adds to each query's row of a log: `DECISION_FIELDS`."""
        for one in self._each():
            row: dict[str, Any] = dict.fromkeys(DECISION_FIELDS)
            if isinstance(one, Decided):
                row.update((name, getattr(one, name)) for name in DECISION_FIELDS[:-1])
                row["margin"] = None if one.margin == math.inf else one.margin
            else:
                row["error"] = str(one)
            yield row

    def _each(self) -> Iterator[Decided | GpuSelectError]:
        columns = self.decision_N, self.domain_N, self.given_N, self.model_NK, self.score_N, self.margin_N, self.token_N
        for decision, domain, given, models, score, margin, tokens in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            n = self.n_candidates[decision]
            if not given and self.without_domain is not None:
                yield DecisionError(self.without_domain)
            elif n == 0:
                yield DecisionError(
                    f"decision: no decision's rules hold for this query of domain {KNOWN_DOMAINS[domain]!r}, "
                    f"and there is no default"
                )
            else:
                ranking = tuple(self.model_names[model] for model in models[:n])
                name = self.decision_names[decision]
                yield Decided(ranking[0], ranking, name, KNOWN_DOMAINS[domain], given, score, margin, tokens)
