"""The cluster: reaching it, and where on it the workers of a run compute."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from gpu_select.errors import ConfigError, DeviceError
from gpu_select.pipeline import FEW_SHAPES, SAME_BITS
from gpu_select.shards.pool import Seat

__all__ = ["RaySeat", "connected", "ray_seats"]

_log = logging.getLogger("gpu_select")

_KNOCK_S = 10.0


@dataclass(frozen=True)
class RaySeat(Seat):
    """What an actor asks of the cluster, which finds the place."""

    n_cpus: int = 1
    n_gpus: int = 0


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Belong to a cluster.

    Args:
        address: auto for the one that this machine is part of, host:port, or local for one that is started on this
            machine and ends with the block.
    Raises:
        DeviceError: there is none.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address)
        ray.init(
            address=address, logging_level=logging.WARNING, include_dashboard=False if address == "local" else None
        )
    except Exception as error:  # Ray raises nearly every type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceError(
            f"address {address}: cannot reach a Ray cluster ({reason}); start one (ray start --head), or give "
            f"--address local for one on this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out at once whether anybody is there; Ray takes minutes.

    Raises:
        OSError, ValueError: nobody is.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


def ray_seats(device: str, workers: int | None) -> list[RaySeat]:
    """One seat for each GPU of the cluster, else one for each node; or as many as asked for.

    The CPUs of a node are divided among the workers that it can take; of a busy cluster, those that are free.

    Args:
        device: cpu, cuda, or auto for cuda where the cluster has GPUs.
        workers: how many actors. More than there is room for wait until the cluster has grown.

    Raises:
        ConfigError: another device: which GPU an actor gets, Ray decides.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError("device", device, "cpu, cuda or auto with Ray, which decides what GPU a worker gets")
    free = int(ray.available_resources().get("CPU", 0))
    nodes = [(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in (n["Resources"] for n in ray.nodes() if n["Alive"])]
    n_gpus = sum(gpus for _, gpus in nodes)
    if device == "cuda" or (device == "auto" and n_gpus):
        n = workers or max(n_gpus, 1)
        if n > n_gpus:
            _log.warning("the cluster has %d GPUs: %d of %d workers wait for others", n_gpus, n - n_gpus, n)
        n_cpus = min((cpus // gpus for cpus, gpus in nodes if gpus), default=1)
        n_cpus = max(min(n_cpus, free // n), 1)
        return [_seat(i, "cuda", n_cpus, 1) for i in range(n)]
    sizes = [cpus for cpus, _ in nodes if cpus] or [1]
    n = workers or len(sizes)
    if n > sum(sizes):
        _log.warning("the cluster has %d CPUs: %d of %d workers wait for others", sum(sizes), n - sum(sizes), n)
    n_cpus = max(min(min(sizes) // math.ceil(n / len(sizes)), free // n), 1)
    return [_seat(i, "cpu", n_cpus, 0) for i in range(n)]


def _seat(number: int, device: str, n_cpus: int, n_gpus: int) -> RaySeat:
    threads = {"OMP_NUM_THREADS": str(n_cpus), "RAYON_NUM_THREADS": str(n_cpus)}  # of torch, of the tokenizer
    return RaySeat(f"Ray worker {number}", device, {**FEW_SHAPES, **SAME_BITS, **threads}, n_cpus, n_gpus)
