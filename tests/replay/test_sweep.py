"""Each point of a sweep is what its weight decides, by the definition of utility that training has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.replay.sweep import sweep

NAN = float("nan")


@pytest.mark.parametrize("against", ["time", "cost"])
@pytest.mark.parametrize("seed", range(4))
def test_a_point_is_what_its_weight_decides(make_log, seed, against):
    rng = np.random.default_rng(seed)
    quality, time_s, cost = rng.random((50, 4)), rng.random((50, 4)) * 9, rng.random((50, 4)) / 100
    log = make_log(quality, time_s=time_s, cost_usd=cost)
    span = 9.5 if against == "time" else 0.01
    points = sweep(log, torch.arange(4), against, span)
    assert points[0].weight == 0
    assert points[-1].weight == 1
    assert [p.weight for p in points] == sorted(p.weight for p in points)
    assert 20 < len(points) <= 42
    price, rows = time_s if against == "time" else cost, np.arange(50)
    for point in points[1:]:
        choice = (point.weight * quality + (1 - point.weight) * (1 - price / span)).argmax(axis=1)
        assert point.quality == pytest.approx(quality[rows, choice].mean(), abs=1e-5)
        assert point.time_s == pytest.approx(time_s[rows, choice].mean(), rel=1e-5)
        assert point.cost_usd == pytest.approx(cost[rows, choice].mean(), rel=1e-5)
        assert list(point.shares.values()) == pytest.approx(list(np.bincount(choice, minlength=4) / 50))


def test_only_candidates_are_chosen(make_log):
    log = make_log([[0.1, 0.9, 0.5]], time_s=[[1, 9, 5]])
    points = sweep(log, torch.tensor([0, 2]), "time", 8.0)
    assert [point.shares for point in points] == [{"m0": 1, "m2": 0}, {"m0": 0, "m2": 1}]
    assert points[-1].cost_usd is None


def test_without_prices_there_is_no_sweep(make_log):
    log = make_log([[0.1, 0.9]], time_s=[[1, NAN]])
    assert sweep(log, torch.arange(2), "time", 1.0) == []
    assert sweep(log, torch.arange(2), "cost", 1.0) == []
