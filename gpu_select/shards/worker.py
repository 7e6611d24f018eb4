"""One process of a run: this file, run as a program, routes the shards that it is told to.

JSON lines come in on standard input: first `{"job": ..., "device": ...}`, then a `{"number": ..., "spans": ...}` a
shard. Its end ends the process, whatever it is doing: the process that wrote it has gone.

JSON lines go out on standard output:

    {"ready": {...}}            the router is loaded: `router`, `versions`, `without_domain`, `result_fields`
    {"rows": 8192, "tokens": 9} of the shard under way, so far
    {"done": {...}}             `record`, and of the report what no record holds
    {"failed": "..."}           this shard cannot be routed here; others may
    {"stop": "...", "file": 3}  nor can others: input (the number of its file) or output, or the router itself
    {"warning": "..."}          for the user

An error of another kind ends the process, with its traceback on standard error.

Nothing but the standard library is imported before somebody listens, so that none outlives the first process by the
time that the rest takes.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any

__all__ = ["main", "work"]


def main() -> None:
    """Do what comes in on standard input."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not get between the replies
    tell = _Teller(replies)
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, orders), daemon=True).start()
    try:
        work(orders, tell)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)  # Python's own end would wait for who reads standard input


def work(orders: queue.SimpleQueue[dict[str, Any]], tell: Callable[..., None]) -> None:
    """Do what `orders` say, and `tell` of it, for ever, or until the router turns out to be unusable.

    Args:
        orders: what comes in, as above.
        tell: takes what goes out, as keyword arguments, from any thread.
    """
    from gpu_select.errors import GpuSelectError

    logger = logging.getLogger("gpu_select")
    logger.addHandler(_Warnings(tell))
    logger.propagate = False
    try:
        _work(orders, tell)
    except (GpuSelectError, MemoryError) as error:  # before there were shards
        tell(stop=_text(error), file=None)


def _work(orders: queue.SimpleQueue[dict[str, Any]], tell: Callable[..., None]) -> None:
    from gpu_select.encoder import resolve_device
    from gpu_select.errors import ConfigError, GpuSelectError, InputError, OutputError
    from gpu_select.shards.job import Job
    from gpu_select.shards.plan import Shard, Span
    from gpu_select.shards.routing import ShardRouter

    first = orders.get()
    with ShardRouter(Job.from_json(first["job"]), resolve_device(first["device"])) as router:
        tell(
            ready={
                "router": router.router.fingerprints(),
                "versions": router.versions(),
                "without_domain": router.router.without_domain,
                "result_fields": router.router.result_fields,
            }
        )
        while True:
            order = orders.get()
            shard = Shard(order["number"], tuple(map(Span.from_json, order["spans"])))
            try:
                record, report = router.route(shard, lambda so_far: tell(rows=so_far.rows, tokens=so_far.tokens))
            except (InputError, ConfigError) as error:
                tell(stop=_text(error), file=router.file)
            except OutputError as error:
                tell(stop=_text(error), file=None)
            except (GpuSelectError, MemoryError) as error:
                tell(failed=_text(error))
            except RuntimeError as error:
                if type(error).__name__ != "OutOfMemoryError":
                    raise
                tell(failed="device out of memory outside the encoder")
            else:
                counts = {name: getattr(report, name) for name in ("tokens", "truncated", "cached", "stage_seconds")}
                tell(done={"record": record.to_json(), **counts})


def _listen(stream: IO[bytes], orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in stream:
        orders.put(json.loads(line))
    os._exit(0)  # at once: what is half-written has a temporary name


def _text(error: BaseException) -> str:
    return "out of memory" if isinstance(error, MemoryError) else " ".join(str(error).split())


class _Teller:
    """Writes replies, from any thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, **reply: Any) -> None:
        line = json.dumps(reply).encode() + b"\n"
        with self._lock:
            while line:  # a raw stream need not take all of it
                line = line[self._stream.write(line) :]


class _Warnings(logging.Handler):
    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(warning=record.getMessage())


if __name__ == "__main__":
    main()
