"""Benchmark records become one row a query; what cannot be used is left out, counted and explained."""

from __future__ import annotations

import gzip
import json
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.domains import DOMAIN_NAMES
from gpu_select.errors import ConfigError, DataError, InputError
from gpu_select.lines import read_lines
from gpu_select.records import pack_digests, query_digests, read_outcomes, reading, unpack_digests, with_prices

NAN = math.nan
DOMAINS = f"one of {', '.join(DOMAIN_NAMES)}, unknown"


def record(query="q", model="m", performance=0.5, response_time=1.0, category="math", **more):
    fields = {"query": query, "category": category, "model_name": model}
    return fields | {"performance": performance, "response_time": response_time} | more


@pytest.fixture
def read(tmp_path):
    """Call with records (or lines as text or bytes): what reading a file of them gives."""

    def read_file(*lines, name="records.jsonl", **options):
        data = b"".join(
            (line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode())
            + b"\n"
            for line in lines
        )
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return read_outcomes(path, **options)

    return read_file


def test_one_row_a_query_one_column_a_model(read):
    table, counts = read(
        record("q2", "b", 0.25, 2.0, "law"),
        record("q1", "a", 1, 0.5, "math"),
        record("q2", "a", 0, 3, "law"),
        record("q1", "b", 0.75, 1.5, "math", tokens=12, response="text", note=None),
    )
    assert table.queries == ["q2", "q1"]
    assert table.models == ["b", "a"]
    assert table.domains == ["law", "math"]
    assert table.quality_QM.tolist() == [[0.25, 0.0], [0.75, 1.0]]
    assert table.latency_s_QM.tolist() == [[2.0, 3.0], [1.5, 0.5]]
    assert table.domain_indices().tolist() == [8, 0]
    assert (counts.records, counts.queries, counts.models) == (4, 2, 2)
    assert counts.warnings("file") == []


def test_repeated_pairs_count_as_their_mean(read):
    table, counts = read(
        record("q", "a", 1.0, 1.0), record("q", "a", 0.0, None), record("q", "a", 0.5, 4.0), record("q", "b", 0.5, None)
    )
    assert table.quality_QM.tolist() == [[0.5, 0.5]]
    np.testing.assert_array_equal(table.latency_s_QM, [[2.5, NAN]])
    assert counts.repeated == 2
    assert counts.warnings("file") == ["file: 2 records repeat a query and model; their mean is used"]


def test_holes_stay_empty(read):
    table, counts = read(record("q1", "a"), record("q2", "b"), record("q3", "a"))
    np.testing.assert_array_equal(table.quality_QM, [[0.5, NAN], [NAN, 0.5], [0.5, NAN]])
    assert counts.holes == 3
    assert counts.warnings("file") == [
        "file: 3 of 6 (query, model) pairs have no outcome; means are over what is there"
    ]


@pytest.mark.parametrize("category", [None, "", "absent"])
def test_a_query_without_category_counts_as_other(read, category):
    line = record(category=category)
    if category == "absent":
        del line["category"]
    table, counts = read(line)
    assert table.domains == ["other"]
    assert counts.warnings("file") == ["file: 1 queries without category count as 'other'"]


def test_the_first_category_of_a_query_counts(read):
    table, counts = read(
        record("q", "a", category=None), record("q", "b", category="law"), record("q", "c", category="math")
    )
    assert table.domains == ["law"]
    assert (counts.without_domain, counts.other_domain) == (0, 1)
    assert counts.warnings("file") == ["file: 1 records give their query another category; the first one counts"]


def test_engineering_and_unknown_are_categories(read):
    table, _ = read(record("q1", category="engineering"), record("q2", category="unknown"))
    assert table.domains == ["engineering", "unknown"]
    assert table.domain_indices().tolist() == [12, 13]


def test_calls_that_failed_are_left_out(read):
    table, counts = read(
        record("q", "a", None, None, error="timeout"),
        record("q", "b", 0.5, error="but it answered"),
        record("q", "c", 0.5, error=""),
        {"error": "no fields at all"},
    )
    assert table.models == ["b", "c"]
    assert (counts.failed_calls, counts.skipped) == (2, 0)
    assert counts.warnings("file") == ["file: left out 2 records of failed calls"]


def test_answers_without_a_score_are_left_out_even_where_records_have_to_be_good(read):
    unscored = record("q", "a", None, 1.5, unscored="no ground_truth")
    table, counts = read(unscored, record("q", "b", 0.5, unscored="but it has one"), strict=True)
    assert table.models == ["b"]
    assert (counts.unscored, counts.failed_calls, counts.skipped) == (1, 0, 0)
    assert counts.warnings("file") == ["file: left out 1 records of answers without a score"]
    with pytest.raises(DataError, match=r"none is usable \(1 of failed calls\) \(1 of answers without a score\)$"):
        read(unscored, record("q", "a", None, None, error="timeout"))


PERFORMANCE = "performance: expected a number in [0, 1], got "
TIME = "response_time: expected seconds, a number >= 0 and at most 1e9, got "

BAD = [
    (record(query=None), "query: expected a text that is not empty, got None"),
    (record(query=""), "query: expected a text that is not empty, got ''"),
    (record(query=" \n\t"), "query: expected a text that is not empty, got ' \\n\\t'"),
    (record(query=["q"]), "query: expected a text that is not empty, got ['q']"),
    ({"model_name": "m", "performance": 1}, "query: expected a text that is not empty, got None"),
    ({"query": "q", "performance": 1}, "model_name: expected a text that is not empty, got None"),
    (record(model=""), "model_name: expected a text that is not empty, got ''"),
    (record(model=5), "model_name: expected a text that is not empty, got 5"),
    (record(performance=1.01), f"{PERFORMANCE}1.01"),
    (record(performance=-0.01), f"{PERFORMANCE}-0.01"),
    (record(performance=None), f"{PERFORMANCE}None"),
    (record(performance="0.5"), f"{PERFORMANCE}'0.5'"),
    (record(performance=True), f"{PERFORMANCE}True"),
    (record(performance=[0.5]), f"{PERFORMANCE}[0.5]"),
    (record(performance=10**400), f"{PERFORMANCE}10000"),
    (record(response_time=-0.001), f"{TIME}-0.001"),
    (record(response_time="1"), f"{TIME}'1'"),
    (record(response_time=False), f"{TIME}False"),
    (record(response_time=1e10), f"{TIME}10000000000.0"),
    (record(category="cooking"), f"domain: expected {DOMAINS}, got 'cooking'"),
    (record(category="Math"), f"domain: expected {DOMAINS}, got 'Math'"),
    (record(category=3), f"domain: expected {DOMAINS}, got 3"),
    ("[1, 2]", "expected a JSON object, got a list"),
    ("null", "expected a JSON object, got a NoneType"),
    ('"q"', "expected a JSON object, got a str"),
    ('{"query": "q"', "not JSON: "),
    ("{'query': 'q'}", "not JSON: "),
    ("query: q", "not JSON: "),
    (json.dumps(record()) + " x", "not JSON: 'Extra data"),
    (json.dumps(record(performance=NAN)), "not JSON: 'NaN is not a JSON number'"),
    (json.dumps(record(response_time=math.inf)), "not JSON: 'Infinity is not a JSON number'"),
    (json.dumps(record()).replace("0.5", "1e999"), "not JSON: 'a number beyond the range of a double'"),
    ("[" * 100_000, "not JSON: 'nested deeper than 200 levels'"),
    (b'{"query": "\xff"}', "not UTF-8: byte 11 is 0xff"),
    (json.dumps(record(query="\ud800")), "not JSON: 'half of a surrogate pair in a text'"),
]


@pytest.mark.parametrize(("line", "text"), BAD, ids=lambda value: str(value)[:40])
def test_a_record_that_cannot_be_used(tmp_path, read, line, text):
    table, counts = read(record("good"), line)
    assert table.queries == ["good"]
    assert (counts.records, counts.skipped) == (2, 1)
    (warning,) = counts.warnings("file")
    assert warning.startswith(f"file: left out 1 of 2 records: line 2: {text}")
    assert "\n" not in warning
    with pytest.raises(DataError) as caught:
        read(record("good"), line, strict=True)
    assert str(caught.value).startswith(f"{tmp_path / 'records.jsonl'}: line 2: {text}")
    with pytest.raises(DataError) as caught:
        read(line)
    start = f"{tmp_path / 'records.jsonl'}: expected at least one record with query, model_name and performance, got "
    assert str(caught.value).startswith(f"{start}1 records of which none is usable (line 1: {text}")


def test_the_first_of_several_is_told(read):
    _, counts = read(record(), "oops", record(performance=2), record(performance=3))
    (warning,) = counts.warnings("file")
    assert warning.startswith("file: left out 3 of 4 records: line 2: not JSON: ")
    assert warning.endswith(", and 2 more")


def test_blank_lines_count_as_lines_not_as_records(tmp_path, read):
    table, counts = read("", record("q1"), "  \t", "\r", record("q2"), "")
    assert table.queries == ["q1", "q2"]
    assert counts.records == 2
    with pytest.raises(DataError, match=r"records\.jsonl: line 4: not JSON"):
        read("", record(), "", "{", strict=True)


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record("é")).encode() + b"\r\n" + json.dumps(record("f")).encode())
    assert read_outcomes(path, strict=True)[0].queries == ["é", "f"]
    path.write_bytes(b"\xef\xbb\xbf\n" + json.dumps(record()).encode())
    assert read_outcomes(path, strict=True)[1].records == 1


def test_a_byte_order_mark_elsewhere_is_an_error(tmp_path, read):
    _, counts = read(record(), b"\xef\xbb\xbf" + json.dumps(record()).encode())
    assert counts.skipped == 1


def test_limit_takes_the_first_queries_with_all_their_records(read):
    lines = [
        record("q1", "a"),
        record("q2", "a"),
        record("q3", "a"),
        record("q1", "b"),
        record("q3", "b"),
        record("q2", "b"),
    ]
    table, counts = read(*lines, limit=2)
    assert table.queries == ["q1", "q2"]
    assert np.isfinite(table.quality_QM).all()
    assert (counts.records, counts.queries, counts.holes) == (4, 2, 0)
    assert read(*lines, limit=99)[0].queries == ["q1", "q2", "q3"]
    with pytest.raises(ConfigError, match="limit: expected an integer >= 1, got 0"):
        read(*lines, limit=0)


@pytest.mark.parametrize("lines", [[], ["", "  "], [record(None)], [record(performance=None, error="timeout")]])
def test_no_records_at_all(tmp_path, read, lines):
    with pytest.raises(DataError) as caught:
        read(*lines)
    start = f"{tmp_path / 'records.jsonl'}: expected at least one record with query, model_name and performance, got "
    assert str(caught.value).startswith(start)
    assert "records of which none is usable" in str(caught.value)


def test_compressed_records(tmp_path, read):
    lines = [record(f"q{i}", "a", i / 10) for i in range(10)]
    assert read(*lines, name="r.jsonl.gz")[0].quality_QM.tolist() == read(*lines)[0].quality_QM.tolist()
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cannot read .*r\.jsonl\.gz: damaged \.gz data"):
        read_outcomes(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.jsonl: No such file or directory"):
        read_outcomes(tmp_path / "absent.jsonl")


def test_a_line_without_end_is_bounded(monkeypatch, read):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(reading, "read_lines", partial(read_lines, max_line_bytes=1 << 20))
    long = json.dumps(record("x" * (5 << 19)))
    table, counts = read(record("q1"), long, record("q2"))
    assert table.queries == ["q1", "q2"]
    assert counts.first_skipped == "line 2: expected at most 1 MiB a line, got a longer one"
    just_under = json.dumps(record("y"))
    monkeypatch.setattr(reading, "read_lines", partial(read_lines, max_line_bytes=len(just_under)))
    assert read(just_under)[0].queries == ["y"]


def test_the_number_of_models_is_bounded(monkeypatch, read):
    """A field that is not a model's name, such as an id, would make a table of billions."""
    monkeypatch.setattr(reading, "_MAX_MODELS", 3)
    table, counts = read(*(record(model=f"m{i}") for i in range(5)))
    assert table.models == ["m0", "m1", "m2"]
    assert counts.first_skipped == "line 4: model_name: expected at most 3 different ones, got one more"


def test_without_orjson_the_same_records(monkeypatch, read):
    lines = [record("q", "a"), "oops", record(performance=NAN), record("q", "b", 1)]
    with_it = read(*lines)
    monkeypatch.setattr("gpu_select.jsonio.orjson", None)
    without = read(*lines)
    assert with_it[1] == without[1]
    assert with_it[0].quality_QM.tolist() == without[0].quality_QM.tolist()


VALUES = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3) | st.lists(st.just(1))
FIELDS = {
    "query": st.sampled_from(["q1", "q2"]) | VALUES,
    "model_name": st.sampled_from(["a", "b"]) | VALUES,
    "performance": st.floats(0, 1) | VALUES,
    "response_time": st.floats(0, 9) | VALUES,
    "category": st.sampled_from(["law", "math", None]) | VALUES,
    "error": st.just("e") | VALUES,
    "cost": st.floats(0, 9) | VALUES,
    "input_tokens": st.integers(0, 9) | VALUES,
    "usage": st.dictionaries(st.sampled_from(["output_tokens", "prompt_tokens"]), VALUES) | VALUES,
}
LINES = st.binary(max_size=20) | st.fixed_dictionaries({}, optional=FIELDS).map(json.dumps).map(str.encode)


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(LINES, max_size=6))
def test_any_bytes_give_a_table_or_an_error(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any_records.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        table, counts = read_outcomes(path)
    except DataError as error:
        texts = [str(error)]
    else:
        known = table.quality_QM[~np.isnan(table.quality_QM)]
        assert len(known)
        assert ((known >= 0) & (known <= 1)).all()
        assert not (table.latency_s_QM < 0).any()
        assert table.quality_QM.shape == (counts.queries, counts.models) == (len(table.queries), len(table.models))
        assert len(table.domain_indices()) == counts.queries
        for costs in (table.input_tokens_QM, table.output_tokens_QM, table.cost_usd_QM):
            assert costs is None or not (costs < 0).any()
        assert (np.isnan(table.quality_QM)).sum() == counts.holes
        assert counts.records == counts.skipped + counts.failed_calls + counts.unscored + counts.repeated + len(known)
        texts = counts.warnings(path)
    assert all("\n" not in text for text in texts)


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": 10, "output_tokens": 20},
        {"prompt_tokens": 10, "completion_tokens": 20.0},
        {"usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}},
        {"usage": {"input_tokens": 10, "output_tokens": 20}},
        {"input_tokens": 10, "output_tokens": None, "usage": {"prompt_tokens": 99, "completion_tokens": 20}},
    ],
)
def test_token_counts_under_the_names_of_the_field(read, fields):
    table, counts = read(record("q", "a", **fields), record("q", "b"))
    np.testing.assert_array_equal(table.input_tokens_QM, [[10.0, NAN]])
    np.testing.assert_array_equal(table.output_tokens_QM, [[20.0, NAN]])
    assert table.cost_usd_QM is None
    assert counts.warnings("file") == []


def test_costs_are_means_of_what_is_told(read):
    table, _ = read(
        record("q", "a", cost=0.02), record("q", "a", cost=0.04), record("q", "a"), record("q", "b", usage={"cost": 3})
    )
    np.testing.assert_allclose(table.cost_usd_QM, [[0.03, 3.0]])
    assert table.input_tokens_QM is None


def test_without_any_cost_or_token_there_is_no_column(read):
    table, counts = read(record(cost=None, usage=None), record("p", usage="many"))
    assert (table.input_tokens_QM, table.output_tokens_QM, table.cost_usd_QM) == (None, None, None)
    assert counts.odd_costs == 0


ODD = [
    ({"cost": "$1"}, "cost: expected USD, a number >= 0 and at most 1e9, got '$1'"),
    ({"cost": -1}, "cost: expected USD, a number >= 0 and at most 1e9, got -1"),
    ({"input_tokens": True}, "input_tokens: expected tokens, a number >= 0 and at most 1e9, got True"),
    ({"usage": {"completion_tokens": []}}, "completion_tokens: expected tokens, a number >= 0 and at most 1e9, got []"),
]


@pytest.mark.parametrize(("fields", "text"), ODD)
def test_an_odd_cost_is_unknown_and_the_outcome_stays(tmp_path, read, fields, text):
    lines = [record("p", cost=1), record("q", **fields), record("r", **fields)]
    table, counts = read(*lines)
    assert table.quality_QM.tolist() == [[0.5]] * 3
    np.testing.assert_array_equal(table.cost_usd_QM, [[1.0], [NAN], [NAN]])
    assert counts.warnings("file") == [f"file: a cost or token count counts as unknown: line 2: {text}, and 1 more"]
    with pytest.raises(DataError) as caught:
        read(*lines, strict=True)
    assert str(caught.value) == f"{tmp_path / 'records.jsonl'}: line 2: {text}"


def test_prices_turn_tokens_into_costs_where_both_are_known(read):
    table, _ = read(
        record("q", "a", input_tokens=1000, output_tokens=500),
        record("q", "b", input_tokens=1000, output_tokens=500),
        record("q", "c", input_tokens=1000, output_tokens=500),
        record("q", "free", input_tokens=7, output_tokens=7),
        record("p", "a", input_tokens=1000, output_tokens=500, cost=0.5),
        record("p", "b", input_tokens=1000),
        record("p", "free"),
    )
    priced = with_prices(table, {"a": (2.0, 10.0), "b": (1.0, 2.0), "free": (0.0, 0.0), "c": (1.0, None), "x": (1, 1)})
    np.testing.assert_allclose(priced.cost_usd_QM, [[0.007, 0.002, NAN, 0.0], [0.5, NAN, NAN, NAN]])
    assert with_prices(table, {}).cost_usd_QM[1, 0] == 0.5
    without = with_prices(read(record("q", cost=2))[0], {"m": (1.0, 1.0)})
    assert without.cost_usd_QM.tolist() == [[2.0]]
    assert with_prices(read(record("q"))[0], {"m": (1.0, 1.0)}).cost_usd_QM is None


def test_some_queries_of_a_table(read):
    table, _ = read(record("q1", "a", 0.1, cost=1), record("q2", "b", 0.2, category="law"), record("q3", "a", 0.3))
    part = table.take(np.array([2, 0]))
    assert part.queries == ["q3", "q1"]
    assert part.domains == ["math", "math"]
    assert part.models == ["a", "b"]
    np.testing.assert_array_equal(part.quality_QM, [[0.3, NAN], [0.1, NAN]])
    np.testing.assert_array_equal(part.cost_usd_QM, [[NAN, NAN], [1.0, NAN]])
    assert part.output_tokens_QM is None


def test_digests_see_through_white_space_and_letter_case():
    digests = query_digests(["Why  is\nit?", " why is it? ", "WHY IS IT?", "why isit?", "Straße", "STRASSE", ""])
    assert len({int(d) for d in digests[:3]}) == 1
    assert len({int(d) for d in digests}) == 4
    assert query_digests([]).tolist() == []


@given(st.lists(st.text(max_size=5), max_size=8))
def test_digests_survive_the_file(texts):
    digests = query_digests(texts)
    packed = pack_digests(digests)
    assert packed == pack_digests(query_digests(texts[::-1] + texts))
    assert unpack_digests(packed).tolist() == sorted({int(d) for d in digests})


def test_digests_are_the_same_on_every_machine():
    assert pack_digests(query_digests(["why?", "how?"])) == "Ikg1vEkZh4dT14dLffU64w=="


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (None, "expected a text, got None"),
        (["a"], "expected a text, got ['a']"),
        ("a", "expected base64, got 'a'"),
        ("é" * 4, "expected base64, got 'éééé'"),
        ("AAAA", "expected base64 of digests of 8 bytes, got 3 bytes"),
    ],
)
def test_what_no_digests_are_is_refused(packed, text):
    with pytest.raises(ValueError, match="expected") as caught:
        unpack_digests(packed)
    assert str(caught.value) == text
