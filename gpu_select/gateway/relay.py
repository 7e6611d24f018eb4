"""An endpoint's answer to the client, each piece as it comes: the same bytes, nothing kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

from aiohttp import web

from gpu_select.gateway.errors import EndpointError
from gpu_select.gateway.upstream import Answer, EndpointFailedError
from gpu_select.jsonio import dumps

__all__ = ["RelayEnd", "relay"]

RelayEnd = Literal["complete", "cut", "client too slow"]


async def relay(
    request: web.Request, answer: Answer, headers: Mapping[str, str], idle_s: float, on_cut: Callable[[], None]
) -> tuple[web.StreamResponse, RelayEnd]:
    """Send an answer on. It is closed in any case; when the client leaves, so is the connection to the endpoint.

    When the endpoint breaks off, the client's connection is closed without the end of the body, so that no part is
    taken for the whole; a stream of events gets one that says so before.

    Args:
        request: the client's.
        answer: with its head.
        headers: besides those of the answer.
        idle_s: the longest wait, for the endpoint's next piece and for the client to take one.
        on_cut: called when the endpoint has broken off, before the client is told.
    """
    try:
        if answer.complete:
            whole = web.Response(status=answer.status, body=answer.head)
            _set_headers(whole, answer, headers)
            return whole, "complete"
        response = web.StreamResponse(status=answer.status)
        _set_headers(response, answer, headers)
        response.content_length = answer.content_length
        await response.prepare(request)
        end = await _pass_on(response, answer, idle_s, on_cut)
        if end != "complete" and request.transport is not None:
            # what has been written still goes out; a client that takes nothing would keep it forever
            (request.transport.abort if end == "client too slow" else request.transport.close)()
        return response, end
    finally:
        answer.close()


async def _pass_on(response: web.StreamResponse, answer: Answer, idle_s: float, on_cut: Callable[[], None]) -> RelayEnd:
    tail = answer.head[-4:]
    try:
        try:
            await _write(response, answer.head, idle_s)
            async for piece in answer.rest(idle_s):
                tail = (tail + piece)[-4:]
                await _write(response, piece, idle_s)
        except EndpointFailedError:
            on_cut()
            if answer.is_event_stream:
                error = EndpointError(f"The endpoint of {answer.endpoint.name} broke off in the middle of its answer")
                # after half an event, an empty line ends it
                start = b"" if tail.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
                await _write(response, b"%sdata: %s\n\n" % (start, dumps(error.as_json())), idle_s)
            return "cut"
        async with asyncio.timeout(idle_s):
            await response.write_eof()
    except TimeoutError:
        return "client too slow"
    return "complete"


async def _write(response: web.StreamResponse, piece: bytes, idle_s: float) -> None:
    async with asyncio.timeout(idle_s):
        await response.write(piece)


def _set_headers(response: web.StreamResponse, answer: Answer, headers: Mapping[str, str]) -> None:
    for name, value in answer.headers:
        response.headers.add(name, value)
    response.headers.update(headers)
