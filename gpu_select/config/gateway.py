"""The section `gateway` of config.yaml: how the HTTP server listens, batches, reaches its upstreams and gives up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from gpu_select.config.environment import shown
from gpu_select.config.sections import Section

__all__ = ["BatchingConfig", "BreakerConfig", "GatewayConfig", "RouteOn", "UpstreamConfig", "parse_gateway"]

RouteOn = Literal["last_user_message", "conversation"]

_MOST_S = 86_400.0
_MOST_BODY_MB = 1024.0
_MOST_KEYS = 1000
_MOST_ALIASES = 100


@dataclass(frozen=True)
class BatchingConfig:
    """How requests share forward passes."""

    max_batch: int = 64
    """Queries in one forward pass."""
    max_wait_ms: float = 2.0
    """A query waits so long for others, unless the batch is full before."""
    max_queue: int = 1024
    """Queries that may wait; more are answered with 429."""


@dataclass(frozen=True)
class UpstreamConfig:
    """How endpoints are reached."""

    connect_s: float = 5.0
    """Until a connection stands, its name resolved and its TLS agreed on."""
    first_byte_s: float = 60.0
    """Until the first byte of a streamed answer."""
    idle_s: float = 60.0
    """Between two pieces of a streamed answer; also how long a client may take nothing of its answer."""
    total_s: float = 600.0
    """Until an answer that is not streamed is complete."""
    max_connections: int = 1024
    """Requests to all endpoints together, at once; more go nowhere, and are answered with 503."""
    max_connections_per_endpoint: int = 512
    """Requests to one endpoint at once; more go to the next candidate. Leaves room for others where one hangs."""


@dataclass(frozen=True)
class BreakerConfig:
    """When an endpoint that fails is left alone."""

    failures: int = 5
    """So many in a row open its circuit."""
    open_s: float = 5.0
    """It then rests so long; twice as long each time that a probe fails."""
    max_open_s: float = 60.0
    """The longest rest."""
    probes: int = 1
    """Requests that are let through at once to try it, and how many have to succeed. One that takes longer than
    `open_s` keeps no others out."""


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of `gpu-select serve`."""

    aliases: tuple[str, ...] = ("auto",)
    """Model names that stand for: choose one."""
    route_on: RouteOn = "last_user_message"
    """The text that is routed: the last message of the user, or the texts of all messages."""
    max_body_bytes: int = 8 << 20
    """Longest body of a request; longer ones are answered with 413."""
    body_timeout_s: float = 30.0
    """A request's body has to be there after so long."""
    shutdown_s: float = 30.0
    """After SIGTERM, requests that are being answered have so long to finish."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """A client has to send one of them; without any, everybody is served."""
    admin_keys: tuple[str, ...] = field(default=(), repr=False)
    """For /admin; by default the `api_keys`, and without those the machine itself only. Behind a proxy on the same
    machine every client seems to be of it: there they are needed."""
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)


def parse_gateway(section: Section | None) -> GatewayConfig:
    """The settings of a section, defaults for what it does not say; what is wrong goes to the section's problems."""
    if section is None:
        return GatewayConfig()
    own = GatewayConfig()
    max_body_mb = section.number("max_body_mb", _MOST_BODY_MB, least=0.001)
    route_on = section.choice("route_on", ("last_user_message", "conversation"))
    config = GatewayConfig(
        aliases=_texts(section, "aliases", "names", _MOST_ALIASES) or own.aliases,
        route_on="conversation" if route_on == "conversation" else own.route_on,
        max_body_bytes=own.max_body_bytes if max_body_mb is None else math.ceil(max_body_mb * (1 << 20)),
        body_timeout_s=_seconds(section, "body_timeout_s", own.body_timeout_s),
        shutdown_s=_seconds(section, "shutdown_s", own.shutdown_s, least=0),
        api_keys=_texts(section, "api_keys", "keys", _MOST_KEYS, secret=True),
        admin_keys=_texts(section, "admin_keys", "keys", _MOST_KEYS, secret=True),
        batching=_batching(section.section("batching")),
        upstream=_upstream(section.section("upstream")),
        breaker=_breaker(section.section("breaker")),
    )
    section.finish()
    return config


def _batching(section: Section | None) -> BatchingConfig:
    own = BatchingConfig()
    if section is None:
        return own
    max_wait_ms = section.number("max_wait_ms", 1000)
    config = BatchingConfig(
        max_batch=section.integer("max_batch", 65_536) or own.max_batch,
        max_wait_ms=own.max_wait_ms if max_wait_ms is None else max_wait_ms,
        max_queue=section.integer("max_queue", 1 << 20) or own.max_queue,
    )
    section.finish()
    return config


def _upstream(section: Section | None) -> UpstreamConfig:
    own = UpstreamConfig()
    if section is None:
        return own
    config = UpstreamConfig(
        connect_s=_seconds(section, "connect_s", own.connect_s),
        first_byte_s=_seconds(section, "first_byte_s", own.first_byte_s),
        idle_s=_seconds(section, "idle_s", own.idle_s),
        total_s=_seconds(section, "total_s", own.total_s),
        max_connections=section.integer("max_connections", 1 << 20) or own.max_connections,
        max_connections_per_endpoint=(
            section.integer("max_connections_per_endpoint", 1 << 20) or own.max_connections_per_endpoint
        ),
    )
    section.finish()
    return config


def _breaker(section: Section | None) -> BreakerConfig:
    own = BreakerConfig()
    if section is None:
        return own
    open_s = _seconds(section, "open_s", own.open_s)
    config = BreakerConfig(
        failures=section.integer("failures", 10_000) or own.failures,
        open_s=open_s,
        max_open_s=_seconds(section, "max_open_s", max(own.max_open_s, open_s)),
        probes=section.integer("probes", 1000) or own.probes,
    )
    if config.max_open_s < config.open_s:
        section.expected("max_open_s", f"at least open_s, which is {config.open_s:g}")
    section.finish()
    return config


def _seconds(section: Section, key: str, default: float, *, least: float = 0.001) -> float:
    value = section.number(key, _MOST_S, least=least)
    return default if value is None else value


def _texts(section: Section, key: str, what: str, most: int, *, secret: bool = False) -> tuple[str, ...]:
    texts = []
    for where, value in section.items(key, what, most=most):
        if isinstance(value, str) and value.strip() and value.isprintable():
            texts.append(str(value))
        else:
            got = "" if secret else f", got {shown(value)}"
            section.problems.add(where, f"expected a text of one line that is not empty{got}")
    return tuple(texts)
