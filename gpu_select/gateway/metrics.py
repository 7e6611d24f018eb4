"""What the gateway counts, for Prometheus. Labels hold names of the configuration, never a client's texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from gpu_select.gateway.breaker import CircuitState

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

_ROUTING_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_ANSWER_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "gpu_select_requests", "Requests that were answered.", ["route", "status"], registry=registry
        )
        self.request_s = Histogram(
            "gpu_select_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_ANSWER_S,
            registry=registry,
        )
        self.in_flight = Gauge("gpu_select_requests_in_flight", "Requests that are being answered.", registry=registry)
        self.routing_s = Histogram(
            "gpu_select_routing_seconds",
            "From a query to its decision, waiting for a batch included.",
            buckets=_ROUTING_S,
            registry=registry,
        )
        self.decisions = Counter(
            "gpu_select_decisions", "Queries by decision and model.", ["decision", "model"], registry=registry
        )
        self.undecided = Counter("gpu_select_undecided", "Queries that could not be routed.", registry=registry)
        self.batch_size = Histogram(
            "gpu_select_batch_size", "Queries of a forward pass.", buckets=_BATCH, registry=registry
        )
        self.batch_s = Histogram(
            "gpu_select_batch_seconds", "Time of a forward pass.", buckets=_ROUTING_S, registry=registry
        )
        self.tokens = Counter("gpu_select_tokens", "Tokens of routed queries.", registry=registry)
        self.queue_full = Counter("gpu_select_queue_full", "Requests refused as too many wait.", registry=registry)
        self.tries = Counter(
            "gpu_select_endpoint_tries", "Requests to an endpoint by outcome.", ["model", "outcome"], registry=registry
        )
        self.cut = Counter(
            "gpu_select_answers_cut", "Answers that broke off after their first byte.", ["model"], registry=registry
        )
        self.reloads = Counter(
            "gpu_select_reloads", "Reloads of the configuration by outcome.", ["outcome"], registry=registry
        )
        self.generation = Gauge(
            "gpu_select_generation", "Configurations that were in use, the present one included.", registry=registry
        )

    def watch(self, n_waiting: Callable[[], int], circuits: Callable[[], Iterable[tuple[str, CircuitState]]]) -> None:
        """Ask, whenever the metrics are read, how many queries wait and what state the endpoints' circuits are in."""
        self._registry.register(_Watched(n_waiting, circuits))

    def exposition(self) -> bytes:
        """All of them, as `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Watched(Collector):
    def __init__(
        self, n_waiting: Callable[[], int], circuits: Callable[[], Iterable[tuple[str, CircuitState]]]
    ) -> None:
        self._n_waiting = n_waiting
        self._circuits = circuits

    def collect(self) -> Iterable[GaugeMetricFamily]:
        queue = GaugeMetricFamily("gpu_select_queue_length", "Queries that wait for a batch.")
        queue.add_metric([], self._n_waiting())
        yield queue
        state = GaugeMetricFamily(
            "gpu_select_circuit_open", "1: the endpoint is left alone; 0.5: being tried; 0: in use.", labels=["model"]
        )
        for name, circuit in self._circuits():
            state.add_metric([name], {"closed": 0.0, "half-open": 0.5, "open": 1.0}[circuit])
        yield state
