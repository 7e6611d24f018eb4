"""How fast the device multiplies matrices and copies memory: the roofs that throughput is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_select.encoder.linear import Linear

__all__ = ["Roof", "copy_bandwidth", "matmul_roof"]

_REPEATS = 5
_MIN_S = 0.1
"""A repeat lasts so long, so that clocks settle as they do in real work."""

_SIZES = {
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096), (16384, 8192, 8192)),
    "cpu": ((1024, 1024, 1024), (2048, 1024, 1024), (2048, 2048, 2048)),
}
_COPY_BYTES = {"cuda": 2**31, "cpu": 2**28}


@dataclass(frozen=True)
class Roof:
    """The best rate of a matrix product among a few sizes."""

    flops_per_s: float
    """Of the best size: the median of its repeats."""
    size: tuple[int, int, int]
    """Its (M, N, K)."""
    dtype: str


def matmul_roof(device: torch.device, dtype: torch.dtype) -> Roof:
    """Measure (M, K) x (K, N) products of random numbers, whose bits cost power as real ones do.

    On the CPU these are the better of torch's own product and the one that the encoder uses.
    """
    best = Roof(0.0, (0, 0, 0), str(dtype).removeprefix("torch."))
    for size in _SIZES.get(device.type, _SIZES["cpu"]):
        M, N, K = size
        a_MK, b_NK = (_random(rows, K, device, dtype) for rows in (M, N))
        products: list[Callable[[], Tensor]] = [lambda a=a_MK, b=b_NK: a @ b.T]  # type: ignore[misc]
        if device.type == "cpu":
            linear = Linear(b_NK)
            products.append(lambda a=a_MK, linear=linear: linear(a))  # type: ignore[misc]
        for product in products:
            rate = 2.0 * M * N * K / _seconds(product, device)
            if rate > best.flops_per_s:
                best = Roof(rate, size, best.dtype)
    return best


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written ones counted, of copying within the device's memory."""
    source = _random(_COPY_BYTES.get(device.type, 2**28) // 4096, 1024, device, torch.float32)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _random(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(rows, columns, device=device, generator=generator).to(dtype)


@torch.inference_mode()
def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of one call, from repeats of many."""
    calls = 1
    times: list[float] = []
    _time(run, 1, device)
    while len(times) < _REPEATS:
        seconds = _time(run, calls, device)
        if seconds < _MIN_S:  # too few: not counted
            calls = max(calls + 1, min(10 * calls, int(1.2 * calls * _MIN_S / seconds)))
            continue
        times.append(seconds / calls)
    return statistics.median(times)


def _time(run: Callable[[], object], calls: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
