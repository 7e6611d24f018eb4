"""What all benchmark scripts share: interleaved timing, and where and with what a result was measured."""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gpu_select.records import OutcomeTable

__all__ = ["clustered_features", "embedded_features", "environment", "interleaved", "save", "unit"]

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
    "scikit-learn",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "orjson",
    "aiohttp",
    "openai",
    "pyarrow",
    "ray",
)


def interleaved(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each task; the tasks take turns, so that a noisy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def unit(x_ND: torch.Tensor) -> torch.Tensor:
    """Rows of unit norm."""
    return x_ND / torch.linalg.vector_norm(x_ND, dim=1, keepdim=True)


def clustered_features(n_rows: int, dim: int, seed: int) -> torch.Tensor:
    """(n_rows, dim) float32 like real features: clustered unit embeddings, then a one-hot of 14 domains."""
    centers = torch.Generator().manual_seed(0)  # the same clusters for rows and queries
    generator = torch.Generator().manual_seed(seed)
    center_KD = torch.randn(60, dim - 14, generator=centers)
    cluster_N = torch.randint(60, (n_rows,), generator=generator)
    embeddings = unit(center_KD[cluster_N] + 1.2 * torch.randn(n_rows, dim - 14, generator=generator))
    return torch.cat([embeddings, torch.eye(14)[cluster_N % 14]], dim=1)


def embedded_features(
    table: OutcomeTable, encoder_name: str, cache_dir: str | Path | None, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """(Q, D) float32 features of a table's queries, on the CPU; embeddings are kept in the folder, if any."""
    from gpu_select.encoder import EmbeddingCache, embed, load_encoder
    from gpu_select.features import build_features

    encoder = load_encoder(encoder_name, device=device)
    with contextlib.ExitStack() as stack:
        cache = None
        if cache_dir is not None:
            kept = EmbeddingCache(Path(cache_dir), encoder.fingerprint, encoder.precision, encoder.dim)
            cache = stack.enter_context(kept)
        vectors = embed(encoder, table.queries, cache=cache).vectors
    return build_features(vectors.cpu(), torch.from_numpy(table.domain_indices()))


def environment() -> dict[str, Any]:
    """Hardware, versions and command line."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join(["python", *map(_shown, sys.argv)]),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def _shown(argument: str) -> str:
    """An argument without the place of a file on this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def save(name: str, results: dict[str, Any]) -> None:
    """Write bench/results/NAME.json."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**environment(), **results}, indent=2) + "\n")
    print(f"-> {path}")
