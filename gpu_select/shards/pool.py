"""The processes of a run: where each computes, and talking to them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gpu_select.errors import ConfigError, DeviceError
from gpu_select.pipeline import FEW_SHAPES, SAME_BITS
from gpu_select.shards.job import Job
from gpu_select.shards.plan import Shard

__all__ = ["AnyWorker", "Seat", "Worker", "seats"]

_MOST_WORKERS = 1024
_LISTEN_S = 5.0
"""So long a killed process's pipe may stay open, which processes of its own may hold."""
_PROGRAM = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Seat:
    """Where a process computes."""

    name: str
    """For messages."""
    device: str
    """What the process calls its device."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it gets: the GPU that it sees, and how many threads it takes."""


def seats(device: str, workers: int | None) -> list[Seat]:
    """One seat for each GPU, or as many as asked for.

    Args:
        device: cpu, cuda for all GPUs, cuda:N for one of them, mps, or auto for the best there is.
        workers: how many processes; by default one a GPU, and one on the CPU.

    Raises:
        DeviceError: no such device here.
        ConfigError: more processes than can be meant.
    """
    if workers is not None and workers > _MOST_WORKERS:
        raise ConfigError("workers", workers, f"at most {_MOST_WORKERS}")
    gpus: list[str] = []
    if device != "cpu":
        from gpu_select.encoder import resolve_device

        target = resolve_device(device)
        device = target.type
        if device == "cuda":
            gpus = _gpus() if target.index is None else [_gpus()[target.index]]
    n = workers or len(gpus) or 1
    threads = {"OMP_NUM_THREADS": str(max(1, _cores() // n))}
    threads["RAYON_NUM_THREADS"] = threads["OMP_NUM_THREADS"]  # of the tokenizer
    common = {name: os.environ.get(name, value) for name, value in {**FEW_SHAPES, **threads}.items()} | SAME_BITS
    if not gpus:
        return [Seat(f"worker {i}", device, common) for i in range(n)]
    used = [gpus[i % len(gpus)] for i in range(n)]
    return [
        Seat(f"worker {i} (GPU {gpu})", device, common | {"CUDA_VISIBLE_DEVICES": gpu}) for i, gpu in enumerate(used)
    ]


def _gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(i) for i in range(count)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class AnyWorker(Protocol):
    """A running process, wherever it runs."""

    @property
    def ending(self) -> str:
        """How it ended, once it has."""
        ...

    def route(self, shard: Shard) -> None:
        """Have it route a shard, after those that it was given before."""
        ...

    def kill(self) -> None:
        """End it at once. What it was writing keeps its temporary name."""
        ...


class Worker:
    """A running process of this machine. What it says goes to a queue, with the worker; after its end, None does.

    It is a Python of its own, which nothing of this one's state reaches, in a process group of its own, so that
    Ctrl-C reaches this process alone.

    Args:
        job: what it is part of.
        seat: where it computes.
        replies: gets (worker, reply).
        lock: descriptor of the folder's lock, which it holds as long as it lives.
    """

    def __init__(
        self, job: Job, seat: Seat, replies: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]], lock: int
    ) -> None:
        self.seat = seat
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # as this process found the package
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **seat.environment, "PYTHONPATH": path},
                pass_fds=(lock,),
                process_group=0,
            )
        except OSError as error:
            raise DeviceError(
                f"cannot start the process of {seat.name}: {error.strerror}; use fewer --workers"
            ) from error
        self._listener = threading.Thread(target=self._listen, args=(replies,), daemon=True)
        self._listener.start()
        self._send({"job": job.to_json(), "device": seat.device})

    def route(self, shard: Shard) -> None:
        """Have it route a shard, after those that it was given before."""
        self._send({"number": shard.number, "spans": shard.spans})

    @property
    def ending(self) -> str:
        """How it ended, once it has."""
        code = self._process.wait()
        return f"ended by signal {-code}" if code < 0 else f"ended with status {code}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once. What it was writing keeps its temporary name."""
        self._process.kill()
        self._process.wait()
        self._listener.join(_LISTEN_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _send(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended, and its listener says so
            pass

    def _listen(self, replies: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                replies.put((self, json.loads(line)))
        replies.put((self, None))
