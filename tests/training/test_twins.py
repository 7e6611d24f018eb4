"""Two models that do alike, and are the best: neither may lose to a third because nothing sets the two apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.domains import WIRE_ORDER
from gpu_select.records import OutcomeTable
from gpu_select.training import TrainOptions, fit

OPTIONS = TrainOptions(quality_weight=1.0).changed({"knn": {"k": 25}, "mlp": {"members": 4}})


def twins(n: int, difference: float) -> tuple[torch.Tensor, OutcomeTable]:
    """Queries of which four fifths are better answered by the first two models, by how much they say beside which."""
    rng = np.random.default_rng(0)
    kind = rng.random(n) < 0.2
    rows = np.where(kind[:, None], 1.0, -1.0) * np.eye(12)[0] * 0.6 + 0.25 * rng.standard_normal((n, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    domain = rng.integers(5, size=n)
    first = np.where(kind, 0.5, 0.8) + 0.1 * rng.standard_normal(n)
    quality = np.stack([first, first + difference * rng.standard_normal(n), np.where(kind, 0.8, 0.5)], axis=1)
    features = torch.from_numpy(np.hstack([rows, np.eye(14)[domain]]).astype(np.float32))
    names = [WIRE_ORDER[d] for d in domain]
    queries = [f"query {i}" for i in range(n)]
    return features, OutcomeTable(queries, names, ["a", "twin", "b"], quality.clip(0, 1), np.ones((n, 3)))


@pytest.mark.parametrize("difference", [0.0, 0.02])
@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_they_are_chosen_where_they_are_best(algorithm, difference):
    features, table = twins(900, difference)
    learned = np.arange(600)
    selector = selector_of(fit(algorithm, features[:600], table.take(learned), OPTIONS, {}))
    column = np.array([table.models.index(name) for name in selector.models])
    chosen = column[selector(features[600:]).argmax(dim=1).numpy()]
    quality = table.quality_QM[600:]
    gained = quality[np.arange(300), chosen].mean() - quality.mean(axis=0).max()
    possible = quality.max(axis=1).mean() - quality.mean(axis=0).max()
    assert gained > 0.5 * possible
