"""Whether two formulas have one value, asked of a process of its own: what an answer holds may take for ever."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from gpu_select.errors import GpuSelectError, MissingDependencyError

__all__ = ["MathEquality", "require_math_verify"]

_WORKER = Path(__file__).with_name("math_worker.py")
_START_S = 60.0
_COMPARE_S = 4.0  # a little more than the process gives itself
_PASSED_ON = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def require_math_verify() -> None:
    """Raise MissingDependencyError where Math-Verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingDependencyError("math-verify", "the metric MATH", "'gpu-select[benchmark]'")


class MathEquality:
    """Compares LaTeX formulas by Math-Verify in another process, which starts on first use. Thread-safe.

    A comparison that takes more than 3 s or 2 GiB ends the process and counts as unequal; the next one gets a new
    process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, truth: str, answer: str) -> bool:
        """Whether the two have one value.

        Raises:
            MissingDependencyError: Math-Verify is not installed.
            GpuSelectError: the process cannot be started.
        """
        with self._lock:
            if self._process is None:
                self._start()
            reply = self._ask([truth, answer], _COMPARE_S)
            if reply is None:
                self._stop()
            return reply == "true"

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        require_math_verify()
        # -I: the environment and the working directory have no say in what is imported
        self._process = process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lines = lines

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line.strip())
            lines.put("")  # the process has ended

        threading.Thread(target=read, name="math-equality", daemon=True).start()
        if self._ask([os.path.abspath(path) for path in sys.path], _START_S) != '"ready"':
            self._stop()
            raise GpuSelectError(
                "MATH: the process that compares formulas did not start; see what "
                f"`{sys.executable} -c 'import math_verify'` says"
            )

    def _ask(self, message: list[str], limit_s: float) -> str | None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            return self._lines.get(timeout=limit_s) or None
        except (OSError, queue.Empty):
            return None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
