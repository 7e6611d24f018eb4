"""The user's limits: what is asked for, what is kept, and each mistake in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.errors import ConfigError, DataError
from gpu_select.replay.limits import Limits, keep_limits

NAN = float("nan")


@pytest.fixture
def log(make_log):
    rng = np.random.default_rng(0)
    return make_log(
        rng.random((40, 3)), time_s=rng.random((40, 3)) * [1, 5, 9], cost_usd=rng.random((40, 3)) * [1, 2, 3]
    )


def kept(log, limits, candidates=("m0", "m1", "m2"), speed_scale=(0.0, 9.0)):
    return keep_limits(log, candidates, limits, speed_scale)


def test_every_problem_at_once():
    with pytest.raises(ConfigError) as caught:
        Limits(1.5, -1.0, 2.0, {"m0": 120.0})
    assert str(caught.value) == (
        "quality-weight: expected a number in [0, 1], got 1.5; budget: expected USD, a number >= 0, got -1.0; "
        "budget-per-1000: expected one of the two budgets, got 2.0; "
        "max-share of m0: expected percent, a number in [0, 100], got 120.0"
    )


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_budget_is_a_number(value):
    with pytest.raises(ConfigError, match="budget: expected USD, a number >= 0"):
        Limits(budget_usd=value)


def test_a_budget_for_1000_rows_is_that_of_the_log():
    assert Limits(budget_per_1000_usd=5.0).usd(40) == pytest.approx(0.2)
    assert Limits(budget_usd=5.0).usd(40) == 5.0
    assert Limits().usd(40) is None


def test_budget_and_shares_are_kept(log):
    found = kept(log, Limits(budget_per_1000_usd=500.0, max_share={"m0": 50, "m2": 12.5}))
    counts = torch.bincount(found.choice_Q, minlength=3).tolist()
    assert counts[0] <= 20
    assert counts[2] <= 5
    assert float(log.figures["cost_usd"].gather(1, found.choice_Q[:, None]).sum()) <= 20 * (1 + 1e-6)
    assert found.utility <= found.bound < float(log.figures["quality"].amax(dim=1).mean())


def test_the_weight_is_that_of_training(log):
    found = kept(log, Limits(quality_weight=0.3))
    quality, time_s = (log.figures[name].double() for name in ("quality", "time_s"))
    utility = 0.3 * quality + 0.7 * (1 - time_s / 9)
    assert torch.equal(found.choice_Q, utility.argmax(dim=1))
    assert found.utility == pytest.approx(float(utility.amax(dim=1).mean()))


def test_candidates_alone_are_chosen(log):
    found = kept(log, Limits(max_share={"m2": 50}), candidates=("m2", "m1"))
    assert set(found.choice_Q.tolist()) == {1, 2}
    assert (found.choice_Q == 2).sum() <= 20


def test_a_limit_for_a_stranger_is_refused(log):
    with pytest.raises(ConfigError, match="max-share: expected one of the candidates m0, m1, got 'm2'"):
        kept(log, Limits(max_share={"m2": 50}), candidates=("m0", "m1"))


def test_a_budget_needs_costs(make_log):
    log = make_log([[0.5, 0.6, 0.7]], cost_usd=[[1, NAN, 2]])
    text = "budget: needs costs: prices in --models-config, tokens in the records, and has none for m1; name the others"
    with pytest.raises(DataError, match=text):
        kept(log, Limits(budget_usd=1.0))
    assert kept(log, Limits(budget_usd=1.0), candidates=("m0", "m2")).choice_Q.tolist() == [0]


def test_a_weight_needs_times(make_log):
    log = make_log([[0.5, 0.6]], time_s=[[1, NAN]])
    with pytest.raises(DataError, match="needs response_time in the records, and has none for m1"):
        keep_limits(log, ("m0", "m1"), Limits(quality_weight=0.5), (0.0, 1.0))
    with pytest.raises(DataError, match="quality-weight: expected 1 where the records have no different response_time"):
        keep_limits(log, ("m0", "m1"), Limits(quality_weight=0.5), None)
