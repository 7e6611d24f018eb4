from __future__ import annotations

import numpy as np
import pytest

from gpu_select.benchmark.summary import ModelSummary, summarise, summary_table


def answer(query, model, **more):
    return {"query": query, "model_name": model, "response": "x"} | more


def test_a_model_on_the_queries_of_this_run():
    rng = np.random.default_rng(0)
    times, scores = rng.exponential(size=41), rng.integers(0, 2, 41)
    records = [
        answer(
            f"q{i}",
            "a",
            performance=int(scores[i]) if i % 2 else float(scores[i]),
            response_time=times[i],
            time_to_first_token=times[i] / 7,
            input_tokens=i,
            output_tokens=2 * i,
            cost=i / 1e6,
            finish_reason="length" if i < 3 else "stop",
        )
        for i in range(41)
    ]
    records += [
        answer("q41", "a", response_time=9.0, unscored="no ground_truth"),
        {"query": "q42", "model_name": "a", "error": "HTTP 500"},
        {"query": "q43", "model_name": "a", "error": "HTTP 400: no"},
        {"query": "q44", "model_name": "a", "error": "HTTP 400: no"},
        answer("elsewhere", "a", performance=0.0),
        answer("q1", "other", performance=0.0),
    ]
    (found,) = summarise(records, ["a"], {f"q{i}" for i in range(50)}, {"a": "HTTP 500"})
    all_times = [*times, 9.0]
    assert found == ModelSummary(
        "a",
        queries=50,
        answered=42,
        scored=41,
        failed=3,
        missing=5,
        cut_at_max_tokens=3,
        mean_performance=pytest.approx(scores.mean()),
        median_response_time=pytest.approx(np.median(all_times)),
        p95_response_time=pytest.approx(np.quantile(all_times, 0.95)),
        median_time_to_first_token=pytest.approx(np.median(times) / 7),
        p95_time_to_first_token=pytest.approx(np.quantile(times, 0.95) / 7),
        input_tokens=820,
        output_tokens=1640,
        cost_usd=pytest.approx(820e-6),
        usual_error="HTTP 400: no",
        stopped="HTTP 500",
    )


def test_nothing_is_known_of_a_model_that_was_not_called():
    assert summarise([], ["a"], {"q"}, {}) == [ModelSummary("a", queries=1, missing=1)]


def test_a_query_that_another_tool_asked_twice_is_answered_once():
    records = [answer("q", "a", performance=1.0), answer("q", "a", performance=0.0, response="y")]
    (found,) = summarise(records, ["a"], {"q", "p"}, {})
    assert (found.answered, found.missing, found.scored, found.mean_performance) == (1, 1, 2, 0.5)


def test_of_one_answer():
    (found,) = summarise([answer("q", "a", performance=1.0, response_time=0.5)], ["a"], {"q"}, {})
    assert (found.median_response_time, found.p95_response_time) == (0.5, 0.5)


def test_records_of_other_tools_may_hold_anything():
    record = answer("q", "a", performance=0.5, response_time="fast", cost=None, input_tokens=[1])
    (found,) = summarise([record], ["a"], {"q"}, {})
    assert (found.scored, found.median_response_time, found.cost_usd, found.input_tokens) == (1, None, None, None)


def test_the_table_has_the_columns_that_say_something():
    short = ModelSummary("a", 10, answered=10, scored=10, mean_performance=0.12345, median_response_time=0.0123)
    assert summary_table([short]) == [
        "model  answered  scored  performance  time p50",
        "a         10/10      10       0.1235    12.3ms",
    ]
    full = ModelSummary(
        "b" * 40, 10, 7, 6, 2, 1, 3, 1.0, 61.234, 123.4, 1.5, 2.5, 1_234_567, 89, 12.3456, "HTTP 500", "HTTP 500"
    )
    lines = summary_table([short, full])
    titles = "model answered scored performance time p50 p95 first token p50 tokens in out cut USD failed missing"
    assert " ".join(lines[0].split()) == titles
    assert lines[2].split() == [
        *(f"{'b' * 29}...", "7/10", "6", "1.0000", "61.2s", "123s", "1.5s", "1,234,567", "89", "3", "12.35", "2", "1")
    ]
    assert max(map(len, lines)) <= 150
    assert len({len(line) for line in lines}) == 1


def test_an_integer_beyond_all_floats_counts_as_unknown():
    (found,) = summarise([answer("q", "a", performance=1, input_tokens=10**400)], ["a"], {"q"}, {})
    assert (found.answered, found.mean_performance, found.input_tokens) == (1, 1.0, None)
