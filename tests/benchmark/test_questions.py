from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark import questions as module
from gpu_select.benchmark.questions import read_questions
from gpu_select.benchmark.scoring import metric_of
from gpu_select.errors import DataError, InputError, MissingDependencyError

EXAMPLE = Path(__file__).parents[2] / "configs" / "queries.jsonl"


@pytest.fixture
def read(tmp_path):
    """Call with rows, or lines as bytes, and limit=: the fields of the questions, and the warnings."""

    def read_rows(*rows, limit=None):
        path = tmp_path / "queries.jsonl"
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
        questions, warnings = read_questions(path, limit=limit, check_metric=metric_of)
        return [question.fields for question in questions], [text.removeprefix(f"{path}: ") for text in warnings]

    return read_rows


def test_fields_are_carried_through_as_they_come(read):
    row = {
        "query": "2 + 2?",
        "category": "math",
        "ground_truth": ["4", 4.0],
        "metric": "GSM8K",
        "choices": None,
        "task_name": "sums",
        "embedding_id": 7,
        "own": {"a": [1, None, 1e300, 12345678901234567890123]},
    }
    assert read(row) == ([{k: v for k, v in row.items() if k != "choices"}], [])


def test_the_documented_example():
    found, warnings = read_questions(EXAMPLE, check_metric=metric_of)
    assert warnings == []
    metrics = [metric_of(q.fields.get("metric"), q.fields.get("choices")) for q in found]
    assert metrics == ["MATH", "GSM8K", "em_mc", "code_eval", "f1_score", "CEM"]


def test_a_query_alone_is_enough(read):
    assert read({"query": " why? "}) == ([{"query": " why? "}], [])
    assert read({"query": "why?", "category": ""}, {"query": "how?", "category": None})[1] == []


def test_records_of_an_earlier_benchmark_are_questions_without_what_was_measured(read):
    outcome = {
        "model_name": "m",
        "response": "x",
        "performance": 0.5,
        "response_time": 1.0,
        "time_to_first_token": 0.1,
        "finish_reason": "stop",
        "input_tokens": 1,
        "output_tokens": 2,
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "usage": {},
        "cost": 0.1,
        "attempts": 1,
        "request": {},
        "error": "x",
        "unscored": "x",
    }
    question = {"query": "a", "category": "law", "ground_truth": "b", "task_name": "t"}
    other = {"query": "c", "ground_truth": "d"}
    rows = [question | outcome, question | outcome | {"model_name": "n"}, other | outcome]
    assert read(*rows) == ([question, other], [])


def test_each_query_once_and_the_first_line_counts(read):
    found, warnings = read(
        {"query": "a", "ground_truth": "1"},
        {"query": "b"},
        {"query": "a", "ground_truth": "2"},
        {"query": "a", "ground_truth": "1", "task_name": "other"},
        {"query": "b", "metric": "CEM"},
    )
    assert found == [{"query": "a", "ground_truth": "1"}, {"query": "b"}]
    assert warnings == [
        "line 3 repeats a query with another ground_truth, metric or choices, and 1 more; "
        "the first line of a query counts"
    ]


def test_a_limit_counts_queries(read):
    rows = [{"query": "a"}, {"query": "a"}, {"query": "b"}, {"query": "c"}, {"query": "a"}]
    assert [fields["query"] for fields in read(*rows, limit=2)[0]] == ["a", "b"]


def test_compressed_files(tmp_path):
    path = tmp_path / "queries.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"query": "a"}\r\n\n  \n{"query": "b"}'))
    found, _ = read_questions(path, check_metric=metric_of)
    assert [question.query for question in found] == ["a", "b"]


QUERY = "query: expected a text that is not empty, got "


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"query": ""}, QUERY + "''"),
        ({"query": " \n"}, QUERY + "' \\n'"),
        ({"question": "a"}, QUERY + "None"),
        ({"query": ["a"]}, QUERY + "['a']"),
        ([1], "expected a JSON object, got [1]"),
        (b"{'query': 'a'}", "not JSON: "),
        (b'{"query": "\xff"}', "not UTF-8: byte 11 is 0xff"),
        (b'{"query": "a", "x": NaN}', "not JSON: 'NaN is not a JSON number'"),
        ({"query": "a", "category": "maths"}, "category: expected one of biology, business, "),
        ({"query": "a", "category": 5}, "category: expected one of biology, business, "),
        ({"query": "a", "metric": 5}, "metric: expected a text, got 5"),
        ({"query": "a", "metric": "bleu"}, "metric: expected one of em_mc, GSM8K, MATH, "),
        ({"query": "a", "choices": 5}, "choices: expected a text, a list of at most 10 texts, "),
        ({"query": "a", "choices": []}, "choices: expected a text, a list of at most 10 texts, "),
        ({"query": "a", "choices": list("abcdefghijk")}, "choices: expected a text, a list of at most 10 texts, "),
    ],
)
def test_a_bad_line_is_named(read, tmp_path, row, problem):
    with pytest.raises(DataError) as caught:
        read({"query": "good"}, b"", row)
    assert str(caught.value).startswith(f"{tmp_path / 'queries.jsonl'}: line 3: {problem}")
    assert "\n" not in str(caught.value)


def test_the_first_bad_lines_come_at_once(read):
    with pytest.raises(DataError) as caught:
        read(*[{"query": ""}] * 7)
    assert str(caught.value).count(QUERY) == 5
    assert str(caught.value).endswith("; and 2 more")


def test_a_line_has_a_bound(read, monkeypatch):
    monkeypatch.setattr(module, "_MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(DataError, match="line 1: expected at most 1 MiB a line, got a longer one"):
        read({"query": "a" * (1 << 20)}, {"query": "b"})


def test_no_question_and_no_file(read, tmp_path):
    with pytest.raises(
        DataError, match=r"expected at least one line such as \{'query': 'What is 2 \+ 2\?'\}, got none"
    ):
        read(b"")
    with pytest.raises(InputError, match=r"cannot read .*absent: No such file or directory"):
        read_questions(tmp_path / "absent", check_metric=metric_of)


def test_a_package_that_a_metric_needs_is_named_once(tmp_path, write_lines):
    def check(metric, choices):
        raise MissingDependencyError("math-verify", "the metric MATH", "math-verify")

    path = write_lines(tmp_path / "queries.jsonl", [{"query": "a", "metric": "MATH"}] * 3)
    with pytest.raises(
        MissingDependencyError, match=r"^the metric MATH needs the package math-verify, which is not inst"
    ):
        read_questions(path, check_metric=check)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,query a1\n', max_size=60).map(str.encode))
def test_any_bytes_give_questions_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any_queries.jsonl"
    path.write_bytes(data)
    text = ""
    try:
        assert read_questions(path, check_metric=metric_of)[0]
    except DataError as error:
        text = str(error)
    assert "\n" not in text
