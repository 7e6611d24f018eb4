"""What all requests share: the service in use, its batchers, the pool of connections, the metrics, and reloading."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gpu_select.config.gateway import BatchingConfig, GatewayConfig
from gpu_select.decisions import Decided, Query
from gpu_select.errors import GpuSelectError
from gpu_select.gateway.batcher import Batcher, BatchLimits, QueueFullError
from gpu_select.gateway.embedder import Embedding
from gpu_select.gateway.errors import ConfigRefusedError, OverloadedError
from gpu_select.gateway.event_log import log_event, log_failure
from gpu_select.gateway.failover import Outcome
from gpu_select.gateway.metrics import Metrics
from gpu_select.gateway.pool import Pool
from gpu_select.gateway.service import EmbeddingModel, Generation, Service, embed_together
from gpu_select.gateway.upstream import Endpoint

__all__ = ["Gateway", "Routed"]


@dataclass(frozen=True, eq=False)
class Routed:
    """A query's decision, or why there is none."""

    generation: Generation
    decided: Decided | GpuSelectError
    routing_ms: float


class Gateway:
    """One router with its endpoints, for one event loop. Created within it; `close` ends it.

    Args:
        service: the first one.
        load: loads another one, in a thread; for reloading.

    Attributes:
        of_the_start: settings that a reload does not change, by name.
    """

    def __init__(self, service: Service, load: Callable[[], Service]) -> None:
        self.generation = Generation(service)
        self.metrics = Metrics()
        self.pool = Pool()
        self.stopping = False
        self._load = load
        self.of_the_start: Mapping[str, float] = _of_the_start(service.settings)
        self._reloading = asyncio.Lock()
        self._next_reload: asyncio.Task[Generation] | None = None
        self._reloads: set[asyncio.Task[Generation]] = set()
        # decisions and embeddings run one after the other: they may share an encoder, and the device anyway
        self._forward = ThreadPoolExecutor(1, "forward")
        self._loading = ThreadPoolExecutor(1, "loading")
        limits = _limits(service.settings.batching)
        self._decisions: Batcher[Query, tuple[Generation, Decided | GpuSelectError]] = Batcher(
            self.generation.decide, self._forward, limits, self._observe_batch
        )
        self._embeddings: Batcher[tuple[EmbeddingModel, str], Embedding] = Batcher(
            embed_together, self._forward, limits
        )
        self.metrics.generation.set(1)
        self.metrics.watch(
            lambda: self._decisions.n_waiting,
            lambda: [(name, endpoint.breaker.state) for name, endpoint in self.generation.endpoints.items()],
        )

    async def decide(self, queries: Sequence[Query]) -> list[Routed]:
        """Route some queries, together with those of other requests.

        Raises:
            OverloadedError: too many wait.
        """
        start = time.perf_counter()
        try:
            results = await self._decisions.submit(queries)
        except QueueFullError as error:
            self.metrics.queue_full.inc()
            raise OverloadedError(error.retry_after_s) from error
        seconds = time.perf_counter() - start
        for _, decided in results:
            self._count(decided, seconds)
        return [Routed(generation, decided, seconds * 1000) for generation, decided in results]

    async def embed(self, model: EmbeddingModel, texts: Sequence[str]) -> list[Embedding]:
        """The vectors of some texts, all by the same encoder, whatever is loaded in the meantime.

        Raises:
            OverloadedError: too many wait.
        """
        try:
            return await self._embeddings.submit([(model, text) for text in texts])
        except QueueFullError as error:
            self.metrics.queue_full.inc()
            raise OverloadedError(error.retry_after_s) from error

    def count_try(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Note how an endpoint did."""
        self.metrics.tries.labels(endpoint.name, outcome).inc()
        if outcome != "answered":
            log_event("endpoint failed", level=logging.WARNING, model=endpoint.name, outcome=outcome)

    async def reload(self) -> Generation:
        """Load the configuration and its files again, beside those in use, and change over between two batches.

        Reloads come one after the other. Those who ask while one waits for its turn share it, and it goes on when they
        leave.

        Raises:
            ConfigRefusedError: the new ones cannot be used. Those in use stay.
        """
        return await asyncio.shield(self.start_reload())

    def start_reload(self) -> asyncio.Task[Generation]:
        """The same for those who do not wait; the log tells how it ended."""
        if self._next_reload is None:
            self._next_reload = asyncio.get_running_loop().create_task(self._reload(), name="reload")
            self._reloads.add(self._next_reload)
            self._next_reload.add_done_callback(self._end_reload)
        return self._next_reload

    async def _reload(self) -> Generation:
        async with self._reloading:
            self._next_reload = None  # from here on the files may be read: who changes them now asks for another one
            loop = asyncio.get_running_loop()
            try:
                service = await loop.run_in_executor(self._loading, self._load)
                generation = Generation(service, self.generation)
            except GpuSelectError as error:
                self._refused(str(error))
                raise ConfigRefusedError(f"The configuration was not reloaded: {error}") from error
            except Exception as error:
                log_failure("reload failed", error)
                self._refused(type(error).__name__)
                raise ConfigRefusedError(f"The configuration was not reloaded: {type(error).__name__}") from error
            for name, value in _of_the_start(generation.settings).items():
                if value != self.of_the_start[name]:
                    log_event(f"{name} takes effect at the next start", level=logging.WARNING)
            self.generation = generation
            limits = _limits(service.settings.batching)
            self._decisions.swap(generation.decide, limits)
            self._embeddings.swap(embed_together, limits)
            self.metrics.reloads.labels("done").inc()
            self.metrics.generation.set(generation.number)
            log_event("reloaded", generation=generation.number)
            return generation

    def _end_reload(self, task: asyncio.Task[Generation]) -> None:
        self._reloads.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody warns when all who asked have left; it is in the log

    async def close(self) -> None:
        """End reloads and batchers, and close the pool."""
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(self._decisions.close(), self._embeddings.close())
        self._forward.shutdown(wait=False, cancel_futures=True)
        self._loading.shutdown(wait=False, cancel_futures=True)
        await self.pool.close()

    def _refused(self, reason: str) -> None:
        self.metrics.reloads.labels("refused").inc()
        log_event("reload refused", level=logging.ERROR, reason=reason)

    def _count(self, decided: Decided | GpuSelectError, seconds: float) -> None:
        self.metrics.routing_s.observe(seconds)
        if isinstance(decided, GpuSelectError):
            self.metrics.undecided.inc()
        else:
            self.metrics.decisions.labels(decided.decision, decided.model).inc()
            self.metrics.tokens.inc(decided.n_tokens)

    def _observe_batch(self, n_queries: int, seconds: float) -> None:
        self.metrics.batch_size.observe(n_queries)
        self.metrics.batch_s.observe(seconds)


def _of_the_start(settings: GatewayConfig) -> dict[str, float]:
    return {"shutdown_s": settings.shutdown_s}


def _limits(config: BatchingConfig) -> BatchLimits:
    return BatchLimits(config.max_batch, config.max_wait_ms / 1000, config.max_queue)
