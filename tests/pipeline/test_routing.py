from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.domains import domain_index
from gpu_select.errors import ConfigError, DeviceError, OutputError
from gpu_select.logs import Row
from gpu_select.pipeline import RouteReport, input_name, route_rows, route_vectors
from gpu_select.pipeline.windows import Keeper, text_in
from gpu_select.router import Routes
from gpu_select.stages import STAGES

MODELS = ("short", "long")


def choose_by_length(texts, domains) -> Routes:
    lengths = np.array([len(text) for text in texts], dtype=np.float32)
    models = [MODELS[int(length > 10)] for length in lengths]
    return Routes(models, lengths, lengths / 2, n_tokens=len({*texts}), n_truncated=1, n_cached=2)


class FakePending(NamedTuple):
    texts: list[str]
    domains: list[str | None]
    choose: Callable[[list[str], list[str | None]], Routes]

    def routes(self) -> Routes:
        return self.choose(self.texts, self.domains)


class FakeRouter:
    """Chooses by length, and remembers what it was asked."""

    def __init__(self, choose=choose_by_length) -> None:
        self.calls: list[tuple[list[str], list[str | None]]] = []
        self.choose = choose

    def prepare(self, texts, domains):
        self.calls.append((list(texts), list(domains)))
        return texts, domains

    def decide(self, prepared, *, times):
        with times.on_device("encode", torch.device("cpu")):
            return FakePending(*prepared, self.choose)


def in_windows(rows, window):
    """Rows (dicts, or error texts) as the windows of a log."""
    log = iter([Row(row) if isinstance(row, dict) else Row({}, row) for row in rows])
    return iter(lambda: list(islice(log, window)), [])


def run(rows, window=4, router=None, **options):
    """Output rows, report and router of one run over rows (dicts, or error texts)."""
    router, out = router or FakeRouter(), []
    report = route_rows(in_windows(rows, window), out.extend, router.prepare, router.decide, **options)
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
    out, _, router = run(rows, find=text_in("text"), domain_fields=("topic",))
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

    out, _, _ = run([{"query": "a"}], router=FakeRouter(only))
    assert out == [{"query": "a", "model": "only", "score": 1.0, "margin": None, "error": None}]


def test_progress_is_told_after_each_window():
    seen = []
    run([{"query": "q"} for _ in range(10)], progress=lambda report: seen.append((report.rows, report.seconds > 0)))
    assert seen == [(4, True), (8, True), (10, True)]


def test_an_empty_log_is_no_error():
    out, report, router = run([])
    assert (out, router.calls) == ([], [])
    assert report.rows == 0


@pytest.mark.parametrize("where", ["prepare", "decide", "routes", "write", "progress"])
def test_what_is_not_a_rows_own_fault_ends_the_run(monkeypatch, where):
    def broken(*arguments, **options):
        raise DeviceError("device cpu: out of memory")

    out, router, owner = [], FakeRouter(), {"routes": FakePending}
    if where in ("prepare", "decide", "routes"):
        monkeypatch.setattr(owner.get(where, FakeRouter), where, broken)
    windows = itertools.repeat([Row({"query": "a"})])
    with pytest.raises(DeviceError):
        route_rows(
            windows,
            broken if where == "write" else out.extend,
            router.prepare,
            router.decide,
            progress=broken if where == "progress" else None,
        )
    assert len(out) == (where == "progress")


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


def test_a_rows_fields_are_left_as_they_are():
    row = {"query": "a", "model": "gpt", "x": [1]}
    run([row])
    assert row == {"query": "a", "model": "gpt", "x": [1]}


def test_rows_of_ever_other_fields_are_kept_right_and_not_remembered():
    rows = [{"query": "a", f"field {n}": n, "model": n} for n in range(3000)]
    rows += [{"query": "a", "long " * 2000: 1}, {"model": 2, "query": "b"}]
    out, report, _ = run(rows, 100)
    assert [row[f"field {n}"] for n, row in enumerate(out[:3000])] == list(range(3000))
    assert [row["input_model"] for row in out[:3000]] == list(range(3000))
    assert out[3000]["long " * 2000] == 1
    assert list(out[3001]) == ["input_model", "query", "model", "score", "margin", "error"]
    assert report.renamed == {"model"}
    keeper = Keeper(None)
    for row in rows:
        keeper.row(row, {})
    assert len(keeper._layouts) <= 1024
    assert max(sum(map(len, layout)) for layout in keeper._layouts) < 10_000


# ---------------------------------------------------------------- overlapping


class SlowRouter(FakeRouter):
    """Takes its time, as told, in every part."""

    def __init__(self, pauses_s) -> None:
        super().__init__()
        self.pauses_s = itertools.cycle(pauses_s)

    def prepare(self, texts, domains):
        time.sleep(next(self.pauses_s))
        return super().prepare(texts, domains)

    def decide(self, prepared, *, times):
        time.sleep(next(self.pauses_s))
        return super().decide(prepared, times=times)


def in_turn(rows, window, write) -> tuple[dict, Exception | None]:
    """What a run comes to, as one loop, row by row, of the plainest kind."""
    counts = {"rows": 0, "errors": 0, "first_error": "", "without_domain": 0, "tokens": 0, "truncated": 0, "cached": 0}
    for chunk in in_windows(rows, window):
        out, texts = [], []
        for row in chunk:
            query = row.fields.get("query")
            domain = row.fields.get("domain") or row.fields.get("category")
            try:
                if row.error is not None:
                    error = row.error
                elif not isinstance(query, str) or not query.strip():
                    found = repr(query) if "query" in row.fields else "no such field"
                    error = f"query: expected a text that is not empty, got {found}"
                else:
                    error = None
                    if domain is not None:
                        domain_index(domain)
            except ConfigError as problem:
                error = str(problem)
            kept = {input_name(name): value for name, value in row.fields.items()}
            if error is None:
                texts.append(query)
                counts["without_domain"] += not domain
                result = {"model": MODELS[len(query) > 10], "score": float(len(query)), "margin": len(query) / 2}
            else:
                counts["errors"] += 1
                counts["first_error"] = counts["first_error"] or f"row {counts['rows'] + len(out) + 1}: {error}"
                result = {"model": None, "score": None, "margin": None}
            out.append(kept | result | {"error": error})
        try:
            write(out)
        except OutputError as problem:
            return counts, problem
        counts["rows"] += len(chunk)
        counts["tokens"] += len({*texts})
        counts["truncated"] += 1
        counts["cached"] += 2
    return counts, None


some_rows = st.one_of(
    st.sampled_from(["line 1: not UTF-8", "line 2: not JSON"]),
    st.fixed_dictionaries(
        {"query": st.sampled_from(["hello", "what is the law?", "", " ", None, 7])},
        optional={
            "domain": st.sampled_from(["law", "maths", "", None]),
            "category": st.sampled_from(["history", "nonsense"]),
            "model": st.integers(),
        },
    ),
)


@given(
    st.lists(some_rows, max_size=30),
    st.integers(1, 7),
    st.lists(st.sampled_from([0, 0, 0.001, 0.003]), min_size=1, max_size=5),
    st.one_of(st.none(), st.integers(0, 12)),
)
@settings(max_examples=150)
def test_any_rows_windows_pauses_and_failures_give_what_one_loop_gives(rows, window, pauses_s, full_after):
    def writer(out, pauses_s=(0,)):
        pauses, n_calls = itertools.cycle(pauses_s), itertools.count()

        def write(lines):
            time.sleep(next(pauses))
            if next(n_calls) == full_after:
                raise OutputError("disk full")
            out.extend(lines)

        return write

    def slow_log():
        for chunk in in_windows(rows, window):
            time.sleep(pauses_s[0])
            yield chunk

    expected, out, told = [], [], []
    counts, error = in_turn(rows, window, writer(expected))
    router = SlowRouter(pauses_s)

    def route():
        return route_rows(
            slow_log(),
            writer(out, pauses_s[::-1]),
            router.prepare,
            router.decide,
            progress=lambda report: told.append(report.rows),
        )

    if error is None:
        report = route()
        assert {name: getattr(report, name) for name in counts} == counts
        assert report.share.total() == counts["rows"] - counts["errors"]
        assert told == [min(n, len(rows)) for n in range(window, len(rows) + window, window)]
    else:
        with pytest.raises(OutputError, match="disk full"):
            route()
    assert out == expected


def test_the_decisions_are_made_in_the_callers_thread_and_the_rest_in_others():
    seen = {}

    class Noting(FakeRouter):
        def prepare(self, texts, domains):
            seen["tokenise"] = threading.current_thread()
            return super().prepare(texts, domains)

        def decide(self, prepared, *, times):
            seen["decide"] = threading.current_thread()
            return super().decide(prepared, times=times)

    def windows():
        seen["read"] = threading.current_thread()
        yield [Row({"query": "a"})]

    def write(_):
        seen["write"] = threading.current_thread()

    router = Noting()
    before = threading.active_count()
    route_rows(windows(), write, router.prepare, router.decide)
    assert seen.pop("decide") is threading.current_thread()
    assert {stage: thread.name for stage, thread in seen.items()} == {
        stage: f"gpu_select {stage}" for stage in ("read", "tokenise", "write")
    }
    assert threading.active_count() == before


def test_the_device_never_has_more_than_two_windows_and_never_waits_for_a_third():
    # a device that works on its own: windows queue up, each takes 20 ms; the host's stages take nearly as long
    busy_s, clock = 0.02, time.perf_counter
    free_at, idle_s, unwritten, most = [0.0], [], set(), [0]

    class Device(FakeRouter):
        def prepare(self, texts, domains):
            time.sleep(0.012)
            return super().prepare(texts, domains)

        def decide(self, prepared, *, times):
            now = clock()
            idle_s.append(max(0.0, now - free_at[0]))
            free_at[0] = max(now, free_at[0]) + busy_s
            unwritten.add(prepared[0][0])
            most[0] = max(most[0], len(unwritten))
            return DevicePending(prepared, free_at[0])

    class DevicePending(NamedTuple):
        prepared: tuple
        done_at: float

        def routes(self):
            time.sleep(max(0.0, self.done_at - clock()))
            return choose_by_length(*self.prepared)

    def windows():
        for n in range(15):
            time.sleep(0.012)
            yield [Row({"query": f"query {n}"})]

    def write(rows):
        time.sleep(0.012)
        unwritten.discard(rows[0]["query"])

    device = Device()
    report = route_rows(windows(), write, device.prepare, device.decide)
    assert most[0] == 2
    assert sorted(idle_s[1:])[len(idle_s) // 2] < 0.005
    in_turn_s = 15 * (3 * 0.012 + busy_s)
    assert report.seconds < 0.75 * in_turn_s


def test_the_time_of_each_stage_is_told_and_together_they_exceed_the_clock():
    def windows():
        for _ in range(8):
            time.sleep(0.02)
            yield [Row({"query": "a"})]

    class Encoding(SlowRouter):
        def decide(self, prepared, *, times):
            with times.host("encode"):
                return super().decide(prepared, times=times)

    router = Encoding([0.02])
    report = route_rows(windows(), lambda _: time.sleep(0.02), router.prepare, router.decide)
    assert list(report.stage_seconds) == list(STAGES)
    for stage in ("read", "tokenise", "encode", "write"):
        assert 0.15 < report.stage_seconds[stage] < report.seconds, stage
    assert report.stage_seconds["transfer"] == 0
    assert sum(report.stage_seconds.values()) > 1.5 * report.seconds


def test_a_slow_log_is_answered_window_by_window():
    written = threading.Event()

    def windows():
        yield [Row({"query": "first"})]
        assert written.wait(30)  # the next rows come only after the first are answered
        yield [Row({"query": "second"})]

    router, out = FakeRouter(), []
    route_rows(windows(), lambda rows: (out.extend(rows), written.set()), router.prepare, router.decide)
    assert [row["query"] for row in out] == ["first", "second"]


def test_a_window_that_is_written_is_held_by_nobody_while_the_log_waits():
    class Rows(list):
        """A list that can be referred to weakly."""

    def windows():
        written = weakref.ref(rows := Rows([Row({"query": "a"})]))
        yield rows
        del rows
        deadline = time.monotonic() + 20
        while written() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    router = FakeRouter()
    assert route_rows(windows(), len, router.prepare, router.decide).rows == 1


def test_a_source_that_waits_is_told_to_stop():
    stop = threading.Event()

    def windows():
        yield [Row({"query": "a"})]
        stop.wait(30)

    def full(_):
        raise OutputError("disk full")

    router = FakeRouter()
    with pytest.raises(OutputError, match="disk full"):
        route_rows(windows(), full, router.prepare, router.decide, on_stop=stop.set)
    assert stop.is_set()


def peak_of_rows(n_rows: int) -> int:
    rows = (Row({"query": f"query number {n}", "id": n}) for n in range(n_rows))
    windows = iter(lambda: list(islice(rows, 500)), [])
    router, pauses_s = FakeRouter(), itertools.chain([0.3], itertools.repeat(0))
    tracemalloc.start()
    # the first write is so slow that all that may be on its way is
    report = route_rows(
        windows, lambda _: time.sleep(next(pauses_s)), lambda texts, domains: (texts, domains), router.decide
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.rows == n_rows
    return peak


def test_memory_does_not_grow_with_the_log():
    peak_of_rows(1_000)
    assert peak_of_rows(40_000) < 1.1 * peak_of_rows(5_000)  # ten windows, of which seven are on their way


# ---------------------------------------------------------------- ready vectors


def decide_by_sum(features):
    totals = np.asarray(features, np.float32).sum(axis=1)
    return Routes([MODELS[int(total > 0)] for total in totals], totals, totals)


def run_vectors(features, **options) -> tuple[list[dict], RouteReport]:
    out: list[dict] = []
    return out, route_vectors(features, out.extend, decide_by_sum, **options)


def test_vectors_come_out_in_order_with_their_number():
    features = np.arange(-7, 8, dtype=np.float64)[:, None]
    seen = []
    out, report = run_vectors(features, window_rows=4, progress=lambda report: seen.append(report.rows))
    assert [row["row"] for row in out] == list(range(15))
    assert [row["model"] for row in out] == ["short"] * 8 + ["long"] * 7
    assert out[-1] == {"row": 14, "model": "long", "score": 7.0, "margin": 7.0, "error": None}
    assert (report.rows, report.errors, seen) == (15, 0, [4, 8, 12, 15])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_vector_that_is_not_finite_keeps_its_place(bad, dtype):
    features = np.ones((11, 3), dtype)
    features[[5, 9], 1] = bad
    out, report = run_vectors(features, window_rows=4)
    assert [row["row"] for row in out if row["model"] is None] == [5, 9]
    assert len(out) == 11
    assert out[5]["error"].startswith("features: expected ")
    assert (report.errors, report.first_error) == (2, f"row 5: {out[5]['error']}")
    assert report.share == {"long": 9}


def test_a_vector_too_large_for_float32_keeps_its_place():
    out, report = run_vectors(np.array([[1.0], [1e300], [1e20]]))
    assert [row["model"] for row in out] == ["long", None, None]
    assert report.errors == 2


@given(st.lists(st.sampled_from([1.0, -1.0, np.nan, np.inf, 1e300]), max_size=20), st.integers(1, 7))
def test_any_vectors_and_windows_give_what_one_loop_gives(values, window_rows):
    out, report = run_vectors(np.array(values, np.float64).reshape(-1, 1), window_rows=window_rows)
    bad = [abs(value) > 1e30 or value != value for value in values]
    models = [None if is_bad else MODELS[value > 0] for value, is_bad in zip(values, bad, strict=True)]
    assert [(row["row"], row["model"]) for row in out] == list(enumerate(models))
    assert (report.rows, report.errors) == (len(values), sum(bad))
    assert report.first_error.startswith(f"row {bad.index(True)}: features: " if any(bad) else "")
    assert report.stage_seconds.keys() == set(STAGES)


def test_no_vectors_are_no_error():
    assert run_vectors(np.empty((0, 3)))[0] == []
