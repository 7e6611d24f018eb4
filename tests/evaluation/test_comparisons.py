"""Two strategies on the same queries: a small steady difference counts, a lucky one does not."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_select.evaluation import Comparison, compare, evaluate, play
from gpu_select.records import OutcomeTable

NAN = float("nan")


def table_of(quality) -> OutcomeTable:
    quality = np.array(quality, dtype=float)
    n_queries, n_models = quality.shape
    queries, models = [f"q{q}" for q in range(n_queries)], list("abcd")[:n_models]
    return OutcomeTable(queries, ["law"] * n_queries, models, quality, np.full(quality.shape, NAN))


def pairs(table, **options) -> dict[tuple[str, str], Comparison]:
    return {(found.a, found.b): found for found in compare(play(table, {}), **options)}


def test_every_pair_once_and_its_mean_difference():
    table = table_of(np.random.default_rng(0).random((50, 3)))
    names = [s.name for s in evaluate(table, {})]
    found = pairs(table)
    assert list(found) == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    means = {s.name: s.mean_quality for s in evaluate(table, {})}
    for (a, b), comparison in found.items():
        assert comparison.difference == pytest.approx(means[a] - means[b])
        assert comparison.ci95[0] <= comparison.difference <= comparison.ci95[1]


def test_pairing_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(0)
    base = rng.random(400) * 0.9
    table = table_of(np.stack([base + 0.02 + 0.01 * rng.random(400), base], axis=1))
    a, b = (next(s for s in evaluate(table, {}) if s.name == f"always:{name}") for name in "ab")
    assert a.ci95[0] < b.ci95[1]  # they overlap
    found = pairs(table)["always:a", "always:b"]
    assert found.is_significant
    assert 0.02 <= found.ci95[0] <= found.ci95[1] <= 0.03


def test_chance_is_no_difference():
    quality = (np.random.default_rng(1).random((300, 2)) < 0.5).astype(float)
    found = pairs(table_of(quality))
    name = next(pair for pair in found if set(pair) == {"always:a", "always:b"})
    assert not found[name].is_significant
    assert found[name].difference != 0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        quality = (rng.random((150, 2)) < [0.6, 0.5]).astype(float)
        found = pairs(table_of(quality), seed=seed)
        sign = 1 if ("always:a", "always:b") in found else -1
        comparison = found[("always:a", "always:b") if sign == 1 else ("always:b", "always:a")]
        low, high = sorted(sign * bound for bound in comparison.ci95)
        hits += low <= 0.1 <= high
    assert 52 <= hits <= 60  # 57 expected


def test_a_pair_counts_the_queries_that_both_have():
    table = table_of([[1.0, 0.0, NAN], [1.0, NAN, 0.5], [0.0, 0.5, NAN], [0.2, NAN, NAN]])
    found = pairs(table)
    a_b = found["always:a", "always:b"]
    assert a_b.difference == pytest.approx((1.0 - 0.0 + 0.0 - 0.5) / 2)
    assert ("always:b", "always:c") not in found
    assert ("always:c", "always:b") not in found
