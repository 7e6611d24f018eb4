from __future__ import annotations

import html
import re

import pytest

from gpu_select.report.summary import summary
from gpu_select.report.validation import read_validation


@pytest.fixture
def said(validation, save):
    """Call after changing `validation`: the summary without its tags."""

    def run():
        return html.unescape(re.sub("<[^>]+>", "", summary(read_validation(save(validation)))))

    return run


def against(document, a, b, difference, low, high):
    pair = next(p for p in document["comparisons"] if {p["a"], p["b"]} == {a, b})
    sign = 1 if pair["a"] == a else -1
    pair.update(difference=sign * difference, ci95=sorted((sign * low, sign * high)))
    strategy = next(s for s in document["strategies"] if s["name"] == a)
    strategy["gain_over_best_single"] = difference


def test_a_gain_that_is_more_than_chance(validation, said):
    against(validation, "svm", "always:qwen2.5-7b", 0.017, 0.002, 0.031)
    assert said().startswith(
        "svm chooses models of mean quality 0.456: 1.7 points above the best single model, qwen2.5-7b "
        "(95 % interval 0.2 to 3.1), 5.5\u00a0% of the gap to the oracle."
    )


def test_a_gain_that_may_be_chance_is_not_claimed(validation, said):
    against(validation, "svm", "always:qwen2.5-7b", 0.017, -0.001, 0.035)
    assert (
        "1.7 points above the best single model, qwen2.5-7b, but not distinguishable from it on these 2,409 queries "
        "(95 % interval \u22120.1 to 3.5)" in said()
    )


def test_a_loss_says_what_would_be_better(validation, said):
    against(validation, "svm", "always:qwen2.5-7b", -0.012, -0.02, -0.004)
    text = said()
    assert "1.2 points below the best single model, qwen2.5-7b (95 % interval 0.4 to 2.0)" in text
    assert "Always choosing that model would be better." in text


def test_the_others_stand_in_points_with_their_intervals(said):
    text = said()
    assert "svm is the best of 4 on these very queries, which flatters it a little." in text
    assert text.endswith("mlp +1.4 (\u22120.4 to 3.2); knn +1.3 (\u22120.5 to 3.1); kmeans +0.6 (\u22121.2 to 2.4).")


def test_the_domain_table_and_chance_are_mentioned(said):
    text = said()
    assert "It is 1.0 points above the best model of each domain, but not distinguishable" in text
    assert "It is 6.4 points above a model drawn by chance (95 % interval 4.6 to 8.2)." in text


def test_without_intervals_there_is_none_to_claim(validation, said):
    validation["comparisons"] = []
    assert "1.7 points above the best single model, qwen2.5-7b (no interval is known)" in said()


def test_without_a_selector(validation, said):
    validation["strategies"] = [s for s in validation["strategies"] if s["kind"] != "selector"]
    validation.update(comparisons=[], domains=[], curves=[], confidence=[])
    assert said() == "No selector was validated; the best single model is qwen2.5-7b, of mean quality 0.439."


def test_without_a_single_model(validation, said):
    validation["strategies"] = [s for s in validation["strategies"] if s["kind"] != "single"]
    validation.update(comparisons=[], domains=[])
    assert said().startswith("svm chooses models of mean quality 0.456.")
