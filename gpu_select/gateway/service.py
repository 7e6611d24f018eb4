"""What a configuration amounts to once its files are loaded: who decides, who answers, who may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from gpu_select.config import ModelConfig, read_config
from gpu_select.config.gateway import GatewayConfig
from gpu_select.decision_router import DecisionRouter
from gpu_select.decisions import Decided, Query
from gpu_select.encoder import DtypeName
from gpu_select.errors import ConfigError, GpuSelectError, brief
from gpu_select.gateway.breaker import CircuitBreaker
from gpu_select.gateway.embedder import Embedder, Embedding
from gpu_select.gateway.keys import KeyRing
from gpu_select.gateway.upstream import Endpoint

__all__ = ["EmbeddingModel", "Generation", "Service", "embed_together", "load_service"]

_FIRST_QUERY = "Which model should answer this question?"

Decide = Callable[[Sequence[Query]], Sequence[Decided | GpuSelectError]]


class EmbeddingModel(Protocol):
    """What answers POST /v1/embeddings here."""

    @property
    def name(self) -> str:
        """What clients call it."""
        ...

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """The vectors of some texts, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Service:
    """A loaded configuration.

    Attributes:
        settings: the section `gateway`.
        endpoints: one for each model that can be chosen, at least.
        decide: from one thread at a time: a decision for each query, or why there is none.
        embedder: the same; None where there is no encoder.
    """

    settings: GatewayConfig
    endpoints: tuple[ModelConfig, ...]
    decide: Decide
    embedder: EmbeddingModel | None = None

    def __post_init__(self) -> None:
        """Refuse names that stand for two things.

        Raises:
            ConfigError: an alias is the name of a model.
        """
        taken = {endpoint.name for endpoint in self.endpoints}
        for alias in self.settings.aliases:
            if alias in taken:
                raise ConfigError.joined([f"gateway.aliases: {brief(alias)} is the name of an endpoint, too"])


class Generation:
    """A service in use, until the next one takes its place.

    Attributes:
        number: counts from 1.
        endpoints: by name. One that is configured as before keeps its circuit breaker.
    """

    def __init__(self, service: Service, before: Generation | None = None) -> None:
        self.number: int = 1 if before is None else before.number + 1
        self.service = service
        self.settings = service.settings
        self.keys = KeyRing(service.settings.api_keys, service.settings.admin_keys)
        self.endpoints: Mapping[str, Endpoint] = MappingProxyType(
            {model.name: self._endpoint(model, before) for model in service.endpoints}
        )

    def _endpoint(self, model: ModelConfig, before: Generation | None) -> Endpoint:
        if before is not None and before.settings.breaker == self.settings.breaker:
            known = before.endpoints.get(model.name)
            if known is not None and known.model == model:
                return known
        return Endpoint(model, CircuitBreaker(self.settings.breaker))

    def decide(self, queries: Sequence[Query]) -> list[tuple[Generation, Decided | GpuSelectError]]:
        """Each decision with the generation that took it, which is the one that has to carry it out."""
        return [(self, decided) for decided in self.service.decide(queries)]


def embed_together(items: Sequence[tuple[EmbeddingModel, str]]) -> list[Embedding]:
    """The vectors of some texts, each by the model beside it; those of one model in one call."""
    texts: dict[EmbeddingModel, list[str]] = {}
    for model, text in items:
        texts.setdefault(model, []).append(text)
    vectors = {model: iter(model.embed(own)) for model, own in texts.items()}
    return [next(vectors[model]) for model, _ in items]


def load_service(path: str, *, device: str, dtype: DtypeName, deterministic: bool = False) -> Service:
    """Read a configuration, load all its files, and decide once, so that no client waits for what comes first.

    Args:
        path: config.yaml.
        device, dtype, deterministic: as for `DecisionRouter.from_config`.

    Raises:
        GpuSelectError: the configuration or a file cannot be used.
    """
    config = read_config(path, serving=True)
    router = DecisionRouter.from_config(
        config, device=device, dtype=dtype, deterministic=deterministic, needs_domains=True
    )
    router.decide([Query(_FIRST_QUERY)])
    return Service(config.gateway, config.endpoints, router.decide, Embedder(router.encoder))
