"""Stages of a stream in threads of their own, joined by short queues; to the outside, as if they took turns."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

__all__ = ["Behind", "Overlap"]

_T = TypeVar("_T")

_SWITCH_INTERVAL_S = 1e-4
"""How long a thread may keep the interpreter while others wait for it. Each torch operation lets go of it, and has to
get it back: beside one thread that makes rows, with a core for each, 400 small operations took 2 s at Python's own 5 ms
and 7 ms at this; 3 ms alone (`turns` of bench/pipeline.py)."""


class Overlap:
    """Runs the stages of a stream at the same time. What comes out, and what is raised, is as if they took turns:

        with Overlap() as overlap:
            write = overlap.behind(write_window, in_flight=2)
            for window in overlap.ahead(map(prepare, overlap.ahead(windows))):
                write.wait_for_room()
                write.put(decide(window))

    Items keep their order and queues their bounds. An error is raised in the thread that entered, as it is. One of a
    stage ahead comes in its place, after the items before it. What was put before an error of the block still goes
    through the stages behind. An error of those stops everything, and comes before one of the block, as its item did.
    An interrupt (an exception that is no `Exception`) stops everything at once.

    When the block is left, however that is, all threads have ended, after the item that they are at. While it runs,
    Python's threads take turns more often, in the whole process.

    Args:
        on_stop: called when the block is left, for stages that may otherwise wait for ever.
    """

    def __init__(self, on_stop: Callable[[], None] | None = None) -> None:
        self._shared = _Shared()
        self._threads: list[threading.Thread] = []
        self._behind: list[Behind[Any]] = []
        self._leaving = contextlib.ExitStack()
        self._leaving.callback(self._join)
        if on_stop is not None:
            self._leaving.callback(on_stop)
        self._leaving.callback(self._shared.stop)

    def ahead(self, items: Iterable[_T], *, room: int = 1, name: str = "ahead") -> Iterator[_T]:
        """The same items, taken from `items` in a thread: at most `room` of them, and one in hand, in advance."""
        queue = _Queue[_T](self._shared, room)

        def take() -> None:
            error: BaseException | None = None
            try:
                # closed where it runs, not where it happens to be collected
                with contextlib.closing(items) if isinstance(items, Generator) else contextlib.nullcontext():
                    for item in items:
                        queue.put(item)
                        del item  # not held while the next one is made
            except BaseException as raised:
                error = raised
            queue.close(error)

        self._start(take, name)
        return queue

    def behind(self, use: Callable[[_T], object], *, in_flight: int = 1, name: str = "behind") -> Behind[_T]:
        """A stage that calls `use` with one item after the other in a thread; at most `in_flight` are unfinished."""
        stage = Behind(self._shared, use, in_flight)
        self._behind.append(stage)
        self._start(stage.run, name)
        return stage

    def __enter__(self) -> Self:
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(min(interval_s, _SWITCH_INTERVAL_S))
        self._leaving.callback(sys.setswitchinterval, interval_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        regular = error is None or isinstance(error, Exception)
        with self._leaving:
            for stage in self._behind if regular else ():
                stage.finish()
        earlier, self._shared.error = self._shared.error, None
        if regular and earlier is not None and earlier is not error:
            raise earlier

    def _start(self, run: Callable[[], None], name: str) -> None:
        # a daemon: after a second interrupt, one that is stuck in a system call does not keep the process
        thread = threading.Thread(target=run, name=f"gpu_select {name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()


class _Stopped(Exception):  # noqa: N818 - no error: ends a thread, or a wait, once everything has been stopped
    pass


class _Shared:
    """What all threads of an `Overlap` share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._stopped = False
        self._owner = threading.get_ident()

    def stop(self, error: BaseException | None = None) -> None:
        """End all waiting, now and later."""
        with self.changed:
            self.error = self.error or error
            self._stopped = True
            self.changed.notify_all()

    def wait(self, ready: Callable[[], bool]) -> bool:
        """Wait with `changed` held; False once everything has been stopped."""
        self.changed.wait_for(lambda: self._stopped or ready())
        return not self._stopped

    def wait_or_raise(self, ready: Callable[[], bool]) -> None:
        """`wait`, or raise what stopped everything: the error itself in the thread that is to see it."""
        if not self.wait(ready):
            if self.error is not None and threading.get_ident() == self._owner:
                raise self.error
            raise _Stopped


class _Queue(Generic[_T]):
    """From one thread to one other: `room` items, and after the last one the end or an error."""

    def __init__(self, shared: _Shared, room: int) -> None:
        self._shared = shared
        self._room = room
        self._items: deque[_T] = deque()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: _T) -> None:
        with self._shared.changed:
            self._shared.wait_or_raise(lambda: len(self._items) < self._room)
            self._items.append(item)
            self._shared.changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        with self._shared.changed:
            self._closed = True
            self._error = error
            self._shared.changed.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        with self._shared.changed:
            self._shared.wait_or_raise(lambda: bool(self._items) or self._closed)
            if self._items:
                self._shared.changed.notify_all()
                return self._items.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration


class Behind(Generic[_T]):
    """A stage at the end, made by `Overlap.behind`."""

    def __init__(self, shared: _Shared, use: Callable[[_T], object], in_flight: int) -> None:
        self._shared = shared
        self._use = use
        self._in_flight = in_flight
        self._queue = _Queue[_T](shared, in_flight)
        self._unfinished = 0

    def wait_for_room(self) -> None:
        """Wait until one item more may be on its way; before making one, say, that takes up the device's memory."""
        with self._shared.changed:
            self._shared.wait_or_raise(lambda: self._unfinished < self._in_flight)

    def put(self, item: _T) -> None:
        """Hand on one item; waits for room."""
        with self._shared.changed:
            self.wait_for_room()
            self._unfinished += 1
            self._queue.put(item)

    def finish(self) -> None:
        """Wait until all items are used, or everything has been stopped."""
        self._queue.close()
        with self._shared.changed:
            self._shared.wait(lambda: not self._unfinished)

    def run(self) -> None:
        """What the thread does."""
        try:
            for item in self._queue:
                self._use(item)
                del item  # not held while waiting for the next one
                with self._shared.changed:
                    self._unfinished -= 1
                    self._shared.changed.notify_all()
        except _Stopped:
            pass
        except BaseException as error:
            self._shared.stop(error)
