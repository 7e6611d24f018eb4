"""All policies of a replay, the weight that comes nearest to limits, and the document."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpu_select import jsonio
from gpu_select.replay import Limits, SelfCheck, replay

CHECK = SelfCheck(10, 0.5, 0.6, (-0.1, 0.3))


@pytest.fixture
def log(make_log):
    rng = np.random.default_rng(0)
    return make_log(
        rng.random((60, 3)),
        time_s=rng.random((60, 3)) * [1, 5, 9],
        cost_usd=rng.random((60, 3)) * [1, 2, 3],
        domains=["law", "math"] * 30,
        choices={"knn": [0, 1, 2] * 20},
        logged=[0] * 59 + [-1],
        realised={"quality": [1.0] * 60},
    )


def replayed(log, limits=None, **options):
    usual = {"candidates": ("m0", "m1", "m2"), "speed_scale": (0.0, 9.0)}
    return replay(log, CHECK, limits=limits, **(usual | options))


def test_the_policies(log):
    found = replayed(log)
    names = [policy.name for policy in found.policies]
    assert names[:2] == ["as logged", "knn"]
    assert sorted(names[2:5]) == ["always:m0", "always:m1", "always:m2"]
    assert names[5:] == ["best-expected"]
    qualities = [policy.quality for policy in found.policies]
    assert qualities[2:5] == sorted(qualities[2:5], reverse=True)
    assert max(qualities) == qualities[5]
    assert qualities[5] == pytest.approx(float(log.figures["quality"].amax(dim=1).mean()))
    assert found.named("as logged").queries == 59
    assert list(found.sweeps) == ["time", "cost"]
    assert found.sweeps["time"][-1].quality == pytest.approx(qualities[5])
    assert found.limited is found.nearest is None


def test_a_weight_alone_is_its_own_name(log):
    found = replayed(log, Limits(quality_weight=0.25))
    assert found.policies[-1].name == "quality-weight 0.25"
    assert found.nearest is None
    assert found.policies[-1].time_s < found.named("best-expected").time_s


def test_the_nearest_weight_keeps_a_budget_where_one_does(log):
    found = replayed(log, Limits(budget_usd=45.0))
    own, near = found.named("within-limits"), found.nearest
    assert near.keeps_limits
    assert near.point.cost_usd * 60 <= 45
    assert near.point.quality <= own.quality
    better = [p for p in found.sweeps["time"] if p.quality > near.point.quality]
    assert all(p.cost_usd * 60 > 45 for p in better)


def test_where_no_weight_keeps_the_limits_the_most_alike_is_nearest(log):
    found = replayed(log, Limits(max_share={"m0": 5, "m1": 5}))
    assert not found.nearest.keeps_limits
    own = {row.model: row.queries / 60 for row in found.named("within-limits").models}
    distance = {p.weight: sum(abs(share - own[name]) for name, share in p.shares.items()) for p in found.sweeps["time"]}
    assert distance[found.nearest.point.weight] == min(distance.values())


def test_what_is_unknown_is_left_out(make_log):
    found = replayed(make_log([[0.5, 0.6]]), candidates=("m0", "m1"), speed_scale=None)
    assert [policy.name for policy in found.policies] == ["always:m1", "always:m0", "best-expected"]
    assert found.sweeps == {}
    assert found.policies[0].cost_usd is None


def test_the_document_is_json_with_everything(log):
    found = replayed(log, Limits(0.9, 45.0, None, {"m2": 10}))
    document = json.loads(
        jsonio.dumps(found.document(log_file="log.jsonl", data_file="r.jsonl", encoder="e", record_queries=9))
    )
    assert (document["format"], document["version"]) == ("gpu_select.replay", 1)
    assert (document["rows"], document["queries"], document["record_queries"]) == (60, 60, 9)
    assert document["candidates"] == document["models"] == ["m0", "m1", "m2"]
    assert document["limits"]["budget_usd"] == 45
    assert document["limits"]["max_share"] == {"m2": 0.1}
    assert document["limits"]["bound"] >= document["limits"]["utility"]
    assert document["check"] == {"queries": 10, "expected": 0.5, "realised": 0.6, "ci95": [-0.1, 0.3]}
    own = document["policies"][-1]
    assert own["kind"] == "limits"
    assert sum(row["queries"] for row in own["models"]) == sum(row["queries"] for row in own["domains"]) == 60
    assert {row["name"] for row in own["domains"]} == {"law", "math"}
    assert {sweep["against"] for sweep in document["sweeps"]} == {"time", "cost"}
