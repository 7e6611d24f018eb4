"""A callable that routes batches of columns."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gpu_select.batch.columns import Columns, columns_of
from gpu_select.encoder import resolve_device
from gpu_select.errors import ConfigError
from gpu_select.logs import Chunks, LogReader, LogWriter, check_columns
from gpu_select.pipeline import RouteOptions, RouteReport, input_name
from gpu_select.pipeline.log_router import LogRouter
from gpu_select.wire import ALGORITHMS

__all__ = ["RouterBatch"]

_log = logging.getLogger("gpu_select")

_MOST_LOADED = 4
"""So many different routers stay loaded in a process."""
_LOADING = threading.Lock()


class RouterBatch:
    """Columns in, the same columns with the model for each row out: what `gpu-select route` does to a log.

    Results are called as in a routed log: `model`, `score`, `margin` and `error`, with `config` also `decision` and
    `domain`. A row that cannot be routed keeps its place, with `error` set and None in the others; a column that
    carries such a name is kept as `input_` and the name.

    It can be pickled, before and after its first call. The router is loaded by the first call or `load`, once in a
    process, however many copies of this object arrive there and however many threads call them. Calls in one process
    take turns. Inside a call, reading, tokenising, deciding and writing overlap, in windows of 8,192 rows: batches of
    some ten thousand keep a GPU busy.

    Args:
        models_dir: a folder of selector files, or one file (.json, .json.gz, .json.zst); by default models/.
        algorithm: which file of the folder: knn (the default), kmeans, svm or mlp.
        config: a config.yaml whose decisions route, instead of one selector.
        candidates: models to choose from; by default all.
        query_column: holds the texts.
        domain_column: holds the domains; by default `domain`, and `category` where that has none.
        embedding_column: holds ready embeddings of the selector's encoder, instead of texts; no encoder is loaded.
        keep: columns to keep; by default all. An empty list leaves the results alone.
        embedding_model: qwen3, gte, mpnet, e5, bge, minilm, a folder or a hub id; by default what the files name.
        device: cpu, cuda, cuda:N, mps, or auto for the best there is where it is loaded.
        dtype: of the encoder; auto is float32 on the CPU and bfloat16 elsewhere.
        token_budget: tokens that the encoder takes at once; by default what suits the device.
        knn_backend: what searches KNN's rows.
        deterministic: decide on a query the same, bit for bit, in whatever batch it is; costs some speed.
        compile_layers: let torch.compile fuse the encoder's layers; a slow start.

    Attributes:
        device: as it was given.
        report: what happened to the rows that this object has routed in this process, truncated queries included.

    Raises:
        ConfigError: options that cannot work, or exclude each other.
    """

    def __init__(
        self,
        models_dir: str | os.PathLike[str] | None = None,
        *,
        algorithm: str | None = None,
        config: str | os.PathLike[str] | None = None,
        candidates: Sequence[str] | None = None,
        query_column: str = "query",
        domain_column: str | None = None,
        embedding_column: str | None = None,
        keep: Sequence[str] | None = None,
        embedding_model: str | None = None,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        token_budget: int | None = None,
        knn_backend: Literal["torch", "faiss"] = "torch",
        deterministic: bool = False,
        compile_layers: bool = False,
    ) -> None:
        if config is not None and (models_dir or algorithm or candidates or embedding_column):
            raise ConfigError.joined(
                [
                    "config says which files, algorithms and models there are: give it without models_dir, algorithm, "
                    "candidates and embedding_column"
                ]
            )
        if embedding_column is not None and (embedding_model or token_budget or compile_layers):
            raise ConfigError.joined(
                [
                    "embedding_column names vectors: give it without embedding_model, token_budget and compile_layers, "
                    "as there is no encoder"
                ]
            )
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise ConfigError("algorithm", algorithm, f"one of {', '.join(ALGORITHMS)}")
        if knn_backend not in ("torch", "faiss"):
            raise ConfigError("knn_backend", knn_backend, "torch or faiss")
        if token_budget is not None and (type(token_budget) is not int or token_budget < 1):
            raise ConfigError("token_budget", token_budget, "an integer >= 1")
        for option, names in (("candidates", candidates), ("keep", keep)):
            if isinstance(names, str):
                raise ConfigError(option, names, "a list of names")
        models = os.fspath(models_dir or "models/")
        is_file = ".json" in os.path.basename(models)
        self.report = RouteReport()
        self._options = RouteOptions(
            models=models,
            algorithm=algorithm or (None if is_file else "knn"),
            config=None if config is None else os.fspath(config),
            candidates=None if candidates is None else tuple(candidates),
            query_field=query_column,
            embedding_field=embedding_column,
            domain_field=domain_column,
            keep=(),  # columns are kept whole, not row by row
            embedding_model=embedding_model,
            dtype=dtype,
            token_budget=token_budget,
            knn_backend=knn_backend,
            deterministic=deterministic,
            compile_layers=compile_layers,
        )
        self._keep = None if keep is None else tuple(dict.fromkeys(keep))
        self.device = device
        # an object made later loads files anew, which may have changed; its copies do not
        self._identity = uuid.uuid4().hex

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"report": RouteReport()}

    def load(self) -> None:
        """Load the router now, where this process does not have it yet.

        Raises:
            GpuSelectError: files that are missing, broken or do not fit together, or a device that is not there.
        """
        self._loaded()

    def __call__(self, batch: Any) -> Any:
        """Route a batch.

        Args:
            batch: a dict of columns (lists, NumPy arrays or pandas Series), or a pyarrow Table or RecordBatch.

        Returns:
            A dict of the kept columns, as they are, and of lists of results; of a pyarrow batch, one of the same kind.

        Raises:
            ConfigError: a column that is not there.
            InputError: columns of different lengths, or no columns at all.
            GpuSelectError: what loading and routing raise.
        """
        columns = columns_of(batch)
        self._check_columns(columns)
        loaded = self._loaded()
        fields = loaded.router.result_fields
        sink = _Results(fields)
        with loaded.turn, self._reader(columns) as log:
            report = loaded.router.route(log, LogWriter(sink, contextlib.ExitStack()))
            self.report.add(report)
            loaded.tell(report, self._options)
        names = columns.names if self._keep is None else [name for name in self._keep if name in columns.names]
        return columns.with_results([(name, input_name(name, fields)) for name in names], sink.columns)

    def _loaded(self) -> _Loaded:
        with _LOADING:
            return _load(self._identity, self._options, self.device)

    def _check_columns(self, columns: Columns) -> None:
        options = self._options
        needed = (
            ("query_column", options.query_field if options.embedding_field is None else None),
            ("embedding_column", options.embedding_field),
            ("domain_column", options.domain_field),
            *(("keep", name) for name in self._keep or ()),
        )
        if columns.n_rows:  # some engines hand over nothing at all where a partition is empty
            check_columns("the batch", columns.names, [(option, name) for option, name in needed if name is not None])

    def _reader(self, columns: Columns) -> LogReader:
        options = self._options
        wanted = dict.fromkeys((options.embedding_field or options.query_field, *options.domain_fields))
        names = [name for name in wanted if name in columns.names]

        def chunks() -> Chunks:
            yield columns.rows(names), 0

        return LogReader(chunks(), columns.batches(names), names, None, contextlib.ExitStack())


class _Results:
    """Takes what would be written, as columns."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in fields}

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for name, column in self.columns.items():
            column += [row[name] for row in rows]

    def write_columns(self, columns: Mapping[str, Any], n_rows: int) -> None:
        for name, column in self.columns.items():
            column += _listed(columns.get(name), n_rows)

    def finish(self) -> None:
        pass


def _listed(column: Any, n_rows: int) -> list[Any]:
    if column is None:
        return [None] * n_rows
    if isinstance(column, np.ndarray):
        return [None if value != value else value for value in column.tolist()]
    return column.to_pylist()  # type: ignore[no-any-return]


class _Loaded(NamedTuple):
    """A router of this process."""

    router: LogRouter
    turn: threading.Lock
    """Held by who routes with it."""
    told: set[str]
    """What users have been told, which is said once."""

    def tell(self, report: RouteReport, options: RouteOptions) -> None:
        """Warn of what is unusual about a batch."""
        for topic, text in self._warnings(report, options):
            if topic not in self.told:
                self.told.add(topic)
                _log.warning("%s (said once a process; `report` counts them)", text)

    def _warnings(self, report: RouteReport, options: RouteOptions) -> Iterator[tuple[str, str]]:
        if report.truncated:
            yield "truncated", f"{report.truncated} queries are longer than the encoder takes and were truncated"
        if report.without_domain and self.router.without_domain == "other":
            where = " or ".join(options.domain_fields)
            yield (
                "domain",
                f"{report.without_domain} of {report.rows} rows have no {where}: their domain counts as 'other'",
            )


@functools.lru_cache(_MOST_LOADED)
def _load(identity: str, options: RouteOptions, device: str) -> _Loaded:
    return _Loaded(LogRouter(options, resolve_device(device)), threading.Lock(), set())
