"""New models: where thirty outcomes are known, a selector gives a model its share, not nothing and not all."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.domains import WIRE_ORDER
from gpu_select.features import build_features
from gpu_select.records import OutcomeTable
from gpu_select.simulation import MODEL_NAMES, benchmark_records
from gpu_select.training import TrainOptions, fit

ALL = ("knn", "kmeans", "svm", "mlp")
N_TRAIN, N_ALL = 500, 800
N_KNOWN = 30
BEST, WORST = MODEL_NAMES.index("sim-generalist-70b"), MODEL_NAMES.index("sim-small-1b")
OPTIONS = TrainOptions(quality_weight=1.0).changed(
    {"knn": {"k": 25}, "kmeans": {"clusters": 32}, "mlp": {"members": 4}}
)


def vector_of(query: str) -> np.ndarray:
    """What a simple encoder makes of a text: the sum of a random vector a word, at unit length."""
    words = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(48) for word in query.lower().split()]
    total = np.sum(words, axis=0)
    return total / np.linalg.norm(total)


@pytest.fixture(scope="module")
def simulated() -> tuple[torch.Tensor, OutcomeTable]:
    """Features of 800 simulated queries, and all outcomes."""
    rows = list(benchmark_records(N_ALL, seed=4))
    first = rows[:: len(MODEL_NAMES)]
    quality = np.array([row["performance"] for row in rows]).reshape(N_ALL, -1)
    domains = [row["category"] if row["category"] in WIRE_ORDER else "other" for row in first]
    table = OutcomeTable([row["query"] for row in first], domains, list(MODEL_NAMES), quality, np.ones_like(quality))
    vectors = torch.from_numpy(np.stack([vector_of(query) for query in table.queries]).astype(np.float32))
    return build_features(vectors, torch.from_numpy(table.domain_indices())), table


@pytest.fixture(scope="module")
def shares_of(simulated) -> Callable[..., np.ndarray]:
    """Call with an algorithm, a model and the training queries at which it is known: each model's share of others."""
    features, table = simulated

    def run(algorithm: str, model: int, known) -> np.ndarray:
        quality = table.quality_QM[:N_TRAIN].copy()
        hidden = np.ones(N_TRAIN, bool)
        hidden[known] = False
        quality[hidden, model] = np.nan
        seen = replace(table.take(np.arange(N_TRAIN)), quality_QM=quality)
        selector = selector_of(fit(algorithm, features[:N_TRAIN], seen, OPTIONS, {}))
        column = np.array([table.models.index(name) for name in selector.models])
        chosen = column[selector(features[N_TRAIN:]).argmax(dim=1).numpy()]
        return np.bincount(chosen, minlength=len(table.models)) / (N_ALL - N_TRAIN)

    return run


def draws(n: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).choice(N_TRAIN, N_KNOWN, replace=False) for seed in range(n)]


@pytest.mark.parametrize("algorithm", ALL)
def test_a_good_model_gets_a_share_but_not_everything(shares_of, algorithm):
    full = shares_of(algorithm, BEST, np.arange(N_TRAIN))[BEST]
    rare = np.array([shares_of(algorithm, BEST, known)[BEST] for known in draws(4)])
    assert 0.2 < full < 0.8
    assert (rare > 0.02).all()
    assert (rare < 0.9).all()
    # on average near to what all of its outcomes would give it
    assert abs(rare.mean() - full) < 0.25


@pytest.mark.parametrize("algorithm", ALL)
def test_a_poor_model_gets_little(shares_of, algorithm):
    assert shares_of(algorithm, WORST, np.arange(N_TRAIN))[WORST] < 0.1
    for known in draws(2):
        assert shares_of(algorithm, WORST, known)[WORST] < 0.1


@pytest.mark.parametrize("algorithm", ALL)
def test_a_poor_model_with_the_luckiest_of_fifty_draws_gets_little(simulated, shares_of, algorithm):
    _, table = simulated
    quality_Q = table.quality_QM[:N_TRAIN, WORST]
    lucky = max(draws(50), key=lambda known: quality_Q[known].mean())
    assert quality_Q[lucky].mean() > quality_Q.mean() + 0.15
    assert shares_of(algorithm, WORST, lucky)[WORST] < 0.25


@pytest.mark.parametrize("algorithm", ALL)
def test_the_models_that_are_well_known_stay_in_use(shares_of, algorithm):
    shares = shares_of(algorithm, BEST, draws(1)[0])
    assert (np.delete(shares, [BEST, WORST]) > 0.02).any()
