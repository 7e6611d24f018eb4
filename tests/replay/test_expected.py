"""What records let expect: of known truths, of queries they hold, and where they tell nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.records import OutcomeTable, query_digests
from gpu_select.replay.expected import ExpectedOutcomes

NAN = float("nan")
DOMAINS = ("law", "math", "health")


class World:
    """Queries of three domains, and models whose chances of success depend on domain and embedding."""

    def __init__(self, seed: int = 0, n_models: int = 3, dim: int = 8) -> None:
        rng = np.random.default_rng(seed)
        self.level = rng.normal(0, 0.6, len(DOMAINS))
        self.domain_gain = rng.normal(0, 0.6, (len(DOMAINS), n_models))
        self.taste = rng.normal(0, 0.8, (dim, n_models))
        self.dim = dim

    def queries(self, n: int, seed: int) -> tuple[torch.Tensor, list[str], np.ndarray]:
        """Features, domain names, and each model's chance."""
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(n, self.dim))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        d = rng.integers(0, len(DOMAINS), n)
        chance = 1 / (1 + np.exp(-(self.level[d, None] + self.domain_gain[d] + points @ self.taste)))
        features = torch.from_numpy(np.hstack([points, np.eye(14)[d]]).astype(np.float32))
        return features, [DOMAINS[i] for i in d], chance

    def table(self, n: int, seed: int, *, graded: bool = False, **columns) -> tuple[torch.Tensor, OutcomeTable]:
        features, domains, chance = self.queries(n, seed)
        rng = np.random.default_rng(seed + 1000)
        quality = chance if graded else (rng.random(chance.shape) < chance).astype(float)
        queries = [f"query {seed} {q}" for q in range(n)]
        names = [f"m{m}" for m in range(chance.shape[1])]
        latency = columns.pop("latency_s_QM", np.full(chance.shape, NAN))
        return features, OutcomeTable(queries, domains, names, quality, latency, **columns)


def digests(n: int) -> np.ndarray:
    return query_digests([f"new {q}" for q in range(n)])


def test_means_over_many_queries_come_out_as_they_are():
    world = World()
    expected = ExpectedOutcomes(*world.table(3000, 1))
    features, domains, chance = world.queries(3000, 2)
    quality = expected.of(features, domains, digests(3000)).quality_BM.numpy()
    np.testing.assert_allclose(quality.mean(axis=0), chance.mean(axis=0), atol=0.02)
    for domain in DOMAINS:
        rows = np.array([name == domain for name in domains])
        np.testing.assert_allclose(quality[rows].mean(axis=0), chance[rows].mean(axis=0), atol=0.05)
    choice, rows = quality.argmax(axis=1), np.arange(3000)
    # shrinkage errs on the careful side where there is much to be told
    assert -0.04 < quality[rows, choice].mean() - chance[rows, choice].mean() < 0.01
    assert chance[rows, choice].mean() > chance.mean(axis=0).max() + 0.05


def test_the_check_on_the_records_is_honest_where_nothing_can_be_learned():
    """Coin flips: the best of six looks good by chance, and must not be expected to."""
    rng = np.random.default_rng(3)
    features, table = World(n_models=6).table(600, 4)
    table = OutcomeTable(
        table.queries, table.domains, table.models, (rng.random((600, 6)) < 0.5).astype(float), table.latency_s_QM
    )
    check = ExpectedOutcomes(features, table).check
    assert check.queries == 600
    assert check.ci95[0] < 0 < check.ci95[1]
    assert check.expected < 0.56
    assert np.mean(table.quality_QM.max(axis=1)) > 0.95


def test_a_query_of_the_records_is_estimated_without_its_own_outcomes():
    features, table = World().table(120, 5)
    expected = ExpectedOutcomes(features, table)
    flipped = table.quality_QM.copy()
    flipped[7] = 1 - flipped[7]
    other = ExpectedOutcomes(
        features, OutcomeTable(table.queries, table.domains, table.models, flipped, table.latency_s_QM)
    )
    text = [f"  {table.queries[7].upper()} "]
    seen, unseen = (
        e.of(features[7:8], [table.domains[7]], query_digests(queries)).quality_BM
        for e in (expected, other)
        for queries in (text,)
    )
    told = expected.of(features[7:8], [table.domains[7]], query_digests(text))
    assert told.n_seen == 1
    # the models' means move a little; the estimate at the spot would by much more
    moved = (
        other.of(features[7:8], [table.domains[7]], digests(1)).quality_BM
        - expected.of(features[7:8], [table.domains[7]], digests(1)).quality_BM
    )
    assert (seen - unseen).abs().max() < 0.25 * moved.abs().max()


def test_times_tokens_and_costs_are_each_models_own():
    world = World()
    _, domains, _ = world.queries(400, 6)
    base = np.array([1.0, 4.0, 20.0]) * np.array([2.0 if name == "law" else 1.0 for name in domains])[:, None]
    features, table = world.table(400, 6, latency_s_QM=base, output_tokens_QM=100 * base, cost_usd_QM=base / 1000)
    expected = ExpectedOutcomes(features, table)
    features, domains, _ = world.queries(300, 7)
    told = expected.of(features, domains, digests(300))
    truth = np.array([1.0, 4.0, 20.0]) * np.array([2.0 if name == "law" else 1.0 for name in domains])[:, None]
    for found, scale in ((told.time_s_BM, 1), (told.output_tokens_BM, 100), (told.cost_usd_BM, 1e-3)):
        np.testing.assert_allclose(found.numpy().mean(axis=0), scale * truth.mean(axis=0), rtol=0.05)
        assert (found.numpy() >= 0).all()


def test_what_the_records_do_not_tell_is_not_known():
    world = World()
    latency = np.full((50, 3), 2.0)
    latency[:, 1] = NAN
    latency[::3, 2] = NAN
    features, table = world.table(50, 8, latency_s_QM=latency)
    told = ExpectedOutcomes(features, table).of(*world.queries(20, 9)[:2], digests(20))
    assert torch.isnan(told.time_s_BM[:, 1]).all()
    assert torch.allclose(told.time_s_BM[:, [0, 2]], torch.tensor(2.0))
    assert torch.isnan(told.output_tokens_BM).all()
    assert torch.isnan(told.cost_usd_BM).all()
    assert told.n_seen == 0


def test_nobody_looks_good_for_having_had_the_easy_queries():
    """Two equal models: one answered the easier half, the other the harder half and a few of both."""
    rng = np.random.default_rng(10)
    n = 2000
    points = rng.normal(size=(n, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    features = torch.from_numpy(np.hstack([points, np.zeros((n, 14))]).astype(np.float32))
    easy = rng.random(n) < 0.5  # nothing that an embedding would tell
    quality = np.tile((rng.random(n) < np.where(easy, 0.9, 0.3)).astype(float)[:, None], (1, 3))
    quality[~easy, 0] = NAN
    quality[easy, 1] = NAN
    table = OutcomeTable([f"q{q}" for q in range(n)], ["law"] * n, ["a", "b", "c"], quality, np.full((n, 3), NAN))
    told = ExpectedOutcomes(features, table).of(features, ["law"] * n, digests(n)).quality_BM.mean(dim=0)
    assert float((told - told.mean()).abs().max()) < 0.02
    assert float(told.mean()) == pytest.approx(0.6, abs=0.03)


def test_a_domain_that_no_record_has_is_estimated_by_all_records():
    world = World()
    features, table = world.table(500, 11)
    expected = ExpectedOutcomes(features, table)
    new, domains, chance = world.queries(500, 12)
    told = expected.of(new, ["biology"] * 500, digests(500)).quality_BM.numpy()
    assert np.isfinite(told).all()
    np.testing.assert_allclose(told.mean(axis=0), chance.mean(axis=0), atol=0.06)
    mixed = expected.of(new, ["biology", *domains[1:]], digests(500)).quality_BM.numpy()
    np.testing.assert_allclose(mixed[0], told[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1:], expected.of(new, domains, digests(500)).quality_BM.numpy()[1:], atol=1e-6)


def test_expectations_lie_where_outcomes_can():
    features, table = World(seed=2).table(60, 13)
    told = ExpectedOutcomes(features, table).of(*World(seed=2).queries(500, 14)[:2], digests(500)).quality_BM
    assert float(told.min()) >= 0
    assert float(told.max()) <= 1
