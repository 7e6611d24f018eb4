"""The life of a gateway: it listens, reloads on SIGHUP, and finishes what it has begun on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator

from aiohttp import web

from gpu_select.errors import InputError
from gpu_select.gateway.app import build_app
from gpu_select.gateway.errors import ConfigRefusedError
from gpu_select.gateway.event_log import log_event
from gpu_select.gateway.gateway import Gateway
from gpu_select.gateway.service import Service

__all__ = ["serve"]

_SWITCH_INTERVAL_S = 1e-4
"""How long a thread may keep the interpreter while another waits for it. Each torch operation of a forward pass lets go
of it and has to get it back from the event loop, in whose hands it could stay for Python's own 5 ms."""

_KEEPALIVE_S = 75.0


def serve(load: Callable[[], Service], host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is being answered. A second signal ends at once.

    Args:
        load: loads the service; called once before, and in a thread for each reload.
        host, port: where to listen; port 0 takes a free one, which the log tells.

    Raises:
        GpuSelectError: the first service cannot be loaded, or the address is not to be had.
    """
    service = load()
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        asyncio.run(_serve(service, load, host, port))
    finally:
        sys.setswitchinterval(before)


async def _serve(service: Service, load: Callable[[], Service], host: str, port: int) -> None:
    gateway = Gateway(service, load)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(_reload(gateway))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    runner = web.AppRunner(
        build_app(gateway),
        access_log=None,
        handler_cancellation=True,  # a client that leaves takes its request along, as far as the endpoint
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=service.settings.shutdown_s,
    )
    with _signals(loop, {"SIGTERM": stop.set, "SIGINT": stop.set, "SIGHUP": on_hangup}):
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            try:
                await site.start()
            except OSError as error:  # the address is taken, or not of this machine
                raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
            address = runner.addresses[0]
            log_event("listening", host=address[0], port=address[1], models=len(gateway.generation.endpoints))
            if gateway.generation.keys.is_open and host not in ("127.0.0.1", "::1", "localhost"):
                log_event("no api_keys: everybody who reaches this address is served", level=logging.WARNING, host=host)
            await stop.wait()
            log_event("stopping", in_flight_s=gateway.generation.settings.shutdown_s)
        finally:
            gateway.stopping = True
            await _end(runner, stop)
            for task in reloads:
                task.cancel()
            await gateway.close()
    log_event("stopped")


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


async def _reload(gateway: Gateway) -> None:
    with contextlib.suppress(ConfigRefusedError):  # which is in the log
        await gateway.reload()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, handlers: dict[str, Callable[[], None]]) -> Iterator[None]:
    known = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    for number, handler in known.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in known:
            loop.remove_signal_handler(number)
