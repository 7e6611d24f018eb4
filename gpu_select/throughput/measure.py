"""Routing a log from file to file, timed as a user would see it."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from gpu_select.errors import ConfigError, DataError
from gpu_select.logs import Row, open_log, open_writer
from gpu_select.pipeline import WINDOW_ROWS, RouteReport, route_rows
from gpu_select.router import Router
from gpu_select.stages import STAGES
from gpu_select.throughput.flops import flops_per_token
from gpu_select.throughput.roof import Roof

__all__ = ["Run", "Throughput", "measure", "route_file", "summary", "timed_route"]


@dataclass(frozen=True)
class Throughput:
    """What routing a log takes: medians over the repeats."""

    queries: int
    errors: int
    """Rows that could not be routed."""
    tokens: int
    """Tokens that went through the encoder."""
    repeats: int
    seconds: float
    """From opening the log to the finished output file."""
    all_seconds: tuple[float, ...]
    stage_seconds: dict[str, float]
    """By stage; stages overlap."""
    flops_per_token: int
    roof_flops_per_s: float
    peak_bytes: int | None
    """Device memory on CUDA, of this measurement; elsewhere what the process had resident at most. None if unknown."""

    @property
    def tokens_per_s(self) -> float:
        """Through the encoder."""
        return self.tokens / self.seconds

    @property
    def queries_per_s(self) -> float:
        """Rows of the log."""
        return self.queries / self.seconds

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation: the model's FLOPs a second as a share of the measured roof."""
        return self.tokens_per_s * self.flops_per_token / self.roof_flops_per_s


@dataclass(frozen=True)
class Run:
    """One time that a log was routed."""

    report: RouteReport
    seconds: float
    """From opening the log to the finished output file."""
    peak_bytes: int | None
    """As in `Throughput`."""


def measure(
    router: Router,
    log: str,
    roof: Roof,
    *,
    repeats: int = 3,
    token_budget: int | None = None,
    max_rows: int | None = None,
) -> Throughput:
    """Route a log to a temporary file a few times, after a shorter run that warms up.

    Args:
        router: what is measured.
        log: any file that `route` reads.
        roof: what the encoder's rate is compared with.
        repeats: how often.
        token_budget: tokens a batch; by default what suits the device.
        max_rows: only the first rows of the log.
    Raises:
        ConfigError: fewer than one repeat.
        DataError: the log has no row that can be routed.
        GpuSelectError: as routing does.
    """
    if repeats < 1:
        raise ConfigError("repeats", repeats, "an integer >= 1")
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "routed.jsonl")
        warm_up = WINDOW_ROWS if max_rows is None else min(WINDOW_ROWS, max_rows)
        route_file(router, log, out, token_budget=token_budget, max_rows=warm_up)
        runs = [timed_route(router, log, out, token_budget=token_budget, max_rows=max_rows) for _ in range(repeats)]
    report = runs[0].report
    if report.rows == report.errors:
        raise DataError(f"{log}: no row that can be routed; the first: {report.first_error or 'there is none at all'}")
    return summary(router, roof, runs)


def timed_route(
    router: Router, source: str, target: str, *, token_budget: int | None = None, max_rows: int | None = None
) -> Run:
    """`route_file`, with its time and memory."""
    device = router.encoder.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    report = route_file(router, source, target, token_budget=token_budget, max_rows=max_rows)
    return Run(report, time.perf_counter() - start, _peak_bytes(device))


def summary(router: Router, roof: Roof, runs: Sequence[Run]) -> Throughput:
    """What repeated runs of `timed_route` on one log come to."""
    report = runs[0].report
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return Throughput(
        queries=report.rows,
        errors=report.errors,
        tokens=report.tokens,
        repeats=len(runs),
        seconds=statistics.median(run.seconds for run in runs),
        all_seconds=tuple(run.seconds for run in runs),
        stage_seconds={s: statistics.median(run.report.stage_seconds[s] for run in runs) for s in STAGES},
        flops_per_token=flops_per_token(router.encoder),
        roof_flops_per_s=roof.flops_per_s,
        peak_bytes=max(peaks, default=None),
    )


def route_file(
    router: Router, source: str, target: str, *, token_budget: int | None = None, max_rows: int | None = None
) -> RouteReport:
    """Route a log to a file, as `gpu-select route` does.

    Args:
        router: decides.
        source, target: files, any format by name.
        token_budget: tokens a batch.
        max_rows: stop after so many rows.
    """
    stop = threading.Event()
    with open_log(source, stop=stop) as log, open_writer(target) as out:
        windows = log.windows(WINDOW_ROWS)
        if max_rows is not None:
            windows = _first(windows, max_rows)
        decide = partial(router.decide, token_budget=token_budget)
        return route_rows(windows, out.write, router.prepare, decide, on_stop=stop.set)


def _first(windows: Iterable[list[Row]], max_rows: int) -> Iterator[list[Row]]:
    for window in windows:
        yield window[:max_rows]
        max_rows -= len(window)
        if max_rows <= 0:
            return


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
