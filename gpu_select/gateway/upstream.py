"""One request to one endpoint: pooled connections, a time limit for each phase, and an answer whose head is there."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import aiohttp

from gpu_select.config import ModelConfig
from gpu_select.config.gateway import UpstreamConfig
from gpu_select.gateway.breaker import CircuitBreaker
from gpu_select.gateway.headers import answer_headers
from gpu_select.gateway.pool import Pool, PoolFullError

__all__ = ["Answer", "Endpoint", "EndpointFailedError", "EndpointRequest", "FailureKind", "ask"]

FailureKind = Literal["busy", "unreachable", "timeout", "cut", "invalid"]

_HEAD_BYTES = 1 << 20
"""An answer that is not streamed is held back up to this size, so that one which breaks off can still be replaced."""

_STALE_TRIES = 2


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A model's server, and how it has been doing."""

    model: ModelConfig
    breaker: CircuitBreaker

    @property
    def name(self) -> str:
        """The model's name, which is what the endpoint calls it, too."""
        return self.model.name


@dataclass(frozen=True)
class EndpointRequest:
    """What goes to an endpoint."""

    path: str
    """After the base URL, such as /chat/completions."""
    body: bytes
    headers: dict[str, str]
    stream: bool


class EndpointFailedError(Exception):
    """An endpoint gave no answer, or none that is complete.

    Attributes:
        kind: how it failed. "busy": it was not asked, as all connections are in use; "unreachable": no connection;
            "timeout"; "cut": the connection broke; "invalid": no HTTP.
    """

    def __init__(self, kind: FailureKind, name: str) -> None:
        super().__init__(f"{name}: {kind}")
        self.kind = kind
        self.name = name


class Answer:
    """An endpoint's answer: status, headers, and its body as far as it has come.

    Attributes:
        headers: those that may go to the client.
        head: the first piece of a streamed body; up to 1 MiB of another one.
        complete: whether `head` is the whole body.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        response: aiohttp.ClientResponse,
        head: bytes,
        complete: bool,
        on_close: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.status = response.status
        self.headers = answer_headers(response.headers.items())
        self.content_length = response.content_length
        self.head = head
        self.complete = complete
        self._response = response
        self._on_close = on_close

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is server-sent events, not compressed."""
        return _is_event_stream(self._response) and "content-encoding" not in self._response.headers

    async def rest(self, idle_s: float) -> AsyncIterator[bytes]:
        """What comes after `head`, each piece as it arrives.

        Raises:
            EndpointFailedError: the connection broke, or nothing came for `idle_s`.
        """
        while not self.complete:
            try:
                async with asyncio.timeout(idle_s):
                    piece = await self._response.content.readany()
            except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
                raise EndpointFailedError(_kind_of(error), self.endpoint.name) from error
            self.complete = self._response.content.at_eof()
            if piece:
                yield piece

    def close(self) -> None:
        """Back to the pool with a connection whose answer has been read; any other is cut, which stops the endpoint."""
        if self.complete:
            self._response.release()
        else:
            self._response.close()
        self._on_close()


async def ask(pool: Pool, endpoint: Endpoint, request: EndpointRequest, config: UpstreamConfig) -> Answer:
    """Send a request, and return once the head of the answer is there. The caller closes the answer.

    A connection that the endpoint had closed while it lay in the pool is replaced.

    Raises:
        EndpointFailedError: before that. Nothing of the answer has been passed on then.
    """
    try:
        free = pool.take(endpoint, config)
    except PoolFullError as full:
        raise EndpointFailedError("busy", endpoint.name) from full
    try:
        return await _fresh(pool, endpoint, request, config, free)
    except BaseException:
        free()
        raise


async def _fresh(
    pool: Pool, endpoint: Endpoint, request: EndpointRequest, config: UpstreamConfig, on_close: Callable[[], None]
) -> Answer:
    for stale_tries in range(_STALE_TRIES + 1):
        reuse = SimpleNamespace(reused=False)
        try:
            async with asyncio.timeout(config.first_byte_s if request.stream else config.total_s):
                return await _head(pool.session, endpoint, request, config, reuse, on_close)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not (reuse.reused and _is_stale(error) and stale_tries < _STALE_TRIES):
                raise EndpointFailedError(_kind_of(error), endpoint.name) from error
    raise AssertionError("unreachable")


async def _head(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    request: EndpointRequest,
    config: UpstreamConfig,
    reuse: SimpleNamespace,
    on_close: Callable[[], None],
) -> Answer:
    assert endpoint.model.endpoint is not None
    response = await session.post(
        endpoint.model.endpoint.rstrip("/") + request.path,
        data=io.BytesIO(request.body),  # of bytes beyond 1 MiB, aiohttp warns
        headers=request.headers,
        allow_redirects=False,  # a key would go to wherever the endpoint says
        timeout=aiohttp.ClientTimeout(total=None, connect=config.connect_s, sock_connect=config.connect_s),
        trace_request_ctx=reuse,
    )
    try:
        reuse.reused = False  # from its first byte on, a connection is no stale one
        limit = 1 if _is_event_stream(response) else _HEAD_BYTES
        pieces: list[bytes] = []
        n_bytes = 0
        while n_bytes < limit and not response.content.at_eof():
            pieces.append(await response.content.readany())
            n_bytes += len(pieces[-1])
    except BaseException:
        response.close()
        raise
    answer = Answer(endpoint, response, b"".join(pieces), response.content.at_eof(), on_close)
    if not answer.head and answer.status < 300:
        answer.close()
        raise aiohttp.ClientPayloadError("an answer without a body")
    return answer


def _is_event_stream(response: aiohttp.ClientResponse) -> bool:
    return response.content_type == "text/event-stream"


def _is_stale(error: Exception) -> bool:
    return isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError))


def _kind_of(error: Exception) -> FailureKind:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable"
    cut = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError)
    return "cut" if isinstance(error, cut) else "invalid"
