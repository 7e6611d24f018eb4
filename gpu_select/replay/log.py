"""One pass over a log: what each row's models are expected to do, what selectors choose, and what was logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.domain_head import DomainHead
from gpu_select.domains import DEFAULT_DOMAIN, KNOWN_DOMAINS, domain_index
from gpu_select.encoder import EmbeddingCache, Encoder, embed
from gpu_select.errors import DataError
from gpu_select.features import build_features
from gpu_select.logs import Row
from gpu_select.pipeline.windows import DOMAIN_FIELDS, check_window, text_in
from gpu_select.records import query_digests
from gpu_select.replay.costs import Costs, Price
from gpu_select.replay.expected import ExpectedOutcomes
from gpu_select.replay.outcomes import MODEL_FIELDS, Logged, read_logged

__all__ = ["LogCounts", "ReplayedLog", "read_replayed"]

_FIGURES = ("quality", "time_s", "cost_usd")
_MOST_UNKNOWN_MODELS = 10_000
"""Names that are counted apart: a hostile log could have one a row."""


@dataclass
class LogCounts:
    """What was noticed on the way."""

    rows: int = 0
    errors: int = 0
    first_error: str = ""
    without_domain: int = 0
    seen: int = 0
    """Rows whose queries are among the records."""
    truncated: int = 0
    input_tokens: int = 0
    """Rows that name their input tokens."""
    odd: int = 0
    first_odd: str = ""
    unknown_models: Counter[str] = field(default_factory=Counter)
    """Rows by a logged model of which the records have no outcome."""


@dataclass(frozen=True, eq=False)
class ReplayedLog:
    """Q rows with a query, M models: those of the records."""

    models: tuple[str, ...]
    domains: tuple[str, ...]
    """Names that occur."""
    domain_Q: Tensor
    """(Q,) int64, place in `domains`."""
    figures: dict[str, Tensor]
    """quality, time_s and cost_usd: (Q, M) float32 on the device of the other tensors, NaN for what is not known."""
    choices: dict[str, Tensor]
    """(Q,) int64, by selector."""
    logged_Q: Tensor
    """(Q,) int64, the model that answered; -1 where the log does not tell, or the records do not know it."""
    realised: dict[str, NDArray[np.float64]]
    """The same figures as logged: (Q,), NaN where unknown."""
    group_Q: NDArray[np.int64]
    """(Q,) alike for the same query."""
    row_Q: NDArray[np.int64]
    """(Q,) number of each row in the log, from 0."""
    counts: LogCounts

    def lacking(self, figure: str, models: Sequence[str]) -> list[str]:
        """Those of some models that do not have the figure on every row."""
        known = torch.isfinite(self.figures[figure]).all(dim=0).tolist()
        return [name for name in models if not known[self.models.index(name)]]


def read_replayed(
    path: str,
    windows: Iterable[list[Row]],
    encoder: Encoder,
    expected: ExpectedOutcomes,
    costs: Costs,
    prices: Mapping[str, Price],
    selectors: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    head: DomainHead | None = None,
    cache: EmbeddingCache | None = None,
    query_field: str = "query",
    domain_fields: Sequence[str] = DOMAIN_FIELDS,
    model_fields: Sequence[str] = MODEL_FIELDS,
    progress: Callable[[int], object] | None = None,
) -> ReplayedLog:
    """Embed every query once, and keep what policies need: 12 bytes a row and model, neither texts nor vectors.

    Args:
        path: the log's name, for errors.
        windows: its rows.
        encoder: as the selectors had it.
        expected, costs, prices: of the M models.
        selectors: by name: (B, D) features on the encoder's device to (B,) places of the M models.
        head: predicts the domain of a row without one for `expected`; selectors take it for "other", as `route` does.
        cache: embeddings are looked up here first, and new ones are added.
        query_field, domain_fields, model_fields: where a row's query, domain and model are looked for.
        progress: called with the number of rows done since the last call.

    Raises:
        DataError: no row has a query.
    """
    reading = _Reading(encoder, expected, costs, prices, selectors, head, cache)
    counts, find = reading.counts, text_in(query_field)
    for rows in windows:
        window = check_window(rows, find, domain_fields)
        first = counts.rows
        counts.rows += len(rows)
        counts.errors += len(window.errors)
        if window.errors and not counts.first_error:
            place = min(window.errors)
            counts.first_error = f"row {first + place + 1}: {window.errors[place]}"
        good = [i for i in range(len(rows)) if i not in window.errors]
        if good:
            logged = [read_logged(rows[i].fields, model_fields) for i in good]
            reading.add(window.queries, window.domains, logged, first + np.array(good))
        if progress is not None:
            progress(len(rows))
    if not reading.parts:
        found = f"{counts.rows} rows, the first with {counts.first_error}" if counts.rows else "no row at all"
        raise DataError(f"{path}: expected at least one row with a query, got {found}")
    return reading.done()


class _Reading:
    """What has been read so far."""

    def __init__(
        self,
        encoder: Encoder,
        expected: ExpectedOutcomes,
        costs: Costs,
        prices: Mapping[str, Price],
        selectors: Mapping[str, Callable[[Tensor], Tensor]],
        head: DomainHead | None,
        cache: EmbeddingCache | None,
    ) -> None:
        self._encoder = encoder
        self._expected = expected
        self._costs = costs
        self._prices = prices
        self._selectors = selectors
        self._head = head
        self._cache = cache
        self._model_places = {name: m for m, name in enumerate(expected.models)}
        self._domain_places: dict[str, int] = {}
        self.counts = LogCounts()
        self.parts: dict[str, list[Tensor]] = {}

    def add(self, texts: list[str], domains: list[str | None], logged: list[Logged], rows_B: NDArray[np.int64]) -> None:
        """Some rows that have queries."""
        encoder, counts = self._encoder, self.counts
        embedded = embed(encoder, texts, cache=self._cache)
        vectors_Bd = embedded.vectors.to(encoder.device)
        slot_B = torch.tensor([domain_index(DEFAULT_DOMAIN if name is None else name) for name in domains])
        features_BD = build_features(vectors_Bd, slot_B.to(encoder.device))
        names = self._named(domains, vectors_Bd)
        digests_B = query_digests(texts)
        told = {name: np.array([row.figures.get(name, np.nan) for row in logged]) for name in _TOLD}
        with torch.inference_mode():
            expected = self._expected.of(features_BD, names, digests_B)
            chosen = {name: choose(features_BD) for name, choose in self._selectors.items()}
        counted_B = np.zeros(len(texts), np.int64)
        if self._costs.pay_for_input and not np.isfinite(told["input_tokens"]).all():
            distinct = list(dict.fromkeys(texts))
            tokens = dict(zip(distinct, encoder.tokenizer.count(distinct).tolist(), strict=True))
            counted_B = np.array([tokens[text] for text in texts])
        figures = {
            "quality": expected.quality_BM,
            "time_s": expected.time_s_BM,
            "cost_usd": self._costs.usd(expected, told["input_tokens"], counted_B),
        }
        used_B = np.array([self._used(row) for row in logged], dtype=np.int64)
        told["cost_usd"] = self._paid(told, used_B)
        places_B = [self._domain_places.setdefault(name, len(self._domain_places)) for name in names]
        self._keep("domain", torch.tensor(places_B))
        self._keep("logged", torch.from_numpy(used_B))
        self._keep("group", torch.from_numpy(digests_B.view(np.int64)))
        self._keep("row", torch.from_numpy(rows_B))
        for name in _FIGURES:
            self._keep(f"expected {name}", figures[name])
            self._keep(f"realised {name}", torch.from_numpy(told[name]))
        for name, choice_B in chosen.items():
            self._keep(f"choice {name}", choice_B)
        counts.truncated += embedded.n_truncated
        counts.seen += expected.n_seen
        counts.without_domain += domains.count(None)
        counts.input_tokens += int(np.isfinite(told["input_tokens"]).sum())
        odd = [row.odd for row in logged if row.odd]
        counts.odd += len(odd)
        counts.first_odd = counts.first_odd or (odd[0] if odd else "")

    def done(self) -> ReplayedLog:
        """All of it."""
        whole = {name: torch.cat(parts) for name, parts in self.parts.items()}
        self.parts.clear()
        # float64 is needed later on, which not every device has
        device = self._encoder.device if self._encoder.device.type == "cuda" else torch.device("cpu")
        return ReplayedLog(
            models=self._expected.models,
            domains=tuple(self._domain_places),
            domain_Q=whole["domain"].to(device),
            figures={name: whole[f"expected {name}"].to(device) for name in _FIGURES},
            choices={name: whole[f"choice {name}"].to(device) for name in self._selectors},
            logged_Q=whole["logged"].to(device),
            realised={name: whole[f"realised {name}"].numpy() for name in _FIGURES},
            group_Q=whole["group"].numpy(),
            row_Q=whole["row"].numpy(),
            counts=self.counts,
        )

    def _keep(self, name: str, values: Tensor) -> None:
        self.parts.setdefault(name, []).append(values)

    def _named(self, domains: list[str | None], vectors_Bd: Tensor) -> list[str]:
        """The domain that a query is estimated by."""
        if self._head is None or None not in domains:
            return [DEFAULT_DOMAIN if name is None else name for name in domains]
        with torch.inference_mode():
            predicted_B = self._head.predict(vectors_Bd).tolist()
        return [KNOWN_DOMAINS[p] if name is None else name for name, p in zip(domains, predicted_B, strict=True)]

    def _used(self, row: Logged) -> int:
        if row.model is None:
            return -1
        place = self._model_places.get(row.model, -1)
        unknown = self.counts.unknown_models
        if place < 0 and (row.model in unknown or len(unknown) < _MOST_UNKNOWN_MODELS):
            unknown[row.model] += 1
        return place

    def _paid(self, told: Mapping[str, NDArray[np.float64]], used_B: NDArray[np.int64]) -> NDArray[np.float64]:
        """(B,) USD that a row cost: as logged, else by its tokens and the prices."""
        prices = [self._prices.get(name, (None, None)) for name in self._expected.models]
        price_B2 = np.array([*prices, (None, None)], dtype=np.float64)[used_B] / 1e6  # -1 is the last one
        by_tokens_B = told["input_tokens"] * price_B2[:, 0] + told["output_tokens"] * price_B2[:, 1]
        return np.where(np.isfinite(told["cost_usd"]), told["cost_usd"], by_tokens_B)


_TOLD = (*_FIGURES, "input_tokens", "output_tokens")
