"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["check", "libc", "syscall"]

libc = ctypes.CDLL(None, use_errno=True)


def syscall(name: str, number: int, *args: Any) -> int:
    """A system call by its number.

    Raises:
        OSError: it failed; names the call.
    """
    return check(name, libc.syscall(ctypes.c_long(number), *args))


def check(name: str, result: int) -> int:
    """The result of a call, unless it says that errno has the reason.

    Raises:
        OSError: it does; names the call.
    """
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
