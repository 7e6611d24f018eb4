"""Routing with Ray: the callable for a Dataset of one's own."""

from __future__ import annotations

from typing import Any

import ray

from gpu_select import batch

__all__ = ["RouterBatch", "assigned_device"]


class RouterBatch(batch.RouterBatch):
    """`gpu_select.batch.RouterBatch` for Ray Data, each actor of which has a router of its own:

        dataset.map_batches(
            RouterBatch,
            fn_constructor_kwargs={"models_dir": "models/", "algorithm": "svm"},
            batch_size=16_384,
            batch_format="pyarrow",
            num_gpus=1,
            concurrency=8,
        )

    An actor loads the router before it takes rows, and onto the GPU that Ray gave it; without one, it computes on the
    CPU, whatever GPUs the machine has. `batch_format="pyarrow"` keeps every column's type; "numpy" works as well.

    Args:
        kwargs: those of `gpu_select.batch.RouterBatch`.

    Raises:
        GpuSelectError: options that cannot work, or what loading raises.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"device": assigned_device(), **kwargs})
        self.load()


def assigned_device() -> str:
    """What Ray gave the actor that this is; outside of one, the best there is."""
    if not ray.is_initialized():
        return "auto"
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return "auto"
    return "cuda" if context.get_accelerator_ids().get("GPU") else "cpu"
