"""Domains, confidence, and the JSON document that carries everything."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from gpu_select import jsonio
from gpu_select.evaluation import Selection, Validation, by_domain, confidence, play, validate
from gpu_select.records import OutcomeTable

NAN = float("nan")


def case(n_queries=200, seed=0, holes=0.0) -> tuple[OutcomeTable, dict[str, Selection]]:
    """Scores that know something: the margin is large where the choice is good."""
    rng = np.random.default_rng(seed)
    expected = rng.random((n_queries, 3))
    quality = (rng.random(expected.shape) < expected).astype(float)
    quality[rng.random(quality.shape) < holes] = NAN
    quality[:3] = 0.5
    scores = expected.astype(np.float32)
    best = np.sort(scores, axis=1)
    selection = Selection(scores.argmax(axis=1), best[:, -1] - best[:, -2], scores)
    table = OutcomeTable(
        [f"query {q}" for q in range(n_queries)],
        [("law", "math", "health")[q % 3] for q in range(n_queries)],
        ["a", "b", "c"],
        quality,
        np.tile([1.0, 2.0, 3.0], (n_queries, 1)),
        cost_usd_QM=np.tile([0.3, 0.1, 0.2], (n_queries, 1)),
    )
    return table, {"knn": selection, "svm": Selection(selection.choice_Q[::-1].copy(), selection.margin_Q, scores)}


@pytest.fixture(scope="module")
def found() -> Validation:
    table, selections = case(holes=0.1)
    return validate(table, selections)


def test_domains_sum_up_to_the_whole(found):
    table, selections = case(holes=0.1)
    assert [row.name for row in found.domains] == ["health", "law", "math"]
    assert sum(row.queries for row in found.domains) == 200
    for row in found.domains:
        rows = np.array([domain == row.name for domain in table.domains])
        assert row.queries == rows.sum()
        for name, selection in selections.items():
            assert row.quality[name] == pytest.approx(
                np.nanmean(table.quality_QM[rows, selection.choice_Q[rows]]), abs=1e-12
            )
            counts = {model: int((selection.choice_Q[rows] == m).sum()) for m, model in enumerate(table.models)}
            assert row.chosen[name] == {model: n for model, n in counts.items() if n}
            assert list(row.chosen[name].values()) == sorted(row.chosen[name].values(), reverse=True)


def test_a_strategy_without_outcomes_in_a_domain_has_no_quality_there():
    table = OutcomeTable(["p", "q"], ["law", "math"], ["a", "b"], np.array([[1.0, NAN], [0.5, 0.4]]), np.ones((2, 2)))
    law, math_ = by_domain(play(table, {}), {})
    assert (law.quality["always:b"], math_.quality["always:b"]) == (None, 0.4)


def test_confidence_has_ten_bins_of_equal_counts_that_cover_all(found):
    table, selections = case()
    bins = confidence(play(table, {"knn": selections["knn"].choice_Q}), "knn", selections["knn"])
    assert [b.queries for b in bins] == [20] * 10
    assert all(low.margin[1] < high.margin[0] for low, high in pairwise(bins))
    assert all(b.ci95[0] <= b.quality <= b.ci95[1] for b in bins)
    overall = table.quality_QM[np.arange(200), selections["knn"].choice_Q].mean()
    assert np.mean([b.quality for b in bins]) == pytest.approx(overall)
    assert bins[-1].quality > bins[0].quality  # it knows when it knows


def test_a_bin_is_compared_on_its_own_queries():
    quality = np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 9)
    margin = np.repeat([1.0, 2.0], [10, 9]).astype(np.float32)
    choice = np.repeat([0, 1], [10, 9])
    table = OutcomeTable([str(q) for q in range(19)], ["law"] * 19, ["a", "b"], quality, np.ones((19, 2)))
    selection = Selection(choice, margin, np.zeros((19, 2), np.float32))
    low, high = confidence(play(table, {"knn": choice}), "knn", selection)
    assert (low.margin, low.queries, low.quality, low.best_single_quality, low.ci95) == ((1, 1), 10, 1.0, 1.0, (1, 1))
    assert (high.margin, high.queries, high.quality, high.best_single_quality) == ((2, 2), 9, 1.0, 0.0)


def test_without_a_runner_up_there_is_no_confidence():
    table, selections = case()
    endless = Selection(selections["knn"].choice_Q, np.full(200, np.inf, np.float32), selections["knn"].scores_QM)
    assert confidence(play(table, {"knn": endless.choice_Q}), "knn", endless) == []
    assert "knn" not in validate(table, {"knn": endless}).confidence


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_the_document_is_plain_json_of_finite_numbers(found):
    left_out = ["x" * 200, "y"] + [f"z{i}" for i in range(9)]
    document = found.document(data_file="d.jsonl", encoder="minilm", left_out=left_out)
    assert list(document) == [
        *("format", "version", "data_file", "encoder", "queries", "models", "left_out"),
        *("strategies", "comparisons", "domains", "curves", "confidence"),
    ]
    assert (document["format"], document["version"]) == ("gpu_select.validation", 1)
    assert document["left_out"] == {"in_training": 11, "examples": ["x" * 80, "y", "z0", "z1", "z2"]}
    assert all(math.isfinite(value) for value in numbers(document))
    read = json.loads(jsonio.dumps(document))
    assert set(read["strategies"][0]) == {
        *("name", "kind", "mean_quality", "ci95", "mean_latency_s", "mean_cost_usd", "best_rate", "n_scored"),
        *("gain_over_random", "gain_over_best_single", "gap_share", "shares"),
    }
    assert set(read["comparisons"][0]) == {"a", "b", "difference", "ci95"}
    assert set(read["domains"][0]) == {"name", "queries", "quality", "chosen"}
    assert [(c["strategy"], c["against"]) for c in read["curves"]] == [
        *(("knn", "cost"), ("knn", "latency"), ("svm", "cost"), ("svm", "latency"))
    ]
    assert set(read["curves"][0]["points"][0]) == {"weight", "quality", "cost_usd", "latency_s", "shares"}
    assert [entry["strategy"] for entry in read["confidence"]] == ["knn", "svm"]
    assert set(read["confidence"][0]["bins"][0]) == {"margin", "queries", "quality", "best_single_quality", "ci95"}


def test_a_difference_is_found_either_way_round(found):
    forth = found.difference("knn", "random")
    back = found.difference("random", "knn")
    assert (forth.difference, forth.ci95) == (-back.difference, (-back.ci95[1], -back.ci95[0]))
    assert found.difference("knn", "nobody") is None


def test_what_is_left_out_of_the_table_is_out_of_everything():
    table, selections = case()
    rows = np.arange(0, 200, 2)
    part = {name: Selection(s.choice_Q[rows], s.margin_Q[rows], s.scores_QM[rows]) for name, s in selections.items()}
    assert len(validate(table.take(rows), part).table.queries) == 100


def test_one_query_and_one_model():
    table = OutcomeTable(["q"], ["law"], ["a"], np.array([[0.5]]), np.array([[NAN]]))
    selection = Selection(np.array([0]), np.array([np.inf], np.float32), np.array([[1.0]], np.float32))
    document = validate(table, {"knn": selection}).document(data_file="d", encoder="e", left_out=[])
    assert {s["mean_quality"] for s in document["strategies"]} == {0.5}
    assert (document["curves"], document["confidence"]) == ([], [])
