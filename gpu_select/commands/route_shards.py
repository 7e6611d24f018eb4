"""`gpu-select route --shard-rows`: a folder of shards."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options
from gpu_select.commands.route_summary import advance, warn_of_rows

if TYPE_CHECKING:
    from gpu_select.pipeline import RouteOptions
    from gpu_select.shards.run import Outcome, Progress

__all__ = ["check_shards", "route_shards"]


def route_shards(
    files: list[str],
    output: str,
    settings: RouteOptions,
    *,
    shard_rows: int,
    device: str,
    workers: int | None,
    address: str | None,
    formats: tuple[str | None, str | None],
) -> Outcome:
    """Route some files as one log into a folder, on this machine or on the Ray cluster at an address.

    `formats` are those of input and output, where given.
    """
    from gpu_select.shards import Job, RunFolder
    from gpu_select.shards.run import run_shards

    if settings.cache_dir is not None and not settings.deterministic:
        click.echo("--cache-dir turns --deterministic on: what is cached must not hang on when it was made", err=True)
        settings = dataclasses.replace(settings, deterministic=True)
    job = Job.of(settings, files, output, shard_rows, input_format=formats[0], output_format=formats[1])
    with (
        _workers(device, workers, address) as (seats, start),
        _terminated(),
        RunFolder(job) as folder,
        options.progress_bar("routing", "row") as bar,
    ):
        try:
            outcome = run_shards(job, folder, seats, progress=_advance(bar), start=start)
        except (KeyboardInterrupt, SystemExit):
            bar.close()
            click.echo(f"stopped; finished shards are in {output}, and the same command goes on", err=True)
            raise
    warn_of_rows(outcome.report, settings, without_domain=outcome.without_domain, result_fields=outcome.result_fields)
    return outcome


def check_shards(outcome: Outcome, output: str) -> None:
    """Fail where shards are missing.

    Raises:
        GpuSelectError: naming the first of them, and why.
    """
    from gpu_select.errors import GpuSelectError

    if outcome.failed:
        first = min(outcome.failed)
        raise GpuSelectError(
            f"{len(outcome.failed)} of {outcome.n_shards} shards failed twice and are missing, the first of them "
            f"part-{first:05} ({outcome.failed[first]}); the others are done, {output}/manifest.json names the missing "
            f"ones, and the same command tries them again"
        )


def _advance(bar: Any) -> Callable[[Progress], None]:
    move = advance(bar)

    def show(progress: Progress) -> None:
        bar.initial, bar.total = progress.rows_before, progress.total
        move(progress.report)

    return show


@contextlib.contextmanager
def _workers(device: str, workers: int | None, address: str | None) -> Iterator[tuple[Any, Any]]:
    """Where the run's processes compute, and what makes one."""
    if address is None:
        from gpu_select.shards.pool import Worker, seats

        yield seats(device, workers), Worker
        return
    from gpu_select.ray_data.cluster import connected, ray_seats
    from gpu_select.ray_data.worker import RayWorker

    with connected(address):
        yield ray_seats(device, workers), RayWorker


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does, with exit statuses of their own.

    What is ignored (a closed terminal, under nohup) stays so.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
