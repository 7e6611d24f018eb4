"""Small logs with ready embeddings, and processes that are threads, so that a run costs milliseconds."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_select.domains import DOMAIN_NAMES
from gpu_select.errors import GpuSelectError, InputError
from gpu_select.pipeline import RouteOptions
from gpu_select.shards import Job, RunFolder, Shard
from gpu_select.shards.pool import Seat
from gpu_select.shards.run import Outcome, run_shards

DIM = 8


def _rows(n_rows: int, start: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(start)
    vectors = rng.normal(size=(n_rows, DIM)).astype(np.float32).tolist()
    return [
        {"id": i, "query": f"number {i}", "domain": DOMAIN_NAMES[i % 14], "embedding": vector}
        for i, vector in enumerate(vectors, start)
    ]


@pytest.fixture(scope="session")
def embedded_rows() -> Callable[..., list[dict[str, Any]]]:
    """Call with a number, and start=: rows with embeddings of 8 numbers."""
    return _rows


@pytest.fixture(scope="session")
def shard_models(write_tiny_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Selector files for embeddings of 8 numbers."""
    return write_tiny_models(tmp_path_factory.mktemp("models"), {}, dim=DIM)


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Call with a name and rows (or texts): writes them as JSON lines or Parquet, returns the path."""

    def write(name: str, rows: Iterable[Any]) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            pa = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=7, compression="none")
        else:
            lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
            path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def job_of(shard_models: Path, tmp_path: Path) -> Callable[..., Job]:
    """Call with paths, and folder=, shard_rows=, formats and options: a job on ready embeddings."""

    def make(
        *paths: Path,
        folder: str = "out",
        shard_rows: int = 10,
        input_format: str | None = None,
        output_format: str | None = None,
        **options: Any,
    ) -> Job:
        settings = RouteOptions(
            **{"models": str(shard_models), "algorithm": "kmeans", "embedding_field": "embedding", **options}
        )
        formats = {"input_format": input_format, "output_format": output_format}
        return Job.of(settings, [str(path) for path in paths], str(tmp_path / folder), shard_rows, **formats)

    return make


class ThreadWorker:
    """What `pool.Worker` is to a run, as a thread. `before` is called with it and each shard; it may raise.

    Raising `Death` ends the worker as a kill does.
    """

    before: Callable[[ThreadWorker, Shard], None] | None = None
    ending = "ended by signal 9"

    def __init__(self, job: Job, seat: Seat, replies: queue.SimpleQueue[Any], lock: int) -> None:
        self.job, self.seat = job, seat
        self.routed: list[int] = []
        self._replies = replies
        self._orders: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        import torch

        from gpu_select.shards.routing import ShardRouter

        try:
            with ShardRouter(Job.from_json(json.loads(json.dumps(self.job.to_json()))), torch.device("cpu")) as router:
                ready = {
                    "router": router.router.fingerprints(),
                    "versions": router.versions(),
                    "without_domain": router.router.without_domain,
                    "result_fields": router.router.result_fields,
                }
                self._say(ready=ready)
                while (shard := self._orders.get()) is not None:
                    try:
                        if self.before is not None:
                            type(self).before(self, shard)
                        record, report = router.route(shard)
                    except InputError as error:
                        self._say(stop=str(error), file=router.file)
                    except GpuSelectError as error:
                        self._say(failed=str(error))
                    else:
                        self.routed.append(shard.number)
                        counts = {"tokens": 0, "truncated": 0, "cached": 0, "stage_seconds": report.stage_seconds}
                        self._say(done={"record": json.loads(json.dumps(record.to_json())), **counts})
        except GpuSelectError as error:
            self._say(stop=str(error), file=None)
        except Death:
            pass
        self._replies.put((self, None))

    def _say(self, **reply: Any) -> None:
        self._replies.put((self, reply))

    def route(self, shard: Shard) -> None:
        self._orders.put(shard)

    def kill(self) -> None:
        self._orders.put(None)
        self._thread.join()


class Death(BaseException):
    """Ends a `ThreadWorker`."""


@pytest.fixture(scope="session")
def death() -> type[BaseException]:
    """Raise it in `before` to end a worker."""
    return Death


@pytest.fixture
def run_job() -> Callable[..., Outcome]:
    """Call with a job, and workers=, before=: runs it with threads as processes."""

    def run(
        job: Job,
        *,
        workers: int = 1,
        before: Callable[[ThreadWorker, Shard], None] | None = None,
        started: list[ThreadWorker] | None = None,
        **options: Any,
    ) -> Outcome:
        class Started(ThreadWorker):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                if started is not None:
                    started.append(self)

        Started.before = before
        seats = [Seat(f"worker {i}", "cpu") for i in range(workers)]
        with RunFolder(job) as folder:
            return run_shards(job, folder, seats, start=Started, **options)

    return run


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Call with a folder: its files' bytes by name."""
    return _contents


@pytest.fixture(scope="session")
def read_parts() -> Callable[[Path], list[Sequence[dict[str, Any]]]]:
    """Call with a folder: the rows of each part, in order."""

    def read(folder: Path) -> list[Sequence[dict[str, Any]]]:
        parts: list[Sequence[dict[str, Any]]] = []
        for path in sorted(folder.glob("part-*")):
            if path.suffix == ".parquet":
                from pyarrow import parquet

                parts.append(parquet.read_table(path).to_pylist())
            else:
                parts.append([json.loads(line) for line in path.read_text().splitlines()])
        return parts

    return read
