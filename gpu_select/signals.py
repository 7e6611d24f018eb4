"""What signals do while an event loop runs, and when they must wait."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

__all__ = ["signal_handlers", "signals_held"]


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[str, Callable[[], object]]) -> Iterator[None]:
    """Call a function of the running loop for each of some signals, such as SIGINT, until the block ends.

    Signals that the system does not know are left out. Only the main thread may do this.
    """
    loop = asyncio.get_running_loop()
    known = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    for number, handler in known.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in known:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let what Python does at SIGINT, SIGTERM and SIGHUP wait until the block ends.

    A mask would not do: any other thread that takes the signal, such as one of a numeric library, has Python interrupt
    the main one. In other threads the block changes nothing, as nothing interrupts them.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    own = [number for number in numbers if callable(handlers[number])]
    if threading.current_thread() is not threading.main_thread():
        own = []
    arrived: list[int] = []
    try:
        for number in own:
            signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    finally:
        for number in own:
            signal.signal(number, handlers[number])
        for number in dict.fromkeys(arrived):
            signal.raise_signal(number)
