"""Shuts a process in, for good: what it starts with is all that it will ever have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from typing import NamedTuple

from gpu_select.benchmark.sandbox.landlock import enter_landlock
from gpu_select.benchmark.sandbox.libc import check, libc
from gpu_select.benchmark.sandbox.limits import FILE_BYTES, MEMORY_BYTES, N_FILES, N_THREADS, WALL_S
from gpu_select.benchmark.sandbox.namespaces import enter_namespaces
from gpu_select.benchmark.sandbox.seccomp import enter_seccomp

__all__ = ["Confinement", "confine"]

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Confinement(NamedTuple):
    """What shuts a process in. Filtered system calls and `limits` always do."""

    namespaces: bool
    landlock: bool
    uid: int
    """What the process runs as, where this user may choose."""
    readable: tuple[str, ...]
    """Absolute paths of Python's library and of what its extension modules are linked with."""


def confine(confinement: Confinement, folder: str) -> None:
    """Shut this process in. With namespaces, the process that returns is a child of the one that called.

    Args:
        confinement: how.
        folder: an empty folder of the caller's: with namespaces a place to mount on, else the working directory.
    Raises:
        OSError: something of it cannot be had; names the call.
    """
    die_with_parent()
    _be_first_to_go()
    was_root = os.geteuid() == 0
    if confinement.namespaces:
        enter_namespaces(folder, (*confinement.readable, os.devnull), confinement.uid)
        die_with_parent()  # to get rights in a user namespace clears it
        _go_on_in_child()
    else:
        os.chdir(folder)
    _limit(own_user=was_root)
    _give_up_privileges(confinement.uid if was_root else None)
    die_with_parent()  # a change of user clears it
    check("prctl", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if confinement.landlock:
        enter_landlock(confinement.readable, folders=confinement.namespaces)
    enter_seccomp()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    check("prctl", libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _be_first_to_go() -> None:
    """Have the kernel take this process, and no other, where the machine runs out of memory."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as stream:
        stream.write("1000")


def _go_on_in_child() -> None:
    """Fork into the new PID namespace; this process stays as a shell that ends as its child does."""
    child = os.fork()
    if child:
        os.closerange(0, 1 << 16)  # or the end of the child would not be the end of its pipes
        os.waitpid(child, 0)
        os._exit(0)


def _limit(*, own_user: bool) -> None:
    seconds = int(WALL_S) + 1
    hard = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: N_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if own_user:  # elsewhere it would count the user's other processes
        hard[resource.RLIMIT_NPROC] = N_THREADS
    for kind, value in hard.items():
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def _give_up_privileges(uid: int | None) -> None:
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    check("capset", libc.capset(header, none))
    check("prctl", libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
