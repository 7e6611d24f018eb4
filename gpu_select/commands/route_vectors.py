"""`gpu-select route --features`: the model for every vector of a file."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_select.commands import options
from gpu_select.commands.route_summary import advance

if TYPE_CHECKING:
    from gpu_select.pipeline import RouteOptions, RouteReport

__all__ = ["route_vectors"]


def route_vectors(
    features: str, output: str, output_format: str | None, settings: RouteOptions, *, device: str
) -> RouteReport:
    """Route a .npy file of ready features into one output."""
    from gpu_select import pipeline
    from gpu_select.artifacts import load_selector
    from gpu_select.encoder import resolve_device
    from gpu_select.errors import DimensionError
    from gpu_select.logs import open_writer
    from gpu_select.router import route_features

    artifact = load_selector(
        settings.models, algorithm=settings.algorithm, device=resolve_device(device), backend=settings.knn_backend
    )
    if settings.candidates is not None:
        artifact.selector.candidate_mask(settings.candidates)
    artifact.selector.deterministic = settings.deterministic
    vectors = _open_vectors(features)
    width, dim = vectors.shape[1], artifact.selector.dim
    if width != dim:
        raise DimensionError(f"{features}: expected vectors of D = {dim}, as {artifact.path} has, got {width}")
    stop = threading.Event()
    with (
        open_writer(output, format=output_format, columns=["row"], stop=stop) as out,
        options.progress_bar("routing", "row", len(vectors)) as bar,
    ):
        decide = partial(route_features, artifact.selector, candidates=settings.candidates)
        return pipeline.route_vectors(
            vectors,
            out.write,
            decide,
            window_rows=pipeline.WINDOW_ROWS,
            progress=advance(bar),
            on_stop=stop.set,
        )


def _open_vectors(path: str) -> Any:
    import numpy as np

    from gpu_select.errors import InputError, brief

    expected = "a .npy file with a (B, D) array of float16, float32 or float64"
    if not os.path.isfile(path):  # pathlib's raises for a name that is too long
        raise InputError(f"cannot read {path}: no such file")
    try:
        with np.errstate(over="ignore"):  # a hostile shape
            # not np.load, which opens archives and pickles too
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the reader of headers, which come from outside, raises nearly every type
        raise InputError(f"{path}: expected {expected}, got {brief(str(error))}") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path}: expected {expected}, got shape {array.shape} of {array.dtype}")
    return array
