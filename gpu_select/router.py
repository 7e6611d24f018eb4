"""The router as one module: token ids in, the model for each query out."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.arriving import Arriving
from gpu_select.artifacts import Artifact, find_selector_files, load_selector
from gpu_select.derived import Deriving
from gpu_select.domains import DEFAULT_DOMAIN, N_DOMAINS, domain_index
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
from gpu_select.errors import DataError, DeviceError, EncoderError, brief
from gpu_select.features import build_features, check_width
from gpu_select.graphs import GraphCache
from gpu_select.pretrained import HubOptions, download, is_hub_id, is_saved, load_saved, save_router, upload
from gpu_select.selectors import Backend, Choice, Selector, choose
from gpu_select.stages import StageTimes

__all__ = [
    "DEFAULT_ENCODER",
    "SELECT_ROWS",
    "Pending",
    "Prepared",
    "Router",
    "Routes",
    "check_finite",
    "check_queries",
    "decide_features",
    "route_features",
]

DEFAULT_ENCODER = "qwen3"

SELECT_ROWS = 65_536
"""Ready vectors that go to the device at once: 270 MB at D = 1038."""


@dataclass(frozen=True, eq=False)
class Routes:
    """Decisions for N queries, in their order."""

    models: list[str]
    """The model that should answer each query."""
    scores: NDArray[np.float32]
    """(N,) the chosen model's score; its scale depends on the selector."""
    margins: NDArray[np.float32]
    """(N,) how far the runner-up lies behind; infinite where there is no other candidate."""
    n_tokens: int = 0
    """Tokens that went through the encoder: each distinct text once."""
    n_truncated: int = 0
    """Distinct texts longer than the encoder takes."""
    n_cached: int = 0
    """Distinct texts whose embedding came from the cache."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """What routing adds to each query's row of a log: model, score, margin (None if infinite) and no error."""
        margins = [None if margin == np.inf else margin for margin in self.margins.tolist()]
        for model, score, margin in zip(self.models, self.scores.tolist(), margins, strict=True):
            yield {"model": model, "score": score, "margin": margin, "error": None}


class Router(Deriving):
    """Encoder and selector in one forward pass.

    Parameters and buffers hold every number that was learned; names, k and the like are plain attributes.

    Args:
        encoder: gives (B, d) unit vectors.
        selector: takes features of d + 14 dimensions, on the encoder's device.

    Raises:
        DimensionError: the selector was made for vectors of another length.
    """

    derived = ("_graphs",)

    def __init__(self, encoder: Encoder, selector: Selector) -> None:
        super().__init__()
        check_width(selector.dim, encoder.dim)
        self.encoder = encoder
        self.selector = selector
        self._graphs: GraphCache | None = None
        self._graph_limits: tuple[int, int] | None = None

    @classmethod
    def from_pretrained(
        cls,
        models_dir: str | Path,
        *,
        encoder: str | Encoder | None = None,
        device: str | torch.device = "auto",
        algorithm: str | None = None,
        dtype: DtypeName = "auto",
        knn_backend: Backend = "torch",
        deterministic: bool = False,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Router:
        """Load a trained router.

        Args:
            models_dir: what `save_pretrained` wrote, a folder of selector files, or one file; or, for a str that is
                none of these here, a hub id (`organisation/model`) of such a folder.
            encoder: a name, hub id or folder, or a loaded encoder; by default the one that was saved or that the file
                names, else qwen3.
            device: cpu, cuda, cuda:N, mps, or auto for the best there is.
            algorithm: knn, kmeans, svm or mlp; by default what was saved, or the folder's first in this order.
            dtype: of the encoder; auto is float32 on the CPU and bfloat16 elsewhere. Selection is float32 always.
            knn_backend: what searches KNN's rows, torch or faiss.
            deterministic: give a query the same decision, bit for bit, in whatever batch it is; costs some speed.
            revision, token, cache_dir, force_download, local_files_only: for what comes from the hub, as its own
                library takes them.

        Raises:
            InputError, FileFormatError: no such file, or one that breaks the format.
            EncoderError: no such encoder, or (EncoderMismatchError) not the one the file was trained with.
            DimensionError: vectors of another length than the file's.
        """
        target = resolve_device(device)
        if isinstance(models_dir, str) and not os.path.exists(models_dir) and is_hub_id(models_dir):
            models_dir = download(models_dir, HubOptions(revision, token, cache_dir, force_download, local_files_only))
        if is_saved(models_dir):
            how: dict[str, Any] = {"dtype": dtype, "algorithm": algorithm, "backend": knn_backend}
            router = cls(*load_saved(Path(models_dir), encoder=encoder, device=target, **how))
        else:
            if os.path.isdir(models_dir):  # pathlib's raises for a name that is too long
                algorithm = algorithm or next(iter(find_selector_files(models_dir)))
            artifact = load_selector(models_dir, algorithm=algorithm, device=target, backend=knn_backend)
            if not isinstance(encoder, Encoder):
                encoder = load_encoder(encoder or artifact.encoder_name or DEFAULT_ENCODER, device=target, dtype=dtype)
            router = cls.of(encoder, artifact)
        if deterministic:
            router.make_deterministic()
        return router.eval()

    @classmethod
    def of(cls, encoder: Encoder, artifact: Artifact) -> Router:
        """A router of a loaded encoder and a loaded file, after checking that they belong together."""
        artifact.check_encoder(encoder.name, encoder.fingerprint)
        return cls(encoder, artifact.selector)

    def save_pretrained(self, save_directory: str | Path, *, include_encoder: bool = True) -> None:
        """Write a folder that `from_pretrained` loads: config.json, model.safetensors and the encoder's own files.

        model.safetensors has the selector's part of `state_dict`; the folder `encoder` is a transformers model.

        Args:
            save_directory: is made, or holds an earlier save, which is replaced; other files in it stay.
            include_encoder: without it, loading looks for the encoder by name (and revision, if it came from the hub),
                and refuses one that has another fingerprint.

        Raises:
            OutputError: it cannot be written.
            EncoderError: the encoder's files are not there any more, or are not those of its weights.
        """
        save_router(save_directory, self.encoder, self.selector, include_encoder=include_encoder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        include_encoder: bool = True,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes.

        Args:
            repo_id: a repository on the hub, `organisation/model`; it is made if there is none.
            include_encoder: as there.
            private: whether a new repository is private.
            token, revision: as the hub's own library takes them.

        Returns:
            The address of the commit.

        Raises:
            OutputError, EncoderError: as `save_pretrained`, or the hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, include_encoder=include_encoder)
            return upload(Path(folder), repo_id, private=private, token=token, revision=revision)

    def make_deterministic(self) -> None:
        """Decide on a query the same, bit for bit, in whatever batch it is; see `Encoder.make_deterministic`."""
        self.encoder.make_deterministic()
        self.selector.deterministic = True

    def use_cuda_graphs(self, *, max_tokens: int = 2048, max_texts: int = 64) -> None:
        """Replay small batches as CUDA graphs from now on: for serving, where launching kernels takes longest.

        A bucket of shapes is recorded when it is first met, in about the time of three batches. Batches with
        candidates are not replayed, nor are those of encoders without attention over variable lengths.

        Args:
            max_tokens, max_texts: batches up to these sizes are replayed.
        Raises:
            DeviceError: not on CUDA.
        """
        device = self.encoder.device
        if device.type != "cuda":
            raise DeviceError(f"use_cuda_graphs: expected a router on a CUDA device, got one on {device}")
        if self.encoder.can_be_recorded:
            self._graph_limits = max_tokens, max_texts
            self._graphs = None

    def _recorded(self) -> GraphCache | None:
        """The graphs, where they are wanted and the router is still on a device that has them."""
        if self._graphs is None and self._graph_limits is not None and self.encoder.device.type == "cuda":
            max_tokens, max_texts = self._graph_limits
            self._graphs = GraphCache(self.decide_batch, max_tokens=max_tokens, max_texts=max_texts)
        return self._graphs

    @property
    def models(self) -> tuple[str, ...]:
        """The M models that can be chosen."""
        return self.selector.models

    def forward(
        self, input_ids_BT: Tensor, attention_mask_BT: Tensor, domain_B: Tensor, candidates: Tensor | None = None
    ) -> Choice:
        """Embed and decide. Nothing here waits for the device on CUDA and MPS with torch selectors.

        Args:
            input_ids_BT: (B, T) int64.
            attention_mask_BT: (B, T) int64 or bool.
            domain_B: (B,) int64, slots of `domains.WIRE_ORDER`.
            candidates: (M,) or (B, M) bool; by default all models.

        Returns:
            (B,) model index int64, score and margin float32.
        """
        return self.select(self.encoder(input_ids_BT, attention_mask_BT), domain_B, candidates)

    def decide_batch(
        self, batch: TokenBatch, candidates: Tensor | None = None, times: StageTimes | None = None
    ) -> Choice:
        """`forward` for texts that are packed without padding.

        Args:
            batch: B texts on the router's device, their tags the domains' slots.
            candidates: as in `forward`.
            times: gets the time of encoding and selection.
        """
        # without times there are no events, which a recording as a CUDA graph would not survive
        with times.on_device("encode", batch.device) if times else contextlib.nullcontext():
            features_BD = self.encoder.encode(batch, batch.tag_B.long(), n_domains=N_DOMAINS)
        with times.on_device("select", batch.device) if times else contextlib.nullcontext():
            return self._select(features_BD, candidates)

    def select(self, embeddings_Bd: Tensor, domain_B: Tensor, candidates: Tensor | None = None) -> Choice:
        """Decide on ready embeddings: (B, d) float32 of unit norm; the rest as in `forward`.

        The score of an embedding that is not finite is NaN.
        """
        return self._select(build_features(embeddings_Bd, domain_B), candidates)

    def _select(self, features_BD: Tensor, candidates: Tensor | None) -> Choice:
        return decide_features(self.selector, features_BD, candidates)

    def route(
        self,
        texts: Sequence[str],
        domains: Sequence[str | None] | None = None,
        *,
        candidates: Sequence[str] | None = None,
        token_budget: int | None = None,
        cache: EmbeddingCache | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Routes:
        """Choose the model for each query. Equal queries of one domain are decided once.

        Args:
            texts: N queries.
            domains: N domain names, None for a query without one; by default all are "other".
            candidates: names of the models to choose from; by default all.
            token_budget: tokens a batch; by default what suits the device.
            cache: embeddings are looked up here first, and new ones are added.
            progress: called with the number of distinct queries done since the last call.

        Raises:
            DataError: a query that is not a text or is empty, or another number of domains than of texts.
            ConfigError: a domain name outside the documented ones.
            CandidateError: no candidate, or an unknown one.
            DeviceError: not even one query fits on the device.
        """
        prepared = self.prepare(texts, domains, tokenize=cache is None)
        return self.decide(
            prepared, candidates=candidates, token_budget=token_budget, cache=cache, progress=progress
        ).routes()

    def prepare(
        self, texts: Sequence[str], domains: Sequence[str | None] | None = None, *, tokenize: bool = True
    ) -> Prepared:
        """The host's part of `route`, which any thread may do: check, find equal queries, tokenise.

        Args:
            texts, domains: as in `route`.
            tokenize: without it, `decide` needs a cache.
        """
        slots = _slots(texts, domains)
        first_row: dict[tuple[str, int], int] = {}
        distinct_of = np.array(
            [first_row.setdefault(key, len(first_row)) for key in zip(texts, slots, strict=True)], int
        )
        queries = [text for text, _ in first_row]
        slot_N = np.array([slot for _, slot in first_row], np.int64)
        return Prepared(queries, slot_N, distinct_of, self.encoder.tokenizer.tokenize(queries) if tokenize else None)

    @torch.inference_mode()
    def decide(
        self,
        prepared: Prepared,
        *,
        candidates: Sequence[str] | None = None,
        token_budget: int | None = None,
        cache: EmbeddingCache | None = None,
        progress: Callable[[int], None] | None = None,
        times: StageTimes | None = None,
    ) -> Pending:
        """The device's part of `route`. On CUDA it returns while the device still computes.

        Args:
            prepared: from `prepare`.
            times: gets the time of transfer, encoding and selection.
            candidates, token_budget, cache, progress: as in `route`.
        """
        times = times or StageTimes()
        mask = None if candidates is None else self.selector.candidate_mask(candidates)
        if prepared.tokenized is None:
            assert cache is not None
            with times.host("encode"):
                embedded = embed(
                    self.encoder, prepared.queries, token_budget=token_budget, cache=cache, progress=progress
                )
            domain_N = torch.from_numpy(prepared.slot_N).to(self.encoder.device)
            with times.on_device("select", domain_N.device):
                choice = _in_blocks(
                    lambda rows: self.select(embedded.vectors[rows].to(domain_N.device), domain_N[rows], mask),
                    len(prepared.queries),
                )
            counts = embedded.n_tokens, embedded.n_truncated, embedded.n_cached
            return Pending(self, prepared, [(np.arange(len(prepared.queries)), choice)], counts)
        tokenized = prepared.tokenized
        graphs = self._recorded() if mask is None else None
        parts: list[tuple[NDArray[np.int64], Choice]] = []

        def run(batch: TokenBatch, rows: NDArray[np.int64]) -> None:
            if graphs is not None and graphs.fits(batch):
                with times.on_device("encode", batch.device):
                    choice = graphs(batch)
            else:
                choice = self.decide_batch(batch, mask, times)
            parts.append((rows, choice))
            if progress is not None:
                progress(len(rows))

        run_batches(self.encoder, tokenized, run, tags_N=prepared.slot_N, token_budget=token_budget, times=times)
        return Pending(self, prepared, parts, (len(tokenized.ids), int(tokenized.truncated.sum()), 0))


def decide_features(selector: Selector, features_BD: Tensor, candidates: Tensor | None) -> Choice:
    """The choice of a selector: (B, D) float32 features, candidates as in `Router.forward`. No host sync.

    The score of features that are not finite is NaN.
    """
    model_B, score_B, margin_B = choose(selector(features_BD, candidates))
    # some rows come out as the nearest of a NaN, too, and their votes are finite
    return Choice(model_B, score_B + 0 * features_BD.sum(dim=1), margin_B)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Queries that are checked and tokenised."""

    queries: list[str]
    """The distinct queries."""
    slot_N: NDArray[np.int64]
    """(N,) the domain's slot of each distinct query."""
    distinct_of: NDArray[np.int64]
    """The distinct query behind each text."""
    tokenized: Tokenized | None
    """Of the distinct queries."""


class Pending:
    """Decisions that the device may still be working on."""

    def __init__(
        self,
        router: Router,
        prepared: Prepared,
        parts: list[tuple[NDArray[np.int64], Choice]],
        counts: tuple[int, int, int],
    ) -> None:
        self._router = router
        self._prepared = prepared
        self._counts = counts
        self._arriving = Arriving(parts)

    def routes(self) -> Routes:
        """The decisions, once they are there; any thread may ask.

        Raises:
            EncoderError: vectors that are not finite.
        """
        columns = self._arriving.wait()
        choice = Choice(*columns) if columns else _nothing()
        check_finite(choice.score, self._router.encoder)
        return _routes(self._router.models, choice, self._prepared.distinct_of, *self._counts)


def check_finite(score_N: Tensor, encoder: Encoder) -> None:
    """Refuse scores that say that vectors were not finite.

    Raises:
        EncoderError: there is such a score.
    """
    if not torch.isfinite(score_N).all():
        raise EncoderError(
            f"encoder {encoder.name}: vectors are not finite in {encoder.dtype}; use float32 or bfloat16"
        )


@torch.inference_mode()
def route_features(
    selector: Selector, features_BD: NDArray[np.floating], *, candidates: Sequence[str] | None = None
) -> Routes:
    """Choose the model for ready feature vectors, without any encoder.

    Args:
        selector: on any device.
        features_BD: (B, D), finite: [unit embedding | one-hot domain], as the selector's file has them.
        candidates: names of the models to choose from; by default all.

    Raises:
        DimensionError: the vectors are not (B, D).
        CandidateError: no candidate, or an unknown one.
    """
    mask = None if candidates is None else selector.candidate_mask(candidates)

    def decide(rows: slice) -> Choice:
        block = np.ascontiguousarray(features_BD[rows], dtype=np.float32)
        return choose(selector(torch.from_numpy(block).to(selector.device), mask))

    return _routes(selector.models, _in_blocks(decide, len(features_BD)), np.arange(len(features_BD)))


def _in_blocks(decide: Callable[[slice], Choice], n_rows: int) -> Choice:
    parts = [decide(slice(start, start + SELECT_ROWS)) for start in range(0, n_rows, SELECT_ROWS)]
    return Choice(*(torch.cat(column).cpu() for column in zip(*parts, strict=True))) if parts else _nothing()


def _nothing() -> Choice:
    return Choice(torch.empty(0, dtype=torch.int64), torch.empty(0), torch.empty(0))


def _routes(
    models: Sequence[str],
    choice: Choice,
    rows: NDArray[np.int64],
    n_tokens: int = 0,
    n_truncated: int = 0,
    n_cached: int = 0,
) -> Routes:
    model_N, score_N, margin_N = (column.numpy()[rows] for column in choice)
    return Routes([models[m] for m in model_N], score_N, margin_N, n_tokens, n_truncated, n_cached)


def _slots(texts: Sequence[str], domains: Sequence[str | None] | None) -> list[int]:
    """The one-hot slot of each query, after checking texts and domains."""
    return [domain_index(DEFAULT_DOMAIN if name is None else name) for name in check_queries(texts, domains)]


def check_queries(texts: Sequence[str], domains: Sequence[str | None] | None) -> Sequence[str | None]:
    """The domain of each query, None where there is none.

    Raises:
        DataError: a query that is not a text or is empty, or another number of domains than of texts.
    """
    if isinstance(texts, str):
        raise DataError(f"texts: expected a list of queries, got one text {brief(texts)}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"texts[{i}]: expected a text that is not empty, got {brief(text)}")
    if domains is None:
        return [None] * len(texts)
    if isinstance(domains, str) or len(domains) != len(texts):
        raise DataError(f"domains: expected {len(texts)} names, one a text, got {brief(domains)}")
    return domains
