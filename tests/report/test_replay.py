"""The part of the page on a replay: read as written, drawn whole, unmoved by odd names and missing figures."""

from __future__ import annotations

import json
import re

import pytest

from gpu_select.errors import FileFormatError
from gpu_select.report.replay import read_replay

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"


def charts_of(text: str) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', text)[1])


def without_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_it_is_read_as_it_was_written(replay, save):
    read = read_replay(save(replay))
    assert (read.queries, read.record_queries, read.queries_in_records) == (2409, 4976, 17)
    assert [p.name for p in read.of_kind("limits")] == ["within-limits"]
    assert read.of_kind("single")[0].model == "qwen2.5-7b"
    own = replay["policies"][-1]
    assert read.policies[-1].domains[3].chosen == own["domains"][3]["chosen"]
    assert read.policies[0].outcome("time_s").realised == 0.43
    assert read.policies[-1].outcome("quality") is None
    assert [sweep.against for sweep in read.sweeps] == ["time", "cost"]
    assert read.limits.nearest.weight == 0.625
    assert read.check.ci95 == (-0.0128, 0.0137)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["policies"].clear(), "policies: expected at least one policy, got []"),
        (lambda d: d["policies"].append(d["policies"][0]), "name: expected no policy twice, got 'as logged'"),
        (lambda d: d["policies"][1].update(quality=1.5), "policies[1].quality: expected a number in [0, 1]"),
        (lambda d: d["policies"][1].update(kind="guess"), "policies[1].kind: expected one of logged, selector"),
        (lambda d: d["sweeps"][0].update(against="luck"), "sweeps[0].against: expected one of time, cost"),
        (lambda d: d["limits"].update(nearest=3), "limits.nearest: expected an object, got 3"),
        (lambda d: d.pop("check"), "check: expected an object, got nothing: the field is missing"),
    ],
)
def test_what_is_wrong_is_one_line(replay, save, change, text):
    change(replay)
    path = save(replay)
    with pytest.raises(FileFormatError) as caught:
        read_replay(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)


def test_the_section_says_it_all(page, replay):
    text = page(replay)
    assert '<h2 id="replay-1">Replay of august.jsonl.gz</h2>' in text
    own, logged = replay["policies"][-1], replay["policies"][0]
    assert f"<b>within-limits</b> is expected to reach a quality of {own['quality']:.3f}" in text
    gain = f"{100 * (own['quality'] - logged['quality']):+.1f}"
    assert f"{gain} points against as logged" in text
    for heading in ("Policies", "Expected quality against cost and time", "Shares of the models"):
        assert f"<h3>{heading}</h3>" in text
    assert "at most 0.750 USD; at most 10.0\N{NO-BREAK SPACE}% to qwen2.5-7b" in text
    assert "train --quality-weight 0.625, which keeps the limits" in text
    assert "17 queries, estimated without their own outcomes" in text
    assert "no more than chance apart" in text
    assert "0.430 on 400" in text


def test_there_are_charts_of_both_prices_their_shares_and_each_policy(page, replay):
    charts = charts_of(page(replay))
    assert len(charts) == 2 + 2 + 6
    cost, time_s, areas = charts[0], charts[1], charts[2]
    assert cost["layout"]["xaxis"]["title"]["text"] == "expected cost, US dollars per 1,000 queries"
    assert time_s["layout"]["xaxis"]["title"]["text"] == "expected time, seconds"
    line = cost["data"][0]
    assert line["y"] == [point["quality"] for point in replay["sweeps"][1]["points"]]
    star = next(trace for trace in cost["data"] if trace.get("marker", {}).get("symbol") == "star")
    assert star["x"] == pytest.approx([1000 * replay["policies"][-1]["cost_usd"]])
    stacks = [trace["y"] for trace in areas["data"]]
    assert [sum(column) for column in zip(*stacks, strict=True)] == pytest.approx([1.0] * 40)


def test_plotly_knows_every_setting(page, replay, check_with_plotly):
    for chart in charts_of(page(replay)):
        check_with_plotly(chart)


def test_what_is_unknown_is_said_and_not_drawn(page, replay):
    for policy in replay["policies"]:
        for row in (policy, *policy["models"], *policy["domains"]):
            row.update(time_s=None, cost_usd=None)
        policy["outcomes"] = []
    replay.update(sweeps=[], limits=None, queries_in_records=0)
    text = page(replay)
    assert "Costs are not known: the records need costs or output tokens of all candidates" in text
    assert "Times are not known: the records have no response times" in text
    assert "Logged quality" not in without_scripts(text)
    assert "Limits" not in without_scripts(text)
    assert len(charts_of(text)) == 6


def test_costs_alone_are_drawn_alone(page, replay):
    for policy in replay["policies"]:
        policy["time_s"] = None
    replay["sweeps"] = replay["sweeps"][1:]
    charts = charts_of(page(replay))
    assert [c["layout"]["xaxis"]["title"]["text"] for c in charts[:2]] == [
        "expected cost, US dollars per 1,000 queries"
    ] * 2


@pytest.mark.parametrize("place", ["model", "domain", "policy", "log_file", "encoder"])
def test_hostile_names_stay_texts(page, replay, make_replay, place):
    if place == "model":
        replay = make_replay([HOSTILE, "other"])
    elif place == "domain":
        replay = make_replay(["a", "b"], [(HOSTILE, 10), ("math", 20)])
    elif place == "policy":
        replay = json.loads(json.dumps(replay).replace('"svm"', json.dumps(HOSTILE)))
    else:
        replay[place] = HOSTILE
    text = page(replay)
    assert HOSTILE not in text
    assert "<img" not in without_scripts(text)
    assert text.count("</script>") == 3


def test_it_stands_beside_the_others(page, validation, tuning, replay):
    text = page(validation, tuning, replay)
    assert re.findall(r'<h2 id="([^"]+)">', text) == ["validation-1", "tuning-1", "replay-1"]
    assert '<a href="#replay-1">Replay of august.jsonl.gz</a>' in text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_drawn_whole_and_fits(browser, page, replay, tmp_path, width, dark):
    path = tmp_path / "opened.html"
    path.write_text(page(replay), encoding="utf-8")
    with browser.page() as tab:
        tab.open(path, width=width, dark=dark)
        assert tab.seen.errors == []
        assert tab.run("document.documentElement.dataset.faults") is None
        drawn = tab.run("[...document.querySelectorAll('.chart')].map(b => b.querySelectorAll('.trace').length)")
        assert len(drawn) == 10
        assert all(drawn)
        assert tab.run("document.documentElement.scrollWidth") == width
