"""What the page holds, as far as that can be seen without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>${7*7}{{7*7}}%{x}</b>"


def charts_of(page):
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)[1])


def without_scripts(page):
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_everything_is_within_and_small_enough(page, validation, tuning):
    text = page(validation, tuning)
    assert len(text.encode()) < 6_000_000
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b|\bsrc=|@import|url\(", without_scripts(text))
    for heading in (
        "Strategies",
        "Quality by domain",
        "Chosen models by domain",
        "Quality against cost and latency",
        "Confidence",
        "Comparisons",
    ):
        assert f"<h3>{heading}</h3>" in text
    assert text.count("<h1>") == 1
    assert "12 queries that the selectors were trained on" in text
    assert "What is the derivative of x^2?" in text


def test_the_policy_lets_exactly_these_scripts_run_and_nothing_be_fetched(page, validation):
    text = page(validation)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#x27;", "'")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data:"
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert len(scripts) == 2
    assert set(rules["script-src"].split()) == hashes


def test_there_is_a_chart_a_selector_where_that_belongs(page, validation, tuning):
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page(validation, tuning))
    assert len(labels) == len(charts_of(page(validation, tuning))) == 1 + 4 + 2 + 4 + 3 + 2 + 2 + 2
    assert sum("models that" in label for label in labels) == 4
    assert sum("by margin" in label for label in labels) == 4
    assert sum("Gain over the best single model by" in label for label in labels) == 9


def test_plotly_knows_every_setting(page, validation, tuning, check_with_plotly):
    for chart in charts_of(page(validation, tuning)):
        check_with_plotly(chart)


def test_a_colour_is_a_name_of_the_style_sheet_and_no_text_is(page, validation, tuning):
    text = page(validation, tuning)
    defined = set(re.findall(r"(--[\w-]+):", text))
    used = set(re.findall(r'"(--[\w-]+)"', json.dumps(charts_of(text))))
    assert {"--s0", "--m0", "--ink"} <= used <= defined


@pytest.mark.parametrize("place", ["strategy", "model", "domain", "encoder", "data_file", "example", "tuning"])
def test_hostile_names_stay_texts(page, validation, tuning, place, make_validation):
    if place == "strategy":
        text = json.dumps(validation).replace('"svm"', json.dumps(HOSTILE))
        validation = json.loads(text)
    elif place == "model":
        validation = make_validation([HOSTILE, "other"])
    elif place == "domain":
        validation = make_validation(["a", "b"], [(HOSTILE, 10), ("math", 20)])
    elif place == "example":
        validation["left_out"]["examples"] = [HOSTILE]
    elif place == "tuning":
        tuning = json.loads(json.dumps(tuning).replace('"n_neighbors"', json.dumps(HOSTILE)))
    else:
        validation[place] = HOSTILE
    text = page(validation, tuning)
    assert HOSTILE not in text
    assert "<img" not in without_scripts(text)
    assert text.count("</script>") == 3
    for chart in charts_of(text):
        assert "<img" not in json.dumps(chart)


def test_what_is_unknown_is_said_and_not_drawn(page, validation):
    for strategy in validation["strategies"]:
        strategy.update(mean_cost_usd=None, mean_latency_s=None)
    validation.update(curves=[], confidence=[], domains=[], comparisons=[])
    validation["left_out"] = {"in_training": 0, "examples": []}
    text = page(validation)
    assert "Costs are not known: the records need costs, or token counts and prices" in text
    assert "Latencies are not known: the records have no response times." in text
    assert "The file does not tell the margins of the decisions." in text
    assert "The file has no domains" in text
    assert "The file holds no comparisons." in text
    assert "<dd>no query</dd>" in text
    assert charts_of(text) == []
    assert "USD / 1,000" not in text
    assert "Latency" not in without_scripts(text)
    assert len(text) < 100_000  # without charts, no library


def test_cost_alone_is_drawn_alone(page, validation):
    for strategy in validation["strategies"]:
        strategy["mean_latency_s"] = None
    validation["curves"] = [curve for curve in validation["curves"] if curve["against"] == "cost"]
    text = page(validation)
    assert "Latencies are not known" in text
    assert "Quality against cost<" in text
    assert "Quality against latency<" not in text


def test_several_files_make_several_sections(page, validation, tuning):
    other = {**validation, "data_file": "other.jsonl"}
    text = page(validation, other, tuning)
    assert re.findall(r'<h2 id="([^"]+)">([^<]+)', text) == [
        ("validation-1", "Validation on mmlu_pro_dev.jsonl.gz"),
        ("validation-2", "Validation on other.jsonl"),
        ("tuning-1", "Tuning on mmlu_pro_train.jsonl.gz"),
    ]
    assert '<a href="#validation-2">Validation on other.jsonl</a>' in text
    assert re.findall(r"Figure (\d+)\. ", text) == [str(i) for i in range(1, 13)]


def test_significant_pairs_are_marked_both_ways(page, validation):
    for pair in validation["comparisons"]:
        if {pair["a"], pair["b"]} == {"svm", "knn"}:
            sign = 1 if pair["a"] == "svm" else -1
            pair.update(difference=sign * 0.02, ci95=sorted((sign * 0.01, sign * 0.03)))
    text = page(validation)
    assert 'title="svm - knn: +2.0 points, 95 % interval 1.0 to 3.0">+2.0 ▲</td>' in text
    assert 'title="knn - svm: \u22122.0 points, 95 % interval \u22123.0 to \u22121.0">\u22122.0 ▼</td>' in text
    assert 'class="same" title="svm - mlp: +0.3 points' in text


def test_the_chosen_trial_is_ringed_and_its_settings_are_shown(page, tuning):
    text = page(tuning)
    chosen = next(t for t in tuning["trials"] if t["chosen"] and t["algorithm"] == "kmeans")
    clusters = chosen["settings"]["n_clusters"]
    assert f"n_clusters = {clusters}, shrinkage = {chosen['settings']['shrinkage']}" in text
    chart = charts_of(text)[3]
    ring = next(t for t in chart["data"] if t["marker"].get("symbol") == "circle-open")
    assert chart["layout"]["xaxis"]["ticktext"][ring["x"][0]] == str(clusters)
    assert ring["y"][0] == pytest.approx(100 * chosen["gain"])
    assert "Everywhere kernel = rbf." in text


def test_the_same_files_make_the_same_page(page, validation, tuning):
    assert page(validation, tuning) == page(validation, tuning)


def test_many_models_and_domains_stay_drawable(page, make_validation):
    models, domains = [f"model-{i}" for i in range(23)], [(f"domain {i}", 5 + i) for i in range(50)]
    text = page(make_validation(models, domains))
    assert "The 30 largest of 50 domains." in text
    assert len(text.encode()) < 6_000_000
