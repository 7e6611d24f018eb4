"""Runs an answer's code where it has nothing to do with the rest of the system."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import gpu_select
from gpu_select.benchmark.sandbox.codec import CodecError, encode
from gpu_select.benchmark.sandbox.confinement import Confinement
from gpu_select.benchmark.sandbox.launcher import Launch

__all__ = ["Isolation", "Verdicts", "unused_uids"]

# -I and -S: neither environment nor site-packages have a say in what is imported
_PROGRAM = f"""import sys
sys.path.insert(0, {str(Path(gpu_select.__file__).parents[1])!r})
from gpu_select.benchmark.sandbox.launcher import main
main()
"""
_UIDS = range(65_000, 65_500)  # for nobody to use, says Debian's policy
_GRACE_S = 2.0
_MAX_VERDICT_BYTES = 4 << 20


@dataclass
class Verdicts:
    """How the assertions of one run went."""

    n: int | None = None
    """How many there are; None where the run did not come so far."""
    passed: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    begun: int | None = None
    """The one that was being evaluated when the run ended."""
    done: bool = False
    fault: str = ""
    """Why the run could not take place."""

    def take(self, line: str) -> None:
        """Add a line of the examiner's."""
        kind, _, rest = line.partition(" ")
        if kind == "!":
            self.fault = self.fault or rest
        elif kind == "d":
            self.done = True
        elif kind in ("n", "b", "p", "f") and rest.isdecimal():
            i = int(rest)
            if kind == "n":
                self.n = i
            elif kind == "b":
                self.begun = i
            else:
                (self.passed if kind == "p" else self.failed).add(i)
                self.begun = None


@dataclass(frozen=True)
class Isolation:
    """A way to run code that has nothing to do with the rest of the system."""

    confinement: Confinement
    python: str = sys.executable
    uids: Iterator[int] = field(default_factory=lambda: cycle(unused_uids()))
    """Who the next run is: another one than those at its side, whose processes count as theirs."""

    def run(
        self, blocks: list[str], prompt: str, tests: Any, *, skip: set[int], wall_s: float, assertion_s: float
    ) -> Verdicts:
        """Run an answer's code against tests; nothing of it is left when this returns.

        Args:
            blocks: the answer's code.
            prompt: what it may continue.
            tests: a text, or a list of texts; see `assertions`.
            skip: assertions to leave out.
            wall_s: how long this may take, but for the time to start and to end.
            assertion_s: how long one assertion may take.
        """
        job = {"blocks": blocks, "prompt": prompt, "tests": tests, "skip": sorted(skip), "assertion_s": assertion_s}
        verdicts = Verdicts()
        try:
            data = encode(job)
        except CodecError:  # larger than any tests are
            return verdicts
        try:
            with tempfile.TemporaryDirectory(prefix="gpu-select-", ignore_cleanup_errors=True) as folder:
                self._run(data, folder, wall_s, verdicts)
        except OSError as error:
            verdicts.fault = verdicts.fault or f"{error}"
        return verdicts

    def _run(self, job: bytes, folder: str, wall_s: float, verdicts: Verdicts) -> None:
        confinement = self.confinement._replace(uid=next(self.uids))
        job_fd = os.memfd_create("job")
        process = None
        try:
            _make_folders(folder, confinement)
            with open(os.dup(job_fd), "wb") as stream:
                stream.write(job)
            os.lseek(job_fd, 0, os.SEEK_SET)
            launch = Launch(job_fd, folder, wall_s, confinement)
            process = subprocess.Popen(
                [self.python, "-I", "-S", "-c", _PROGRAM, launch.to_text()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={},
                cwd="/",
                pass_fds=(job_fd,),
                start_new_session=True,
            )
            _listen(process, verdicts, time.monotonic() + wall_s + _GRACE_S)
        finally:
            os.close(job_fd)
            if process is not None:
                _end(process)
                if process.returncode and not verdicts.fault:
                    verdicts.fault = f"the launcher ended with status {process.returncode}"


def unused_uids() -> tuple[int, ...]:
    """Numbers that belong to no user."""
    import pwd

    taken = {user.pw_uid for user in pwd.getpwall()}
    return tuple(uid for uid in _UIDS if uid not in taken)


def _make_folders(folder: str, confinement: Confinement) -> None:
    for name in ("0", "1"):
        path = os.path.join(folder, name)
        os.mkdir(path, 0o700)
        if os.geteuid() == 0 and not confinement.namespaces:
            os.chown(path, confinement.uid, confinement.uid)


def _listen(process: subprocess.Popen[bytes], verdicts: Verdicts, deadline: float) -> None:
    """Take the verdicts until there are no more of them, or the time is over."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    begun = b""
    n_bytes = 0
    while (left := deadline - time.monotonic()) > 0 and n_bytes < _MAX_VERDICT_BYTES:
        if not poll.poll(1000 * left):
            return
        data = os.read(fd, 1 << 16)
        if not data:
            return
        n_bytes += len(data)
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            verdicts.take(line.decode("ascii", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the launcher end all it started, and itself."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # its children end with it
        process.wait()
