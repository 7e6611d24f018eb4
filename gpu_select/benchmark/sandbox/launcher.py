"""Starts candidate and examiner, each shut in, and ends both: what runs between the caller and them.

`main` is run by a Python with -I and -S, and one argument, `Launch.to_text()`. It ends when the examiner does, when the
time is over, or when standard input ends; then nothing of what it started is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from gpu_select.benchmark.sandbox.candidate import serve
from gpu_select.benchmark.sandbox.confinement import Confinement, confine
from gpu_select.benchmark.sandbox.libc import check, libc
from gpu_select.benchmark.sandbox.limits import DISK_BYTES

__all__ = ["Launch", "main"]

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


class Launch(NamedTuple):
    """What the launcher is told."""

    job_fd: int
    folder: str
    """Has two empty folders, `0` and `1`."""
    wall_s: float
    confinement: Confinement

    def to_text(self) -> str:
        """As an argument of a program."""
        *flags, readable = self.confinement
        return "\n".join(map(str, (self.job_fd, self.folder, self.wall_s, *map(int, flags), *readable)))

    @classmethod
    def from_text(cls, text: str) -> Launch:
        """The other way round."""
        job_fd, folder, wall_s, namespaces, landlock, uid, *readable = text.split("\n")
        confinement = Confinement(namespaces == "1", landlock == "1", int(uid), tuple(readable))
        return cls(int(job_fd), folder, float(wall_s), confinement)


def main() -> None:
    """Run a launch."""
    launch = Launch.from_text(sys.argv.pop())
    os.environ.clear()
    os.umask(0o022)
    check("prctl", libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    questions_r, questions_w = os.pipe()
    replies_r, replies_w = os.pipe()
    candidate = _start(launch, 0, [questions_r, replies_w])
    examiner = _start(launch, 1, [launch.job_fd, 1, replies_r, questions_w])
    os.close(launch.job_fd)
    for fd in (questions_r, questions_w, replies_r, replies_w):
        os.close(fd)
    _supervise(launch, examiner)
    for group in (candidate, examiner):
        os.killpg(group, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    with contextlib.suppress(OSError):
        _remove(launch.folder)


def _start(launch: Launch, number: int, fds: list[int]) -> int:
    """Start the candidate (0) or the examiner (1), which has `fds` as 3 and so on; returns its process group."""
    child = os.fork()
    if child:
        os.setpgid(child, child)  # here and there: whoever comes first
        return child
    verdict_fd = 1
    try:
        os.setpgid(0, 0)
        verdict_fd, *kept = (os.dup(fd) for fd in (1, *fds))
        run = serve if number == 0 else _load_examiner()
        confine(launch.confinement, f"{launch.folder}/{number}")
        null = os.open(os.devnull, os.O_RDWR)
        first_free = max(null, *kept) + 1
        for to, fd in enumerate((null, null, null, *kept)):
            os.dup2(fd, first_free + to)
    except BaseException as error:
        os.write(verdict_fd, f"! {' '.join(str(error).split())}\n".encode())
        os._exit(1)
    for to in range(3 + len(kept)):
        os.dup2(first_free + to, to)
    os.closerange(3 + len(kept), 1 << 16)
    with contextlib.suppress(BaseException):  # there is nobody to tell, and the other side notices
        run(*range(3, 3 + len(kept)))
    os._exit(0)


def _load_examiner() -> Callable[..., None]:
    # takes its time, and the candidate need not wait for it
    from gpu_select.benchmark.sandbox.examiner import examine

    return examine


def _supervise(launch: Launch, examiner: int) -> None:
    """Wait for the examiner's end, the end of the time, or the end of standard input."""
    deadline = time.monotonic() + launch.wall_s
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(os.pidfd_open(examiner), select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(1000 * min(left, _POLL_S)):
            return
        if not launch.confinement.namespaces and _size(f"{launch.folder}/0") > DISK_BYTES:
            return


def _remove(folder: str) -> None:
    """Remove the folder, as its owner may not be there any more. In those that it has there are no others."""
    for name in ("0", "1"):
        for file in os.listdir(f"{folder}/{name}"):
            os.unlink(f"{folder}/{name}/{file}")
        os.rmdir(f"{folder}/{name}")
    os.rmdir(folder)


def _size(folder: str) -> int:
    """Bytes of the files of a folder, which has no folders in it."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            total += entry.stat(follow_symlinks=False).st_blocks * 512 + 4096
    return total
