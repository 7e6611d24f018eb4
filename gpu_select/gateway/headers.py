"""HTTP headers that cross the gateway: which of a client go on, which of an endpoint come back, and safe values."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from gpu_select.config import ModelConfig

__all__ = [
    "ATTEMPTS",
    "DOMAIN",
    "IGNORED",
    "REQUEST_ID",
    "ROUTING_MS",
    "SELECTED_CATEGORY",
    "SELECTED_DECISION",
    "SELECTED_MODEL",
    "TRUNCATED",
    "answer_headers",
    "endpoint_headers",
    "request_id",
    "safe_value",
]

SELECTED_MODEL = "x-vsr-selected-model"
SELECTED_DECISION = "x-vsr-selected-decision"
SELECTED_CATEGORY = "x-vsr-selected-category"
ROUTING_MS = "x-vsr-routing-ms"
"""Milliseconds from the body's last byte to the decision, waiting for a batch included."""
ATTEMPTS = "x-vsr-attempts"
"""Endpoints that were asked until one answered."""
IGNORED = "x-vsr-ignored-content"
"""Content parts without text, which had no part in the decision."""
TRUNCATED = "x-vsr-truncated"
"""Texts that were longer than the encoder takes."""
DOMAIN = "x-vsr-domain"
"""Of a request: the query's domain, where the client knows it."""
REQUEST_ID = "x-request-id"

_FROM_CLIENT = ("accept", "accept-encoding", "user-agent", "traceparent", "tracestate")
"""What goes on to an endpoint. Neither keys nor cookies of a client do: they are for the gateway."""

# RFC 9110, 7.6.1; what the gateway says itself, which no endpoint may say in its name; and what leads past it
_NOT_FROM_ENDPOINT = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade", "content-length", "server", "date", "set-cookie", "alt-svc"),
        *("strict-transport-security", "www-authenticate", "x-request-id", "location", "content-location"),
    )
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}\Z")


def request_id(given: str | None) -> str:
    """The client's own id where it is harmless, else a new one."""
    return given if given is not None and _REQUEST_ID.match(given) else secrets.token_hex(16)


def safe_value(text: str) -> str:
    """A header's value: printable ASCII as it is, everything else percent-encoded, cut to 256 characters."""
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="replace")[:256]


def endpoint_headers(client: Mapping[str, str], model: ModelConfig, request_id: str) -> dict[str, str]:
    """Headers of the request to an endpoint.

    Args:
        client: the client's headers, by any spelling of their names.
        model: brings its key and its own headers, which come last.
        request_id: goes on under the same name.
    """
    headers = {name: client[name] for name in _FROM_CLIENT if name in client}
    headers |= {"content-type": "application/json", REQUEST_ID: request_id}
    headers.setdefault("accept-encoding", "identity")
    return headers | model.own_headers()


def answer_headers(endpoint: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers of an endpoint's answer that go back to the client."""
    pairs = [(name.lower(), value) for name, value in endpoint]
    named = {part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")}
    return [
        (name, value)
        for name, value in pairs
        if name not in _NOT_FROM_ENDPOINT and name not in named and not name.startswith("x-vsr-")
    ]
