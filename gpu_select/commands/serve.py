"""`gpu-select serve`: an OpenAI-compatible endpoint that chooses the model."""

from __future__ import annotations

import importlib.util
import os
from functools import partial
from typing import Any

import click

from gpu_select.commands import options

__all__ = ["command"]

_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
_CACHED_PRODUCTS = "256"
"""oneDNN and PyTorch keep the 1,024 products that they compiled last, four for each number of tokens of a batch: in a
server those add up to 500 MB. Both read the limit when torch is imported."""


@click.command(name="serve")
@click.option("--config", "config_path", required=True, metavar="FILE", help="config.yaml: decisions and endpoints.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@options.device
@click.option(
    "--deterministic", is_flag=True, help="Decide on a query the same, bit for bit, in whatever batch it is; slower."
)
def command(config_path: str, host: str, port: int, device: str, dtype: Any, deterministic: bool) -> None:
    """Answer OpenAI clients; a request for the model "auto" goes to the one that its text calls for.

    SIGHUP or POST /admin/reload loads FILE and its files again; SIGTERM finishes what is being answered, and stops.
    The log on standard error is one JSON object a line.
    """
    serve(config_path, host=host, port=port, device=device, dtype=dtype, deterministic=deterministic)


def serve(config_path: str, *, host: str, port: int, device: str, dtype: Any, deterministic: bool) -> None:
    """Check that the server's packages are there, and hand over."""
    from gpu_select.errors import MissingDependencyError

    for package in ("aiohttp", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package.replace("_", "-"), "gpu-select serve", "'gpu-select[serve]'")
    for name in _CACHES:
        os.environ.setdefault(name, _CACHED_PRODUCTS)
    # the event loop has a core to itself: threads of a product wait for the slowest of them
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _n_cores() - 1)))
    from gpu_select import gateway

    gateway.write_json_lines()
    load = partial(gateway.load_service, config_path, device=device, dtype=dtype, deterministic=deterministic)
    gateway.serve(load, host, port)


def _n_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
