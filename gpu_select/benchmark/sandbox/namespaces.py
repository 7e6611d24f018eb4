"""A view of the system with nothing in it: no files but Python's, no network, no other process."""

from __future__ import annotations

import ctypes
import os

from gpu_select.benchmark.sandbox.libc import check, libc, syscall
from gpu_select.benchmark.sandbox.limits import DISK_BYTES, N_FILES

__all__ = ["enter_namespaces"]

_WORK = "/gpu-select-answer"

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # on all architectures
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def enter_namespaces(root: str, readable: tuple[str, ...], uid: int) -> None:
    """Move this process into new user (unless it is root's), mount, PID, network, IPC and UTS namespaces.

    Its root becomes a read-only file system in memory that holds `readable` and the working directory, which is
    empty and bounded. PID namespaces are for children: the caller has to fork.

    Args:
        root: an empty folder, to mount the new root on; the system's own view does not change.
        readable: absolute paths of folders and files.
        uid: who owns the working directory, and who this user is to be called in a user namespace.
    Raises:
        OSError: the system does not allow it; names the call.
    """
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    own_user = _NEWUSER if outer_uid else 0
    check("unshare", libc.unshare(own_user | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS))
    if own_user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {outer_uid} 1"),
            ("gid_map", f"{uid} {outer_gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as stream:
                stream.write(text)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=0755")
    for path in readable:
        _bind(path, root + path)
    os.mkdir(root + _WORK)
    attributes = _MountAttr(_ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    syscall(
        "mount_setattr", _SYS_MOUNT_SETATTR, _AT_FDCWD, root.encode(), _AT_RECURSIVE,
        ctypes.byref(attributes), ctypes.sizeof(attributes),
    )  # fmt: skip
    options = f"size={DISK_BYTES},nr_inodes={N_FILES},mode=0700,uid={uid},gid={uid}"
    _mount("tmpfs", root + _WORK, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    os.chdir(root)
    syscall("pivot_root", _SYS_PIVOT_ROOT[os.uname().machine], b".", b".")
    check("umount2", libc.umount2(b".", _MNT_DETACH))
    os.chdir(_WORK)


def _bind(source: str, target: str) -> None:
    if os.path.islink(source):  # /lib is one to /usr/lib where both are one
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    raw = [None if text is None else text.encode() for text in (source, target, kind, options)]
    check(f"mount {target}", libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]))
