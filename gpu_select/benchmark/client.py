"""One call of one model over HTTP: it is sent, and read to its end within bounds, or fails in a way that says why."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import aiohttp

from gpu_select import __version__
from gpu_select.benchmark.answer import Answer, AnswerError, StreamedAnswer, TooLongError, whole_answer
from gpu_select.benchmark.dialect import Dialect
from gpu_select.benchmark.events import EventData
from gpu_select.benchmark.failure import CallFailedError, Refusal, refusal_of
from gpu_select.benchmark.proxy import proxy_for
from gpu_select.benchmark.retry import retry_after_s
from gpu_select.benchmark.targets import Target
from gpu_select.jsonio import dumps

__all__ = ["Client", "open_session"]

_MAX_BODY_BYTES = 64 << 20
_MAX_REFUSAL_BYTES = 64 << 10
_CONNECT_S = 10.0
_KEEPALIVE_S = 4.0
"""Shorter than the 5 s after which uvicorn, which most servers run on, closes a connection."""
_DRAIN_S = 1.0
_DNS_S = 60

_logger = logging.getLogger(__name__)


def open_session() -> aiohttp.ClientSession:
    """Connections for all models: as many as there are calls at once, no cookies."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_S, keepalive_timeout=_KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        trace_configs=[trace],
    )


class Client:
    """Calls one model. Finds out by itself which of the protocol's options its server takes.

    Args:
        session: from `open_session`.
        target: the model.
        stream: ask for streamed answers, which tell the time to the first token.
    """

    def __init__(self, session: aiohttp.ClientSession, target: Target, *, stream: bool) -> None:
        self._session = session
        self._target = target
        self._proxy = proxy_for(target.url)
        self.dialect = Dialect(stream=stream)

    async def ask(self, prompt: str) -> Answer:
        """One answer, whole.

        Raises:
            CallFailedError: there is none; it tells whether another try may help.
        """
        dialect = self.dialect
        while True:
            try:
                answer = await self._once(prompt, dialect)
            except CallFailedError as error:
                other = dialect.after_refusal(error.body) if error.status in (400, 422) else None
                if other is None:
                    raise
                dialect = other
            else:
                # only now: a refusal may have had another reason
                if self.dialect.temperature and not dialect.temperature:
                    _logger.warning("%s takes no temperature: it answers with its own", self._target.name)
                self.dialect = dialect
                return replace(answer, with_temperature=dialect.temperature)

    async def _once(self, prompt: str, dialect: Dialect) -> Answer:
        clock = SimpleNamespace(sent=time.perf_counter())
        try:
            async with asyncio.timeout(self._target.timeout_s):
                response = await self._session.post(
                    self._target.url,
                    data=io.BytesIO(dumps(dialect.body(self._target, prompt))),  # of bytes beyond 1 MiB, aiohttp warns
                    headers={
                        "content-type": "application/json",
                        "accept-encoding": "identity",
                        "user-agent": f"gpu-select/{__version__}",
                        **self._target.headers,
                    },
                    allow_redirects=False,  # a key would go to wherever the server says
                    proxy=self._proxy,
                    trace_request_ctx=clock,
                )
                async with response:
                    return await self._read(response, clock)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise CallFailedError(f"no connection within {_CONNECT_S:g} s") from error
            raise CallFailedError(f"no whole answer within {self._target.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unanswered(error) from error
        except TooLongError as error:
            raise CallFailedError(str(error), may_retry=False) from error
        except AnswerError as error:
            refusal = refusal_of(error.status, str(error)) if error.status else Refusal.NO
            raise CallFailedError(
                self._target.without_secrets(str(error)), refusal=refusal, status=error.status
            ) from error

    async def _read(self, response: aiohttp.ClientResponse, clock: SimpleNamespace) -> Answer:
        if response.status >= 300:
            raise await self._refused(response)
        if response.content_type == "text/event-stream":
            return await _read_stream(response, clock)
        data = b"".join([piece async for piece in _pieces(response, _MAX_BODY_BYTES)])
        seconds = time.perf_counter() - clock.sent
        text, finish_reason, usage = whole_answer(data)
        return Answer(text, finish_reason, usage.input_tokens, usage.output_tokens, seconds, None)

    async def _refused(self, response: aiohttp.ClientResponse) -> CallFailedError:
        said = bytearray()
        try:
            async for piece in _pieces(response, _MAX_REFUSAL_BYTES):
                said += piece
        except (TooLongError, aiohttp.ClientError, OSError):
            response.close()  # what has come is enough
        body = said.decode("utf-8", "replace")
        return CallFailedError.of_status(
            response.status, self._target.without_secrets(body), retry_after_s(response.headers.get("retry-after"))
        )

    def _unanswered(self, error: Exception) -> CallFailedError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return CallFailedError("the server's certificate is not trusted", refusal=Refusal.FOR_ALL)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return CallFailedError("cannot connect: the host's name is not known")
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            return CallFailedError("cannot connect: the server does not speak TLS as https:// asks for")
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno  # its text names the address, which may come from a variable
            return CallFailedError(f"cannot connect: {os.strerror(number) if number else 'no address answers'}")
        cut = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError)
        if isinstance(error, cut):
            return CallFailedError("the connection was cut before the answer was complete")
        return CallFailedError("the server does not speak valid HTTP")


async def _read_stream(response: aiohttp.ClientResponse, clock: SimpleNamespace) -> Answer:
    events = EventData()
    answer = StreamedAnswer()
    first_token_s = None
    last = clock.sent
    async for piece in _pieces(response, _MAX_BODY_BYTES):
        last = time.perf_counter()
        for event in events.feed(piece):
            answer.add(event)
        if first_token_s is None and answer.has_begun:
            first_token_s = last - clock.sent
        if answer.is_done:
            await _drain(response)
            break
    else:
        for event in events.end():
            answer.add(event)
    if not answer.is_complete:
        raise AnswerError("the stream ended before the answer was complete")
    usage = answer.usage
    return Answer(
        answer.text, answer.finish_reason, usage.input_tokens, usage.output_tokens, last - clock.sent, first_token_s
    )


async def _pieces(response: aiohttp.ClientResponse, most_bytes: int) -> AsyncIterator[bytes]:
    n_bytes = 0
    async for piece in response.content.iter_any():
        n_bytes += len(piece)
        if n_bytes > most_bytes:
            response.close()
            raise TooLongError
        yield piece


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read to the end of a body that has said all, so that its connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in _pieces(response, _MAX_REFUSAL_BYTES):
                pass
    except (TimeoutError, TooLongError, aiohttp.ClientError, OSError):
        response.close()


async def _note_sent(session: aiohttp.ClientSession, context: SimpleNamespace, parameters: Any) -> None:
    """From here on the server may work: time to connect is not the model's."""
    context.trace_request_ctx.sent = time.perf_counter()
