"""A file that several runs may fill before it gets its name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from gpu_select.errors import OutputError
from gpu_select.files import writing

__all__ = ["PartialFile"]


class PartialFile:
    """Bytes that are still arriving, under a name that nobody takes for the finished file's; one process at a time.

    Attributes:
        path: where they are.
        n_bytes: how many there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = 0
        self._stream: BinaryIO | None = None

    def __enter__(self) -> PartialFile:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._stream = os.fdopen(descriptor, "r+b", buffering=0)
            self.n_bytes = self._stream.seek(0, os.SEEK_END)
        if not _is_locked(self._stream, self.path):
            self._stream.close()
            raise OutputError(f"cannot write {self.path}: another download is writing it; wait until that has ended")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, data: bytes) -> None:
        """Put bytes after those that are there."""
        left = memoryview(data)
        with writing(self.path):
            while left:
                n_bytes = self._open.write(left)
                left = left[n_bytes:]
                self.n_bytes += n_bytes

    def clear(self) -> None:
        """Begin again."""
        with writing(self.path):
            self._open.truncate(0)
            self.n_bytes = self._open.seek(0)

    def publish(self, target: Path) -> None:
        """Give the finished file its name; it survives a power failure."""
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.fsync(self._open.fileno())
            if sys.platform == "win32":  # there an open file cannot be renamed
                self._open.close()
            os.replace(self.path, target)

    @property
    def _open(self) -> BinaryIO:
        assert self._stream is not None
        return self._stream


def _is_locked(stream: BinaryIO, path: Path) -> bool:
    """Whether the file is ours alone until it is closed."""
    if sys.platform == "win32":
        return True  # there nobody can rename or replace what somebody else has open
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except OSError:  # between opening and locking, another process has finished it and given it its name
        return False
