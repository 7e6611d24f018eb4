from __future__ import annotations

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select import pipeline
from gpu_select.errors import DeviceError
from gpu_select.logs import Row
from gpu_select.pipeline import RouteReport, input_name, route_rows, route_vectors
from gpu_select.router import Routes

MODELS = ("short", "long")


def choose_by_length(texts, domains) -> Routes:
    lengths = np.array([len(text) for text in texts], dtype=np.float32)
    models = [MODELS[int(length > 10)] for length in lengths]
    return Routes(models, lengths, lengths / 2, n_tokens=len({*texts}), n_truncated=1, n_cached=2)


class FakeRouter:
    """Chooses by length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str | None]]] = []

    def __call__(self, texts, domains):
        self.calls.append((list(texts), list(domains)))
        return choose_by_length(texts, domains)


def run(rows, window=4, **options):
    """Output rows, report and router of one run over rows (dicts, or error texts)."""
    router, out = FakeRouter(), []
    log = iter([Row(row) if isinstance(row, dict) else Row({}, row) for row in rows])
    windows = iter(lambda: list(islice(log, window)), [])
    report = route_rows(windows, out.extend, router, **options)
    return out, report, router


def test_every_row_comes_out_in_order_with_model_score_and_margin():
    out, report, _ = run([{"query": "x" * n, "n": n} for n in range(1, 23)])
    assert [row["n"] for row in out] == list(range(1, 23))
    assert [row["score"] for row in out] == list(range(1, 23))
    assert out[0] == {"query": "x", "n": 1, "model": "short", "score": 1.0, "margin": 0.5, "error": None}
    assert out[-1]["model"] == "long"
    assert (report.rows, report.errors, report.first_error) == (22, 0, "")
    assert report.share == {"short": 10, "long": 12}


def test_the_counts_of_all_windows_are_added():
    _, report, router = run([{"query": f"q{n % 3}"} for n in range(10)])
    assert [len(texts) for texts, _ in router.calls] == [4, 4, 2]
    assert (report.tokens, report.truncated, report.cached) == (3 + 3 + 2, 3, 6)
    assert report.seconds > 0


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("line 2: not JSON", "line 2: not JSON"),
        ({"query": ""}, "query: expected a text that is not empty, got ''"),
        ({"query": " \n\t"}, "query: expected a text that is not empty, got ' \\n\\t'"),
        ({"query": 7}, "query: expected a text that is not empty, got 7"),
        ({"query": None}, "query: expected a text that is not empty, got None"),
        ({"query": ["a"]}, "query: expected a text that is not empty, got ['a']"),
        ({"text": "hi"}, "query: expected a text that is not empty, got no such field"),
        ({"query": "hi", "domain": "maths"}, "domain: expected one of biology, business, chemistry, "),
        ({"query": "hi", "domain": 3}, "domain: expected one of biology"),
        ({"query": "hi", "domain": ["math"]}, "domain: expected one of biology"),
    ],
)
def test_a_row_that_cannot_be_routed_keeps_its_place(row, text):
    out, report, router = run([{"query": "before"}, row, {"query": "after"}])
    assert [r["model"] for r in out] == ["short", None, "short"]
    kept = row if isinstance(row, dict) else {}
    assert {k: v for k, v in out[1].items() if k != "error"} == {**kept, "model": None, "score": None, "margin": None}
    assert out[1]["error"].startswith(text)
    assert (report.rows, report.errors, report.first_error) == (3, 1, f"row 2: {out[1]['error']}")
    assert router.calls[0][0] == ["before", "after"]


def test_a_window_of_errors_alone_is_written_too():
    out, report, _ = run(["line 1: a", "line 2: b", {"query": "c"}], window=2)
    assert [row["error"] for row in out] == ["line 1: a", "line 2: b", None]
    assert (report.errors, report.first_error) == (2, "row 1: line 1: a")


def test_the_first_error_is_told_with_its_row_in_the_log():
    _, report, _ = run([{"query": "a"}] * 6 + [{"query": ""}, "line 8: not UTF-8"])
    assert report.first_error == "row 7: query: expected a text that is not empty, got ''"


def test_the_domain_is_the_first_field_that_is_there_and_not_empty():
    rows = [
        {"query": "a", "domain": "law", "category": "math"},
        {"query": "b", "domain": "", "category": "math"},
        {"query": "c", "domain": None, "category": "engineering"},
        {"query": "d", "category": "unknown"},
        {"query": "e"},
        {"query": "f", "category": ""},
    ]
    _, report, router = run(rows, window=9)
    assert router.calls[0][1] == ["law", "math", "engineering", "unknown", None, None]
    assert report.without_domain == 2


def test_named_fields_are_used_instead():
    rows = [{"text": "a", "topic": "law", "domain": "nonsense", "query": ""}]
    out, _, router = run(rows, query_field="text", domain_fields=("topic",))
    assert router.calls == [(["a"], ["law"])]
    assert out[0]["domain"] == "nonsense"


def test_only_the_fields_asked_for_are_kept():
    rows = [{"query": "a", "id": 1, "x": 2}, {"query": "b", "id": 2}, "line 3: broken"]
    assert [set(row) for row in run(rows, keep=["x", "id"])[0]] == [
        {"x", "id", "model", "score", "margin", "error"},
        {"id", "model", "score", "margin", "error"},
        {"model", "score", "margin", "error"},
    ]
    assert set(run(rows, keep=[])[0][0]) == {"model", "score", "margin", "error"}


def test_fields_that_carry_an_output_name_are_kept_under_another():
    row = {"query": "a", "model": "gpt", "score": 0.1, "margin": None, "error": "old", "modelx": 1}
    out, report, _ = run([row])
    assert out[0] == {
        "query": "a",
        "input_model": "gpt",
        "input_score": 0.1,
        "input_margin": None,
        "input_error": "old",
        "modelx": 1,
        "model": "short",
        "score": 1.0,
        "margin": 0.5,
        "error": None,
    }
    assert report.renamed == {"model", "score", "margin", "error"}
    out, report, _ = run([row], keep=["model"])
    assert out[0]["input_model"] == "gpt"
    assert report.renamed == {"model"}


def test_routing_a_log_again_and_again_loses_nothing():
    rows = [{"query": "a", "model": 0}]
    for _ in range(3):
        rows = run(rows)[0]
    names = ["model", "input_model", "input_input_model", "input_input_input_model"]
    assert [rows[0][name] for name in names] == ["short", "short", "short", 0]


@given(st.sets(st.from_regex(r"(input_){0,3}(model|score|query|input|_)?", fullmatch=True)))
def test_no_two_fields_are_kept_under_one_name(names):
    assert len({input_name(name) for name in names}) == len(names)
    assert {input_name(name) for name in names}.isdisjoint({"model", "score", "margin", "error"})


def test_a_choice_without_alternative_has_no_margin():
    def only(texts, domains):
        return Routes(["only"] * len(texts), np.ones(len(texts), np.float32), np.full(len(texts), np.inf, np.float32))

    out = []
    route_rows([[Row({"query": "a"})]], out.extend, only)
    assert out == [{"query": "a", "model": "only", "score": 1.0, "margin": None, "error": None}]


def test_progress_is_told_after_each_window():
    seen = []
    run([{"query": "q"} for _ in range(10)], progress=lambda report: seen.append((report.rows, report.seconds > 0)))
    assert seen == [(4, True), (8, True), (10, True)]


def test_an_empty_log_is_no_error():
    out, report, router = run([])
    assert (out, router.calls) == ([], [])
    assert report.rows == 0


def test_what_is_not_a_rows_own_fault_ends_the_run():
    def broken(texts, domains):
        raise DeviceError("device cpu: out of memory")

    with pytest.raises(DeviceError):
        route_rows([[Row({"query": "a"})]], [].extend, broken)


values = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))
a_row = st.one_of(
    st.just("line 1: not UTF-8"),
    st.dictionaries(st.sampled_from(["query", "domain", "category", "model", "error", "x"]), values, max_size=6),
)


@given(st.lists(a_row, max_size=12), st.integers(1, 5))
def test_whatever_the_rows_each_has_a_model_or_an_error(rows, window):
    out, report, _ = run(rows, window)
    assert len(out) == len(rows) == report.rows
    assert report.errors == sum(row["error"] is not None for row in out)
    assert report.share.total() == report.rows - report.errors
    for row, result in zip(rows, out, strict=True):
        assert (result["model"] is None) is (result["score"] is None) is (result["error"] is not None)
        if isinstance(row, dict):
            assert {input_name(name): value for name, value in row.items()}.items() <= result.items() or any(
                isinstance(value, list) for value in row.values()
            )


def peak_of_rows(n_rows: int) -> int:
    rows = (Row({"query": f"query number {n}", "id": n}) for n in range(n_rows))
    windows = iter(lambda: list(islice(rows, 500)), [])
    tracemalloc.start()
    report = route_rows(windows, len, choose_by_length)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.rows == n_rows
    return peak


def test_memory_does_not_grow_with_the_log():
    peak_of_rows(1_000)
    assert peak_of_rows(20_000) < 1.2 * peak_of_rows(2_000)


# ---------------------------------------------------------------- ready vectors


def decide_by_sum(features):
    totals = np.asarray(features, np.float32).sum(axis=1)
    return Routes([MODELS[int(total > 0)] for total in totals], totals, totals)


def run_vectors(features, **options) -> tuple[list[dict], RouteReport]:
    out: list[dict] = []
    return out, route_vectors(features, out.extend, decide_by_sum, **options)


def test_vectors_come_out_in_order_with_their_number(monkeypatch):
    monkeypatch.setattr(pipeline, "WINDOW_ROWS", 4)
    features = np.arange(-7, 8, dtype=np.float64)[:, None]
    seen = []
    out, report = run_vectors(features, progress=lambda report: seen.append(report.rows))
    assert [row["row"] for row in out] == list(range(15))
    assert [row["model"] for row in out] == ["short"] * 8 + ["long"] * 7
    assert out[-1] == {"row": 14, "model": "long", "score": 7.0, "margin": 7.0, "error": None}
    assert (report.rows, report.errors, seen) == (15, 0, [4, 8, 12, 15])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_vector_that_is_not_finite_keeps_its_place(monkeypatch, bad, dtype):
    monkeypatch.setattr(pipeline, "WINDOW_ROWS", 4)
    features = np.ones((11, 3), dtype)
    features[[5, 9], 1] = bad
    out, report = run_vectors(features)
    assert [row["row"] for row in out if row["model"] is None] == [5, 9]
    assert len(out) == 11
    assert out[5]["error"].startswith("features: expected ")
    assert (report.errors, report.first_error) == (2, f"row 5: {out[5]['error']}")
    assert report.share == {"long": 9}


def test_a_vector_too_large_for_float32_keeps_its_place():
    out, report = run_vectors(np.array([[1.0], [1e300], [1e20]]))
    assert [row["model"] for row in out] == ["long", None, None]
    assert report.errors == 2


def test_no_vectors_are_no_error():
    assert run_vectors(np.empty((0, 3)))[0] == []
