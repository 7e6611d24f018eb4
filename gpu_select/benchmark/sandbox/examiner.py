"""The process that runs the tests and says how each assertion went. No code of the answer ever runs in it."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from gpu_select.benchmark.sandbox.assertions import BEGIN, CANDIDATE, END, FAIL, Tests, parse_tests
from gpu_select.benchmark.sandbox.codec import decode
from gpu_select.benchmark.sandbox.remote import Connection

__all__ = ["examine"]


def examine(job_fd: int, verdict_fd: int, read_fd: int, write_fd: int) -> None:
    """Run a job's tests against the candidate.

    The job is a dict with blocks and prompt (see `source`), tests (see `assertions`), skip: the assertions to leave
    out, and assertion_s: the seconds that one of them has, and the answer to load.

    Verdicts are lines: `n 3` how many assertions there are, `b 0`, `p 0` and `f 0` that one begins, passes and fails,
    `s` that the candidate is lost or the time of what has begun is over, `d` that all is done.
    """
    with open(job_fd, "rb") as stream:
        job = decode(stream.read())
    _Examiner(job, verdict_fd, read_fd, write_fd).run()


class _Examiner:
    def __init__(self, job: dict[str, Any], verdict_fd: int, read_fd: int, write_fd: int) -> None:
        self._job = job
        self._verdict_fd = verdict_fd
        self._skip = set(job["skip"])
        self._connection = Connection(read_fd, write_fd, self._stop)
        self._failed: set[int] = set()

    def run(self) -> None:
        tests = parse_tests(self._job["tests"])
        self._say(f"n {tests.n_assertions}")
        if tests.n_assertions:
            signal.signal(signal.SIGALRM, self._stop)
            self._have_time()
            wants_entry = CANDIDATE in tests.names
            candidate = self._connection.request("load", self._job["blocks"], self._job["prompt"], wants_entry)
            self._run(tests, self._namespace(tests) | {CANDIDATE: candidate})
        self._say("d")

    def _namespace(self, tests: Tests) -> dict[str, Any]:
        """What the tests find under the names that they use."""
        namespace: dict[str, Any] = {"__name__": "tests", BEGIN: self._begin, END: self._end, FAIL: self._fail}
        namespace |= {name: __import__(name) for name in tests.module_names}
        # an answer may be about a function that is called as one of Python's; where there is another, the tests mean
        # Python's, whatever the answer defines
        wanted = tests.names or tests.builtin_names
        found = self._connection.request("names", wanted)
        return namespace | {name: found[name] for name in wanted if name in found}

    def _run(self, tests: Tests, namespace: dict[str, Any]) -> None:
        for program, never in zip(tests.programs, tests.never, strict=True):
            try:
                self._have_time()
                exec(program, namespace)  # noqa: S102 - to run the tests is what this confined process is for
            except Exception:  # what did not come to be evaluated has not passed
                continue
            for i in never:
                if i not in self._failed:
                    self._say(f"p {i}")

    def _begin(self, i: int) -> bool:
        if i in self._skip:
            return False
        self._say(f"b {i}")
        self._have_time()
        return True

    def _end(self, i: int, value: Any) -> None:
        if value:
            self._say(f"p {i}")
        else:
            self._fail(i)
        self._have_time()

    def _fail(self, i: int) -> None:
        self._failed.add(i)
        self._say(f"f {i}")

    def _have_time(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._job["assertion_s"])

    def _stop(self, *_: Any) -> NoReturn:
        self._say("s")
        os._exit(0)

    def _say(self, verdict: str) -> None:
        os.write(self._verdict_fd, f"{verdict}\n".encode())
