"""A policy's figures by hand."""

from __future__ import annotations

import pytest
import torch

from gpu_select.replay.policies import play_policy

NAN = float("nan")
QUALITY = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]


def test_means_by_model_and_domain(make_log):
    log = make_log(
        QUALITY,
        time_s=[[1, 2]] * 4,
        cost_usd=[[0.5, 2], [0.5, 2], [0.5, 4], [0.5, 4]],
        domains=["law", "math", "law", "law"],
    )
    policy = play_policy(log, "mine", "selector", torch.tensor([0, 1, 1, 1]))
    assert policy.queries == 4
    assert policy.quality == pytest.approx((0.1 + 0.8 + 0.7 + 0.6) / 4)
    assert policy.time_s == pytest.approx(7 / 4)
    assert policy.cost_usd == pytest.approx(10.5 / 4)
    assert [(row.model, row.queries) for row in policy.models] == [("m1", 3), ("m0", 1)]
    assert policy.models[0].quality == pytest.approx(0.7)
    assert policy.models[0].cost_usd == pytest.approx(10 / 3)
    assert [(row.name, row.queries, row.chosen) for row in policy.domains] == [
        ("law", 3, {"m1": 2, "m0": 1}),
        ("math", 1, {"m1": 1}),
    ]
    assert policy.domains[0].quality == pytest.approx((0.1 + 0.7 + 0.6) / 3)
    assert policy.outcomes == []


def test_an_unknown_cost_counts_only_where_its_model_is_chosen(make_log):
    log = make_log(QUALITY, cost_usd=[[0.5, NAN]] * 4, domains=["law", "math", "law", "law"])
    policy = play_policy(log, "mine", "selector", torch.tensor([0, 1, 0, 0]))
    assert policy.cost_usd is None
    assert {row.model: row.cost_usd for row in policy.models} == {"m0": pytest.approx(0.5), "m1": None}
    assert {row.name: row.cost_usd for row in policy.domains} == {"law": pytest.approx(0.5), "math": None}
    assert policy.time_s is None
    assert play_policy(log, "cheap", "single", torch.zeros(4, dtype=torch.long)).cost_usd == pytest.approx(0.5)


def test_a_model_without_queries_has_no_means(make_log):
    policy = play_policy(make_log(QUALITY), "mine", "single", torch.ones(4, dtype=torch.long))
    assert [(row.model, row.queries, row.quality) for row in policy.models] == [
        ("m1", 4, pytest.approx(0.75)),
        ("m0", 0, None),
    ]


def test_outcomes_are_those_of_rows_that_the_same_model_answered(make_log):
    log = make_log(QUALITY, logged=[0, 1, 0, -1], realised={"quality": [1, 0, 1, 1]})
    policy = play_policy(log, "mine", "selector", torch.tensor([0, 1, 1, 1]))
    (found,) = policy.outcomes
    assert (found.figure, found.rows) == ("quality", 2)
    assert (found.expected, found.realised) == pytest.approx(((0.1 + 0.8) / 2, 0.5))


def test_rows_that_are_left_out_do_not_count(make_log):
    log = make_log(QUALITY, logged=[0, -1, 1, -1])
    policy = play_policy(log, "as logged", "logged", log.logged_Q)
    assert policy.queries == 2
    assert policy.quality == pytest.approx((0.1 + 0.7) / 2)
