"""Tables whose best model depends on the query."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gpu_select.domains import WIRE_ORDER
from gpu_select.records import OutcomeTable


def _task(n: int, seed: int = 0, n_models: int = 3, noise: float = 0.3) -> tuple[torch.Tensor, OutcomeTable]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 17))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    taste = np.random.default_rng(1234).standard_normal((17, n_models))
    quality = 1 / (1 + np.exp(-3 * rows @ taste + noise * rng.standard_normal((n, n_models))))
    domain = rng.integers(14, size=n)
    features = np.hstack([rows, np.eye(14)[domain]]).astype(np.float32)
    table = OutcomeTable(
        queries=[f"query {i}" for i in range(n)],
        domains=[WIRE_ORDER[d] for d in domain],
        models=list("abcdef")[:n_models],
        quality_QM=quality,
        latency_s_QM=rng.uniform(0.5, 2.0, quality.shape),
    )
    return torch.from_numpy(features), table


@pytest.fixture(scope="session")
def task() -> Callable[..., tuple[torch.Tensor, OutcomeTable]]:
    """Call with a number of queries (and seed=, n_models=, noise=): (Q, 31) features, and their table."""
    return _task
