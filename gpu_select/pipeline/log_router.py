"""A router that is loaded once and then takes logs, or parts of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch

from gpu_select.artifacts import find_selector_files, load_selector
from gpu_select.config import RouterConfig, read_config
from gpu_select.decision_router import DecisionRouter
from gpu_select.decisions import DECISION_FIELDS
from gpu_select.domain_file import DOMAIN_FILE
from gpu_select.encoder import EmbeddingCache, load_encoder
from gpu_select.errors import InputError
from gpu_select.logs import RESULT_FIELDS, LogReader, LogWriter
from gpu_select.logs.columnar import check_vectors
from gpu_select.pipeline.columnar import route_batches
from gpu_select.pipeline.embedded import EmbeddedRouter
from gpu_select.pipeline.options import RouteOptions
from gpu_select.pipeline.report import RouteReport
from gpu_select.pipeline.routing import WINDOW_ROWS, route_rows
from gpu_select.pipeline.windows import Find, input_name, text_in, vector_in
from gpu_select.router import DEFAULT_ENCODER, Router

__all__ = ["LogRouter"]


class LogRouter:
    """What `RouteOptions` describe, on a device; a context manager that keeps what the cache of embeddings has learnt.

    Args:
        options: which router, and how it routes.
        device: from `resolve_device`.

    Attributes:
        router: what decides.
        result_fields: what routing adds to a row, in the order of the output's columns.

    Raises:
        GpuSelectError: files that are missing, broken or do not fit together, or an option that cannot work.
    """

    def __init__(self, options: RouteOptions, device: torch.device) -> None:
        self.options = options
        self.router: Router | DecisionRouter | EmbeddedRouter
        self.result_fields: tuple[str, ...] = RESULT_FIELDS
        self._device = device
        self._decisions = ""
        self._cache: EmbeddingCache | None = None
        if options.config is not None:
            config = read_config(options.config)
            self._decisions = repr((config.by_preference, config.default_decision, config.default_model))
            self._files = _files_of(config)
            self.router = DecisionRouter.from_config(
                config,
                encoder=options.embedding_model,
                device=device,
                dtype=options.dtype,
                knn_backend=options.knn_backend,
                deterministic=options.deterministic,
            )
            self.result_fields = DECISION_FIELDS
        else:
            artifact = load_selector(
                options.models, algorithm=options.algorithm, device=device, backend=options.knn_backend
            )
            self._files = [artifact.path]
            if options.candidates is not None:
                artifact.selector.candidate_mask(options.candidates)
            if options.embedding_field is not None:
                artifact.selector.deterministic = options.deterministic
                self.router = EmbeddedRouter(artifact.selector, options.candidates)
                return
            name = options.embedding_model or artifact.encoder_name or DEFAULT_ENCODER
            self.router = Router.of(load_encoder(name, device=device, dtype=options.dtype), artifact)
            if options.deterministic:
                self.router.make_deterministic()
        encoder = self.router.encoder
        if options.compile_layers:
            encoder.compile_layers()
        if options.cache_dir is not None:
            self._cache = EmbeddingCache(options.cache_dir, encoder.fingerprint, encoder.precision, encoder.dim)

    @property
    def without_domain(self) -> Literal["predicted", "refused", "other"]:
        """What becomes of a row without a domain."""
        if isinstance(self.router, DecisionRouter):
            if self.router.domain_head is not None:
                return "predicted"
            if self.router.rules.ask_for_domains:
                return "refused"
        return "other"

    def kept_columns(self, columns: Sequence[str] | None) -> list[str] | None:
        """What a table's columns are called that keep input fields, where the input's `columns` are known."""
        columns = self.options.keep if self.options.keep is not None else columns
        return None if columns is None else [input_name(name, self.result_fields) for name in columns]

    def kept_schema(self, schema: Any) -> Any:
        """A Parquet input's schema with its columns called as `kept_columns` calls them, so that they keep their types.

        Args:
            schema: `LogReader.schema`; None stays None.
        """
        if schema is None:
            return None
        names = [input_name(name, self.result_fields) for name in schema.names]
        return schema.empty_table().rename_columns(names).schema

    def route(
        self,
        log: LogReader,
        out: LogWriter,
        *,
        progress: Callable[[RouteReport], object] | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> RouteReport:
        """Route what a reader gives into a writer.

        Args:
            log: its rows have not been read yet.
            out: opened with `result_fields`.
            progress, on_stop: as in `route_rows`.

        Raises:
            GpuSelectError: reading, writing or routing failed, for reasons that are not a row's own.
        """
        common: dict[str, Any] = {
            "domain_fields": self.options.domain_fields,
            "keep": self.options.keep,
            "progress": progress,
            "on_stop": on_stop,
        }
        router, field = self.router, self.options.embedding_field
        find: Find = text_in(self.options.query_field)
        prepare: Any
        decide: Any
        if isinstance(router, EmbeddedRouter):
            assert field is not None
            if log.has_batches and out.takes_columns:
                batches = log.batches(WINDOW_ROWS)
                return route_batches(batches, out.write_columns, router, embedding_field=field, **common)
            if log.schema is not None:
                check_vectors(log.schema, field, router.dim)
            prepare, decide, find = router.prepare, router.decide, vector_in(field, router.dim)
        else:
            with_texts: dict[str, Any] = {"token_budget": self.options.token_budget, "cache": self._cache}
            prepare = partial(router.prepare, tokenize=self._cache is None)
            if isinstance(router, DecisionRouter):
                decide = partial(router.decide_prepared, **with_texts)
            else:
                decide = partial(router.decide, candidates=self.options.candidates, **with_texts)
        windows = log.windows(WINDOW_ROWS)
        return route_rows(windows, out.write, prepare, decide, find=find, result_fields=self.result_fields, **common)

    def flush(self) -> None:
        """Write what the cache of embeddings has learnt.

        Raises:
            OutputError: it cannot be written.
        """
        if self._cache is not None:
            self._cache.flush()

    def fingerprints(self) -> dict[str, Any]:
        """What decides besides options and rows: selector files, decisions, encoder, kind of device, versions.

        Raises:
            InputError: a file cannot be read again.
        """
        encoder = None
        if not isinstance(self.router, EmbeddedRouter):
            used = self.router.encoder
            encoder = {"name": used.name, "fingerprint": used.fingerprint, "precision": used.precision}
        return {
            "files": {path.name: _sha256(path) for path in self._files},
            "decisions": hashlib.sha256(self._decisions.encode()).hexdigest() if self._decisions else None,
            "encoder": encoder,
            "device": self._device.type,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()


def _files_of(config: RouterConfig) -> list[Path]:
    """The files that the decisions of a configuration use."""
    wanted = {decision.algorithm.type for decision in config.decisions if decision.algorithm is not None}
    if config.models_path is None:
        return []
    found = find_selector_files(config.models_path) if wanted else {}
    domain_path = Path(config.models_path) / DOMAIN_FILE
    return [path for kind, path in found.items() if kind in wanted] + [domain_path] * os.path.exists(domain_path)


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
