"""A Ray cluster of this machine, and a small router for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Ray with four logical CPUs and one logical GPU that no machine has to have."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'gpu-select[ray]'")
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'gpu-select[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=4,  # logical: two actors, and room for what reads
        num_gpus=1,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        # pytest knows where the package is, which processes of the cluster need not
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def router_options(
    write_tiny_models: Callable[..., Path], tiny_encoder_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Keyword arguments of a `RouterBatch` whose results do not hang on the batch, bit for bit."""
    return {
        "models_dir": str(write_tiny_models(tmp_path_factory.mktemp("models"), {})),
        "algorithm": "knn",
        "embedding_model": str(tiny_encoder_path),
        "deterministic": True,
    }


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """400 rows; every 50th cannot be routed."""
    words = [
        "what",
        "is",
        "the",
        "law",
        "of",
        "energy",
        "and",
        "force",
        "in",
        "cell",
        "disease",
        "year",
        "money",
        "city",
    ]
    domains = ["law", None, "math", "physics", "engineering"]
    return [
        {
            "id": i,
            "query": None if i % 50 == 49 else " ".join(words[(i * k) % len(words)] for k in range(1, 3 + i % 7)),
            "domain": domains[i % len(domains)],
            "tags": None if i % 3 else [i, i + 1],
        }
        for i in range(400)
    ]
