"""Routing on a Ray cluster: a callable for Datasets, and actors that share the shards of `gpu-select route`."""

from __future__ import annotations

from gpu_select.errors import MissingDependencyError

try:
    import ray  # noqa: F401 - everything here needs it
except ImportError as error:
    raise MissingDependencyError("ray", "routing on a cluster", "'gpu-select[ray]'") from error

from gpu_select.ray_data.dataset import RouterBatch

__all__ = ["RouterBatch"]
