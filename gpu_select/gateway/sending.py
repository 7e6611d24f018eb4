"""Answers that are all here, to clients that may take them slowly, but not for ever."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from aiohttp import web

__all__ = ["hold_little", "send_whole"]


def hold_little(transport: asyncio.Transport) -> None:
    """Let the end of an answer wait until the system has all of it.

    By default 64 KiB may stay behind; a connection whose client does not take them could never be closed.
    """
    transport.set_write_buffer_limits(high=0)


async def send_whole(
    request: web.Request, response: web.StreamResponse, idle_s: float, on_too_slow: Callable[[], None]
) -> None:
    """Send an answer that has not begun, to its end. A client may take as long as it likes, while it takes some.

    Args:
        request: the client's.
        response: the answer.
        idle_s: a client that takes nothing for so long is cut off, before twice as long has passed.
        on_too_slow: called when that happens.

    Raises:
        ConnectionError, CancelledError: the client is gone, or was cut off.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def check_after(n_bytes_before: float) -> None:
        nonlocal timer
        timer = loop.call_later(idle_s, check, n_bytes_before)

    def check(n_bytes_before: float) -> None:
        n_bytes = transport.get_write_buffer_size()
        if n_bytes and n_bytes >= n_bytes_before:
            on_too_slow()
            transport.abort()
        else:
            check_after(n_bytes)

    check_after(math.inf)
    try:
        await response.prepare(request)
        await response.write_eof()
    finally:
        if timer is not None:
            timer.cancel()
