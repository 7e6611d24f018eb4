"""What code in isolation must not be able to do, tried: run as an answer before any answer of a model is."""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Callable
from contextlib import suppress


def reads(path: str) -> bool:
    """Whether a file's content can be read."""
    return _works(lambda: open(path, "rb").read(1))


def lists(path: str) -> bool:
    """Whether a file is seen in its folder."""
    folder, name = os.path.split(path)
    try:
        return name in os.listdir(folder)
    except OSError:
        return False


def writes(path: str) -> bool:
    """Whether a file can be made or changed."""
    return _works(lambda: open(path, "ab").close())


def changes(path: str) -> bool:
    """Whether a file's rights can be changed, or the file taken away."""
    return _works(lambda: os.chmod(path, 0o600)) or _works(lambda: os.unlink(path))


def connects(family: str, kind: str, address: tuple[str, int] | str) -> bool:
    """Whether something can be sent to an address."""

    def send() -> None:
        with socket.socket(getattr(socket, family), getattr(socket, kind)) as client:
            client.connect(address)
            client.send(b"x")

    return _works(send)


def signals(pid: int) -> bool:
    """Whether a signal can be sent to another process."""
    return pid != os.getpid() and _works(lambda: os.kill(pid, 0))


def starts() -> bool:
    """Whether another process or program can be started."""

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    # a program that can be read: the loader of all others
    programs = glob.glob("/lib*/ld-linux*") or ["/bin/sh"]
    return (
        _works(fork)
        or _works(lambda: os.posix_spawn(programs[0], programs[:1], {}))
        or _works(lambda: os.execv(programs[0], programs[:1]))
    )


def environment() -> list[str]:
    """The names of environment variables."""
    return list(os.environ)


def handles() -> list[int]:
    """Numbers of open files."""
    found = []
    for fd in range(256):
        with suppress(OSError):
            os.fstat(fd)
            found.append(fd)
    return found


def can_be_root() -> bool:
    """Whether this is root, or can become it."""
    return os.geteuid() == 0 or _works(lambda: os.setuid(0))


def can_have(n_bytes: int) -> bool:
    """Whether so much memory can be had."""
    return _works(lambda: bytearray(n_bytes))


def can_fill(n_bytes: int) -> bool:
    """Whether a file can become so large."""

    def fill() -> None:
        with open("large", "wb") as stream:
            for _ in range(n_bytes >> 20):
                stream.write(bytes(1 << 20))

    try:
        return _works(fill)
    finally:
        os.unlink("large")


def is_of_use() -> bool:
    """Whether an answer can do what it may: import Python's library, recurse, and have files in an empty folder."""
    import collections
    import json
    import math
    import random
    import re

    imported = all((collections, json, math, random, re))
    was_empty = os.listdir() == []
    with open("own.txt", "w") as stream:
        stream.write("text")
    with open("own.txt") as stream:
        content = stream.read()
    os.unlink("own.txt")
    return imported and was_empty and content == "text"


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError, AttributeError):
        return False
    return True
