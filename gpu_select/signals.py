"""What a signal does while an event loop runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping

__all__ = ["signal_handlers"]


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
