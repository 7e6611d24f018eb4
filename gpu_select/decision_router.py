"""Decisions as one module: one forward pass for queries of different decisions, each with its own selector."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpu_select.arriving import Arriving
from gpu_select.config import RouterConfig
from gpu_select.decisions import (
    CandidateRanking,
    Decided,
    DecisionArtifacts,
    DecisionRoutes,
    DecisionRules,
    KeywordMatcher,
    Query,
    load_decision_artifacts,
)
from gpu_select.domain_head import DomainHead
from gpu_select.domains import DEFAULT_DOMAIN, KNOWN_DOMAINS, domain_index
from gpu_select.encoder import (
    DtypeName,
    EmbeddingCache,
    Encoder,
    TokenBatch,
    Tokenized,
    embed,
    load_encoder,
    resolve_device,
    run_batches,
)
from gpu_select.errors import ConfigError, DataError, GpuSelectError, brief
from gpu_select.features import build_features
from gpu_select.router import DEFAULT_ENCODER, SELECT_ROWS, check_finite, check_queries
from gpu_select.selectors import Backend, Selector
from gpu_select.stages import StageTimes

__all__ = ["Decided", "DecisionRouter", "Pending", "Prepared", "Query", "Ruled"]

_PREDICT = -1
"""In place of a domain that the query does not bring along."""


class Ruled(NamedTuple):
    """What one forward pass gives."""

    decision_B: Tensor
    """(B,) int64, an index into `DecisionRouter.decisions`."""
    domain_B: Tensor
    """(B,) int64, an index into `domains.KNOWN_DOMAINS`, as given or as predicted."""
    model_BK: Tensor
    """(B, K) int64, indices into `DecisionRouter.models`: the decision's candidates, the best first."""
    score_B: Tensor
    """(B,) float32, the best candidate's score."""
    margin_B: Tensor
    """(B,) float32, how far the next one lies behind; infinite where there is none."""


class DecisionRouter(nn.Module):
    """Encoder, domain head, rules and selectors in one forward pass.

    Args:
        encoder: gives (B, d) unit vectors.
        config: the decisions.
        artifacts: the files that they need, on the encoder's device.

    Attributes:
        decisions: names of the decisions in the order in which they are tried, then "default".

    Raises:
        EncoderMismatchError, DimensionError: a file was made for another encoder.
    """

    slot_K: Tensor
    target_R1: Tensor

    def __init__(self, encoder: Encoder, config: RouterConfig, artifacts: DecisionArtifacts) -> None:
        super().__init__()
        artifacts.check_encoder(encoder.name, encoder.fingerprint, encoder.dim)
        decisions = config.by_preference
        self.encoder = encoder
        self.domain_head = None if artifacts.domain_file is None else DomainHead(artifacts.domain_file)
        self.rules = DecisionRules([decision.rules for decision in decisions])
        # the last list is for queries that no decision takes
        lists = [*(decision.models for decision in decisions), (config.default_model,) if config.default_model else ()]
        selector_of = [*(artifacts.selector_of.get(decision.name) for decision in decisions), None]
        self.ranking = CandidateRanking(lists, artifacts.selectors, selector_of)
        self.decisions = (*(decision.name for decision in decisions), "default")
        self._n_candidates = [len(names) for names in lists]
        target_R1 = torch.arange(len(lists))
        if config.default_decision is not None:
            target_R1[-1] = self.decisions.index(config.default_decision)
        self.register_buffer("target_R1", target_R1)
        self.register_buffer("slot_K", torch.tensor([domain_index(name) for name in KNOWN_DOMAINS]))
        self._default_domain = KNOWN_DOMAINS.index(DEFAULT_DOMAIN)
        self._match = KeywordMatcher(self.rules.keyword_rules)
        self._without_domain = None
        if self.domain_head is None and self.rules.ask_for_domains:
            self._without_domain = (
                f"domain: expected one of {', '.join(KNOWN_DOMAINS)}, as rules ask for it, got none, and there is no "
                f"{artifacts.domain_path or 'domain head'} to predict it by (gpu-select train writes it)"
            )
        self.to(encoder.device)

    @classmethod
    def from_config(
        cls,
        config: RouterConfig,
        *,
        encoder: str | Encoder | None = None,
        device: str | torch.device = "auto",
        dtype: DtypeName = "auto",
        knn_backend: Backend = "torch",
        deterministic: bool = False,
        needs_domains: bool = False,
    ) -> DecisionRouter:
        """Load everything that a configuration names, and check that it fits together.

        Args:
            config: from `read_config`.
            encoder: a name, hub id or folder, or a loaded encoder; by default the configuration's, else the one that
                the files name, else qwen3.
            device: cpu, cuda, cuda:N, mps, or auto for the best there is.
            dtype: of the encoder; auto is float32 on the CPU and bfloat16 elsewhere. The rest is float32 always.
            knn_backend: what searches KNN's rows, torch or faiss.
            deterministic: give a query the same decision, bit for bit, in whatever batch it is; costs some speed.
            needs_domains: queries come without domains, so that rules that ask for them need a domain head.

        Raises:
            InputError, FileFormatError: no such file, or one that breaks its format.
            ConfigError: parameters or models that disagree with the files; all at once.
            EncoderError: no such encoder, or (EncoderMismatchError) not the one that the files were trained with.
            DimensionError: vectors of another length than the files'.
        """
        target = resolve_device(device)
        artifacts = load_decision_artifacts(config, device=target, backend=knn_backend)
        if not isinstance(encoder, Encoder):
            name = encoder or config.encoder or artifacts.encoder_name or DEFAULT_ENCODER
            encoder = load_encoder(name, device=target, dtype=dtype)
        router = cls(encoder, config, artifacts)
        if needs_domains and router._without_domain is not None:
            raise ConfigError.joined([f"{config.path}: {router._without_domain}"])
        if deterministic:
            router.make_deterministic()
        return router

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that can be chosen."""
        return self.ranking.models

    def make_deterministic(self) -> None:
        """Decide on a query the same, bit for bit, in whatever batch it is; see `Encoder.make_deterministic`."""
        self.encoder.make_deterministic()
        for module in self.modules():
            if isinstance(module, (Selector, DomainHead)):
                module.deterministic = True

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, domain_B: Tensor, keywords_BC: Tensor) -> Ruled:
        """Embed and decide. Nothing here waits for the device on CUDA and MPS with torch selectors.

        Args:
            input_ids_BT: (B, T) int64.
            attention_mask_BT: (B, T) int64 or bool.
            domain_B: (B,) int64, indices into `domains.KNOWN_DOMAINS`; -1 for a domain to predict.
            keywords_BC: (B, C) bool, whether each of `rules.keyword_rules` holds.
        """
        return self.select(self.encoder(input_ids_BT, attention_mask_BT), domain_B, keywords_BC)

    def decide_batch(
        self, batch: TokenBatch, domain_B: Tensor, keywords_BC: Tensor, times: StageTimes | None = None
    ) -> Ruled:
        """`forward` for texts that are packed without padding; `times` gets the time of encoding and selection."""
        with times.on_device("encode", batch.device) if times else contextlib.nullcontext():
            embeddings_Bd = self.encoder.encode(batch)
        with times.on_device("select", batch.device) if times else contextlib.nullcontext():
            return self.select(embeddings_Bd, domain_B, keywords_BC)

    def select(self, embeddings_Bd: Tensor, domain_B: Tensor, keywords_BC: Tensor) -> Ruled:
        """Decide on ready embeddings: (B, d) float32 of unit norm; the rest as in `forward`.

        The score of an embedding that is not finite is NaN.
        """
        if self.domain_head is None:
            domain_B = domain_B.masked_fill(domain_B == _PREDICT, self._default_domain)
        else:
            domain_B = torch.where(domain_B == _PREDICT, self.domain_head.predict(embeddings_Bd), domain_B)
        decision_B = self.target_R1[self.rules(domain_B, keywords_BC)]
        ranked = self.ranking(build_features(embeddings_Bd, self.slot_K[domain_B]), decision_B)
        return Ruled(decision_B, domain_B, *ranked)

    def decide(self, queries: Sequence[Query]) -> list[Decided | GpuSelectError]:
        """Decide on queries together, in one forward pass. One thread at a time may call it.

        Args:
            queries: in any mixture of decisions.

        Returns:
            For each query its decision, or why there is none.

        Raises:
            DeviceError: not even one query fits on the device.
            EncoderError: vectors that are not finite.
        """
        out: list[Decided | GpuSelectError | None] = [_fault(query) for query in queries]
        good = [i for i, fault in enumerate(out) if fault is None]
        prepared = self.prepare([queries[i].text for i in good], [queries[i].domain for i in good])
        for i, decided in zip(good, self.decide_prepared(prepared).routes().decided(), strict=True):
            out[i] = decided
        return [one for one in out if one is not None]

    def prepare(
        self, texts: Sequence[str], domains: Sequence[str | None] | None = None, *, tokenize: bool = True
    ) -> Prepared:
        """The host's part, which any thread may do: check, find equal queries, look for keywords, tokenise.

        Args:
            texts: N queries.
            domains: N domain names, None for one that is to be predicted; by default all are.
            tokenize: without it, `decide_prepared` needs a cache.

        Raises:
            DataError: a query that is not a text or is empty, or another number of domains than of texts.
            ConfigError: a domain name outside the documented ones.
        """
        numbers = [_domain_number(name) for name in check_queries(texts, domains)]
        first_row: dict[tuple[str, int], int] = {}
        distinct_of = np.array(
            [first_row.setdefault(key, len(first_row)) for key in zip(texts, numbers, strict=True)], int
        )
        queries = [text for text, _ in first_row]
        return Prepared(
            queries,
            np.array([number for _, number in first_row], np.int64),
            self._match(queries),
            distinct_of,
            self.encoder.tokenizer.tokenize(queries) if tokenize else None,
        )

    @torch.inference_mode()
    def decide_prepared(
        self,
        prepared: Prepared,
        *,
        token_budget: int | None = None,
        cache: EmbeddingCache | None = None,
        progress: Callable[[int], None] | None = None,
        times: StageTimes | None = None,
    ) -> Pending:
        """The device's part. On CUDA it returns while the device still computes.

        Args:
            prepared: from `prepare`.
            token_budget: tokens a batch; by default what suits the device.
            cache: embeddings are looked up here first, and new ones are added.
            progress: called with the number of distinct queries done since the last call.
            times: gets the time of transfer, encoding and selection.

        Raises:
            DeviceError: not even one query fits on the device.
        """
        times = times or StageTimes()
        device, N = self.encoder.device, len(prepared.queries)
        domain_N, keywords_NC = _to(device, prepared.domain_N), _to(device, prepared.keywords_NC)
        parts: list[tuple[NDArray[np.int64], Ruled]] = []
        if prepared.tokenized is None:
            assert cache is not None
            with times.host("encode"):
                embedded = embed(
                    self.encoder, prepared.queries, token_budget=token_budget, cache=cache, progress=progress
                )
            with times.on_device("select", device):
                for start in range(0, N, SELECT_ROWS):
                    rows = slice(start, start + SELECT_ROWS)
                    ruled = self.select(embedded.vectors[rows].to(device), domain_N[rows], keywords_NC[rows])
                    parts.append((np.arange(N)[rows], ruled))
            return Pending(self, prepared, parts, (embedded.n_tokens, embedded.n_truncated, embedded.n_cached))

        def run(batch: TokenBatch, rows: NDArray[np.int64]) -> None:
            query_B = batch.tag_B.long()
            parts.append((rows, self.decide_batch(batch, domain_N[query_B], keywords_NC[query_B], times)))
            if progress is not None:
                progress(len(rows))

        tokenized = prepared.tokenized
        run_batches(self.encoder, tokenized, run, tags_N=np.arange(N), token_budget=token_budget, times=times)
        return Pending(self, prepared, parts, (len(tokenized.ids), int(tokenized.truncated.sum()), 0))

    def _routes(self, prepared: Prepared, columns: Sequence[Tensor], counts: tuple[int, int, int]) -> DecisionRoutes:
        rows = prepared.distinct_of
        if not columns:
            nothing = torch.empty(0, dtype=torch.int64)
            columns = nothing, nothing, nothing[:, None], nothing.float(), nothing.float()
        decision_N, domain_N, model_NK, score_N, margin_N = (column.numpy()[rows] for column in columns)
        lengths = np.zeros(len(prepared.queries), int) if prepared.tokenized is None else prepared.tokenized.lengths
        return DecisionRoutes(
            self.models,
            self.decisions,
            self._n_candidates,
            decision_N,
            domain_N,
            prepared.domain_N[rows] != _PREDICT,
            model_NK,
            score_N,
            margin_N,
            lengths[rows],
            self._without_domain,
            *counts,
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """Queries that are checked, compared with keywords and tokenised."""

    queries: list[str]
    """The distinct queries."""
    domain_N: NDArray[np.int64]
    """(N,) the domain of each distinct query, an index into `domains.KNOWN_DOMAINS`; -1 for one to predict."""
    keywords_NC: NDArray[np.bool_]
    """(N, C) which keyword rules hold for each of them."""
    distinct_of: NDArray[np.int64]
    """The distinct query behind each text."""
    tokenized: Tokenized | None
    """Of the distinct queries."""


class Pending:
    """Decisions that the device may still be working on."""

    def __init__(
        self,
        router: DecisionRouter,
        prepared: Prepared,
        parts: Sequence[tuple[NDArray[np.int64], Ruled]],
        counts: tuple[int, int, int],
    ) -> None:
        self._router, self._prepared, self._counts = router, prepared, counts
        self._arriving = Arriving(parts)

    def routes(self) -> DecisionRoutes:
        """The decisions, once they are there; any thread may ask.

        Raises:
            EncoderError: vectors that are not finite.
        """
        columns = self._arriving.wait()
        if columns:
            check_finite(Ruled(*columns).score_B, self._router.encoder)
        return self._router._routes(self._prepared, columns, self._counts)


def _fault(query: Query) -> GpuSelectError | None:
    """What is wrong with a query on its own."""
    if not isinstance(query.text, str) or not query.text.strip():
        return DataError(f"query: expected a text that is not empty, got {brief(query.text)}")
    try:
        _domain_number(query.domain)
    except ConfigError as error:
        return error
    return None


def _domain_number(name: str | None) -> int:
    if name is None:
        return _PREDICT
    domain_index(name)  # refuses other names
    return KNOWN_DOMAINS.index(name)


def _to(device: torch.device, array: NDArray[np.generic]) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
