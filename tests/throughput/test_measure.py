from __future__ import annotations

import importlib
import json

import pytest

from gpu_select.errors import ConfigError, DataError
from gpu_select.stages import STAGES
from gpu_select.throughput import (
    Roof,
    Throughput,
    as_dict,
    cut_queries,
    flops_per_token,
    measure,
    random_router,
    read_corpus,
    route_file,
    table,
    write_log,
)

MODULE = importlib.import_module("gpu_select.throughput.measure")  # the package has a function of this name

ROOF = Roof(1e9, (1, 2, 3), "float32")


@pytest.fixture(scope="module")
def router(random_tiny):
    return random_router(random_tiny, "knn", 40)


@pytest.fixture(scope="module")
def queries(random_tiny):
    return cut_queries(read_corpus(500_000), random_tiny.tokenizer, 33, 12)


@pytest.fixture(scope="module")
def log(queries, tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "log.jsonl"
    write_log(path, queries)
    return str(path)


def test_a_file_is_routed_as_its_queries_are(router, queries, log, tmp_path):
    report = route_file(router, log, str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == router.route(queries.texts, queries.domains).models
    assert (report.rows, report.errors, report.tokens) == (33, 0, queries.lengths.sum())


@pytest.mark.parametrize(("wanted", "got"), [(1, 1), (10, 10), (33, 33), (99, 33)])
def test_only_the_first_rows_are_routed(router, log, tmp_path, wanted, got):
    assert route_file(router, log, str(tmp_path / "out.jsonl"), max_rows=wanted).rows == got


def test_rows_are_counted_over_windows(router, log, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "WINDOW_ROWS", 4)
    assert route_file(router, log, str(tmp_path / "out.jsonl"), max_rows=10).rows == 10


def test_a_measurement_holds_medians_and_counts(router, queries, log):
    result = measure(router, log, ROOF, repeats=3)
    assert (result.queries, result.errors, result.tokens) == (33, 0, queries.lengths.sum())
    assert result.repeats == len(result.all_seconds) == 3
    assert result.seconds == sorted(result.all_seconds)[1]
    assert tuple(result.stage_seconds) == STAGES
    assert result.stage_seconds["encode"] > 0
    assert result.flops_per_token == flops_per_token(router.encoder)
    assert result.peak_bytes is None or result.peak_bytes > 2**20


def test_a_whole_log_warms_up_on_its_first_window(router, log, monkeypatch):
    seen = []
    original = route_file

    def spy(*arguments, **options):
        seen.append(options["max_rows"])
        return original(*arguments, **options)

    monkeypatch.setattr(MODULE, "route_file", spy)
    measure(router, log, ROOF, repeats=2)
    measure(router, log, ROOF, repeats=1, max_rows=5)
    assert seen == [8192, None, None, 5, 5]


def test_rates_follow_from_counts_and_seconds():
    result = Throughput(
        queries=100,
        errors=0,
        tokens=6400,
        repeats=1,
        seconds=2.0,
        all_seconds=(2.0,),
        stage_seconds=dict.fromkeys(STAGES, 0.5),
        flops_per_token=1_000_000,
        roof_flops_per_s=6.4e9,
        peak_bytes=None,
    )
    assert (result.tokens_per_s, result.queries_per_s, result.utilisation) == (3200, 50, 0.5)
    values = as_dict(result)
    assert values["mean_tokens"] == 64
    assert values["stage_shares"]["select"] == 0.25
    assert json.loads(json.dumps(values))["utilisation"] == 0.5
    lines = table({"64 tokens": result})
    assert lines[1].split() == ["64", "tokens", "100", "64.0", "3,200", "50", "50.0%", "-", "2.00"]
    assert lines[4].split() == ["log", *STAGES]
    assert lines[5].split() == ["64", "tokens", *("0.500", "25.0%") * len(STAGES)]
    assert len({len(line) for line in (lines[0], lines[1])}) == 1


def test_a_log_without_a_good_row_is_an_error(router, tmp_path):
    for text, found in (("", "there is none at all"), ('{"query": ""}\n', "row 1: query: expected a text")):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(DataError, match=f"bad.jsonl: no row that can be routed; the first: {found}"):
            measure(router, str(tmp_path / "bad.jsonl"), ROOF)


def test_no_repeats_are_refused(router, log):
    with pytest.raises(ConfigError, match="repeats: expected an integer >= 1, got 0"):
        measure(router, log, ROOF, repeats=0)
