"""Finds out how this system can shut code in: each way is tried, by code that tries to get out."""

from __future__ import annotations

import os
import platform
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_select.benchmark.sandbox import probe
from gpu_select.benchmark.sandbox.confinement import Confinement
from gpu_select.benchmark.sandbox.isolation import Isolation, unused_uids
from gpu_select.benchmark.sandbox.limits import FILE_BYTES, MEMORY_BYTES
from gpu_select.errors import IsolationError

__all__ = ["find_isolation", "readable_paths", "what_gets_out"]

_WAYS = (
    ("namespaces and Landlock", True, True),
    ("namespaces", True, False),
    ("Landlock", False, True),
)
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_OTHER_READABLE = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
_PROBE_S = 30.0


def find_isolation() -> Isolation:
    """The strongest way that works on this system.

    Raises:
        IsolationError: none does; says why for each.
    """
    faults = []
    for name, namespaces, landlock in _WAYS:
        isolation = Isolation(Confinement(namespaces, landlock, unused_uids()[0], readable_paths()))
        fault = what_gets_out(isolation)
        if not fault:
            return isolation
        faults.append(f"{name}: {fault}")
    raise IsolationError(
        "code_eval: expected a system that can isolate code, got "
        f"Linux {platform.release()} on {platform.machine()}, where no way does ({'; '.join(faults)}); leave code "
        "execution out, or allow user namespaces, or run on Linux 6.2 or newer with Landlock"
    )


def what_gets_out(isolation: Isolation) -> str:
    """What code can do in an isolation and must not, or why nothing can be run; empty where all is well."""
    try:
        source = Path(probe.__file__).read_text(encoding="utf-8")
        with _targets() as attempts:
            tests = [test for _, test in attempts]
            verdicts = isolation.run([source], "", tests, skip=set(), wall_s=_PROBE_S, assertion_s=_PROBE_S)
    except OSError as error:
        return f"{error}"
    if verdicts.fault:
        return verdicts.fault
    passed = verdicts.passed - verdicts.failed
    failed = [meaning for i, (meaning, _) in enumerate(attempts) if i not in passed]
    if len(failed) == len(attempts):
        return "not even Python's library can be used"
    return f"code can {', '.join(failed)}" if failed else ""


@contextmanager
def _targets() -> Iterator[list[tuple[str, str]]]:
    """Things that are there to be had, and for each what having it means and a test that passes where it fails."""
    with (
        tempfile.TemporaryDirectory(prefix="gpu-select-probe-") as folder,
        _listener(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as tcp,
        _listener(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)) as udp,
        _listener(socket.AF_UNIX, socket.SOCK_STREAM, f"\0gpu-select-probe-{os.getpid()}") as unix,
    ):
        # whoever it runs as may have these: only isolation keeps it from them
        os.chmod(folder, 0o777)
        secret = os.path.join(folder, "secret")
        Path(secret).write_text("secret", encoding="utf-8")
        os.chmod(secret, 0o666)
        paths = (secret, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ")
        yield [
            *((f"read {path}", f"assert not reads({path!r})") for path in paths),
            *(
                (f"see {path}", f"assert not lists({path!r})")
                for path in (secret, "/etc/passwd", f"/proc/{os.getpid()}")
            ),
            *((f"write {path}", f"assert not writes({path!r})") for path in (secret, f"{folder}/new")),
            ("change a file", f"assert not changes({secret!r})"),
            ("connect by TCP", f"assert not connects('AF_INET', 'SOCK_STREAM', {tcp.getsockname()!r})"),
            ("send by UDP", f"assert not connects('AF_INET', 'SOCK_DGRAM', {udp.getsockname()!r})"),
            ("connect by a Unix socket", f"assert not connects('AF_UNIX', 'SOCK_STREAM', {_name(unix)!r})"),
            ("send signals", f"assert not signals({os.getpid()}) and not signals({os.getppid()})"),
            ("start a process", "assert not starts()"),
            ("see the environment", "assert environment() == []"),
            ("use handles of others", "assert handles() == [0, 1, 2, 3, 4]"),
            ("be root", "assert not can_be_root()"),
            ("have memory without limit", f"assert not can_have({2 * MEMORY_BYTES})"),
            ("have files without limit", f"assert not can_fill({2 * FILE_BYTES})"),
            ("not import Python's library or use files of its own", "assert is_of_use()"),
        ]


def _name(unix: socket.socket) -> str:
    name = unix.getsockname()
    return name.decode() if isinstance(name, bytes) else str(name)


@contextmanager
def _listener(family: int, kind: int, address: object) -> Iterator[socket.socket]:
    with socket.socket(family, kind) as server:
        server.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            server.listen()
        yield server


def readable_paths() -> tuple[str, ...]:
    """What code in isolation can read: Python's library, and what its extension modules are linked with."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [*_LIBRARIES, *_OTHER_READABLE, sysconfig.get_config_var("LIBDIR"), os.path.dirname(os.__file__)]
    candidates.append(os.path.join(sys.base_exec_prefix, sys.platlibdir, version))  # the extension modules
    paths: list[str] = []
    for path in candidates:
        if path and os.path.exists(path) and not any(f"{path}/".startswith(f"{other}/") for other in paths):
            paths.append(path)
    return tuple(paths)
