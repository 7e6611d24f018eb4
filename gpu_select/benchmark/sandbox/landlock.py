"""Landlock: which files a process may touch from now on, whoever it is. Needs no privileges."""

from __future__ import annotations

import ctypes
import os

from gpu_select.benchmark.sandbox.libc import syscall

__all__ = ["MIN_ABI", "enter_landlock"]

MIN_ABI = 3
"""Linux 6.2: the first one that restricts truncation."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all architectures
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_FILES_BY_ABI = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 3
_SIGNALS_AND_SOCKETS = 3


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32))


def enter_landlock(readable: tuple[str, ...], *, folders: bool) -> None:
    """Allow reading `readable`, and files in the working directory; forbid other files, TCP and signals.

    Args:
        readable: absolute paths of folders and files.
        folders: whether there may be folders in the working directory.
    Raises:
        OSError: this kernel has no Landlock, or an old one; names the call. `PR_SET_NO_NEW_PRIVS` has to be set.
    """
    abi = syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)
    if abi < MIN_ABI:
        raise OSError(f"landlock: expected version {MIN_ABI} or newer (Linux 6.2), got {abi}")
    files = _FILES_BY_ABI[max(version for version in _FILES_BY_ABI if version <= abi)]
    ruleset = _Ruleset(files, _TCP if abi >= 4 else 0, _SIGNALS_AND_SOCKETS if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    fd = syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for path in readable:
            _allow(fd, path, _READ_FILE | _READ_DIR)
        own = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
        _allow(fd, ".", own | (_MAKE_DIR | _REMOVE_DIR if folders else 0))
        _allow(fd, os.devnull, _READ_FILE | _WRITE_FILE)
        syscall("landlock_restrict_self", _RESTRICT_SELF, fd, 0)
    finally:
        os.close(fd)


def _allow(ruleset_fd: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = _PathBeneath(rights, fd)
        syscall("landlock_add_rule", _ADD_RULE, ruleset_fd, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
