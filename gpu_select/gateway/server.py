"""The life of a gateway: it listens, reloads on SIGHUP, and finishes what it has begun on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from gpu_select.errors import InputError
from gpu_select.gateway.app import build_app
from gpu_select.gateway.event_log import log_event
from gpu_select.gateway.gateway import Gateway
from gpu_select.gateway.keys import is_local
from gpu_select.gateway.service import Service
from gpu_select.signals import signal_handlers

__all__ = ["serve"]

_SWITCH_INTERVAL_S = 1e-4
"""How long a thread may keep the interpreter while another waits for it. Each torch operation of a forward pass lets go
of it and has to get it back from the event loop, in whose hands it could stay for Python's own 5 ms."""

_KEEPALIVE_S = 75.0
_BACKLOG = 1024


def serve(load: Callable[[], Service], host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is being answered. A second signal ends at once.

    Args:
        load: loads the service; called once before, and in a thread for each reload.
        host, port: where to listen; port 0 takes a free one, which the log tells.

    Raises:
        GpuSelectError: the first service cannot be loaded, or the address is not to be had.
    """
    with contextlib.ExitStack() as stack:
        # first, as loading takes long, and an address may be taken
        sockets = [stack.enter_context(one) for one in _bind(host, port)]
        service = load()
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        asyncio.run(_serve(service, load, sockets))


async def _serve(service: Service, load: Callable[[], Service], sockets: Sequence[socket.socket]) -> None:
    gateway = Gateway(service, load)
    stop = asyncio.Event()
    runner = web.AppRunner(
        build_app(gateway),
        access_log=None,
        handler_cancellation=True,  # a client that leaves takes its request along, as far as the endpoint
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=gateway.of_the_start["shutdown_s"],
    )
    with signal_handlers({"SIGTERM": stop.set, "SIGINT": stop.set, "SIGHUP": gateway.start_reload}):
        await runner.setup()
        try:
            for listening in sockets:
                await web.SockSite(runner, listening, backlog=_BACKLOG).start()
            host, port = sockets[0].getsockname()[:2]
            log_event("listening", host=host, port=port, models=len(gateway.generation.endpoints))
            if gateway.generation.keys.is_open and not all(is_local(one.getsockname()[0]) for one in sockets):
                log_event("no api_keys: everybody who reaches this address is served", level=logging.WARNING, host=host)
            await stop.wait()
            log_event("stopping", in_flight_s=gateway.of_the_start["shutdown_s"])
        finally:
            gateway.stopping = True
            await _end(runner, stop)
            await gateway.close()
    log_event("stopped")


def _bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host, all with the same port; they do not listen yet.

    Raises:
        InputError: one of them is taken, or none is of this machine.
    """
    sockets: list[socket.socket] = []
    error: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            try:
                sockets.append(_bound(family, kind, protocol, (address[0], port, *address[2:])))
            except OSError as one:
                if one.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                error = one  # such as the IPv6 address of localhost where there is no IPv6
            else:
                port = sockets[0].getsockname()[1]
        if not sockets and error is not None:
            raise error
    except OSError as refused:
        for taken in sockets:
            taken.close()
        raise InputError(
            f"cannot listen on {host}:{port}: {refused.strerror or refused} (choose others by --host and --port)"
        ) from refused
    return sockets


def _bound(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    one = socket.socket(family, kind, protocol)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


async def _end(runner: web.AppRunner, stop: asyncio.Event) -> None:
    """Finish requests, unless a second signal comes."""
    stop.clear()
    again = asyncio.ensure_future(stop.wait())
    finishing = asyncio.ensure_future(runner.cleanup())
    await asyncio.wait({again, finishing}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not finishing.done():
        finishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await finishing
