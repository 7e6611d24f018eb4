"""One run at a time in a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gpu_select.errors import OutputError
from gpu_select.files import writing

__all__ = ["LOCK", "take_lock"]

LOCK = ".lock"
"""The file that is locked. It holds the number of the process that took it."""

_WAIT_S = 2.0
"""So long a second run waits for the processes of one that was killed a moment ago."""
_RETRY_S = 0.05


def take_lock(folder: Path) -> int:
    """Take the folder's lock, which the system lets go when all processes that hold it have ended.

    Raises:
        OutputError: another run holds it, or locks do not work here.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OutputError(f"cannot write shards into {folder}: this system has no lock for files (fcntl)") from error
    path = folder / LOCK
    until = time.monotonic() + _WAIT_S
    while True:
        with writing(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the run before may have removed it between the two calls
            if os.fstat(lock).st_ino == os.stat(path).st_ino:
                os.ftruncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
                return lock
        except BlockingIOError as error:
            if time.monotonic() > until:
                holder = os.pread(lock, 32, 0).decode(errors="replace") or "?"
                os.close(lock)
                raise OutputError(
                    f"cannot write {folder}: another process ({holder}) is writing shards into it; "
                    f"wait for it, or give another --output"
                ) from error
            time.sleep(_RETRY_S)
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(lock)
            raise OutputError(f"cannot lock {path}: {error.strerror}") from error
        os.close(lock)
