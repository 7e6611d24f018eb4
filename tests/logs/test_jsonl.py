import json
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select import jsonio

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(texts.filter(lambda name: name != "error"), values, max_size=4)


@pytest.fixture(params=["orjson", "standard library"])
def backend(request, monkeypatch):
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(jsonio, "orjson", None)


@settings(max_examples=30, deadline=None)  # each example syncs files to the disk
@given(rows=st.lists(fields, max_size=8))
def test_rows_come_back_the_same(tmp_path_factory, packing, read_rows, write_rows, rows):
    path = tmp_path_factory.getbasetemp() / f"rows.jsonl{packing}"
    write_rows(path, rows)
    back = read_rows(path)
    assert [repr(row.fields) for row in back] == [repr(row) for row in rows]
    assert all(row.error is None for row in back)


@settings(deadline=None)
@given(data=st.lists(st.sampled_from([b"\n", b'{"a":1}', b"{", b"}", b"[", b'"', b"\\", b"1", b"\xff", b" ", b"\0"])))
def test_every_line_that_is_not_blank_is_a_row(tmp_path_factory, read_rows, data):
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(b"".join(data))
    rows = read_rows(path)
    assert len(rows) == sum(bool(line.strip()) for line in b"".join(data).split(b"\n"))
    assert all(row.error is None or not row.fields for row in rows)


@pytest.mark.usefixtures("backend")
def test_broken_lines_keep_their_place_and_say_why(tmp_path, read_rows):
    lines = [
        (b'\xef\xbb\xbf{"query": "mark"}', None),
        (b"", "blank"),
        (b"  \t\r", "blank"),
        (b'{"query": "dos"}\r', None),
        (b'{"query": ', "line 5: not JSON: Expecting value at column 11"),
        (b'{"query": "\xff"}', "line 6: not UTF-8"),
        (b'["a"]', "line 7: expected a JSON object, got a list"),
        (b'"a"', "line 8: expected a JSON object, got a text"),
        (b"1", "line 9: expected a JSON object, got a number"),
        (b"1.5", "line 10: expected a JSON object, got a number"),
        (b"true", "line 11: expected a JSON object, got a boolean"),
        (b"null", "line 12: expected a JSON object, got null"),
        (b'{"score": NaN}', "line 13: not JSON: NaN is not a JSON number"),
        (b'{"a": 1} {"a": 2}', "line 14: not JSON: Extra data at column 10"),
        (b"[" * 100_000, "line 15: not JSON: nested deeper than 200 levels"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "line 16: not JSON: nested deeper than 200 levels"),
        (b'{"query": "\\ud83d"}', "line 17: not JSON: half of a surrogate pair in a text"),
        (b"\0", "line 18: not JSON: Expecting value at column 1"),
        (b'{"query": "no newline"}', None),
    ]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in lines))
    rows = read_rows(path)
    assert [row.error for row in rows] == [error for _, error in lines if error != "blank"]
    assert [row.fields for row in rows if row.error is None] == [
        {"query": "mark"},
        {"query": "dos"},
        {"query": "no newline"},
    ]


def test_a_line_without_end_is_one_error_and_reading_goes_on(tmp_path, read_rows):
    path = tmp_path / "log.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(65):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"a": 2}\n')
    rows = read_rows(path)
    assert [row.error for row in rows] == [None, "line 2: longer than 64 MiB", None]
    assert rows[2].fields == {"a": 2}


def test_error_is_left_out_where_there_is_none_and_the_row_is_not_changed(tmp_path, write_rows):
    rows = [
        {"query": "a", "model": "m", "score": 0.5, "margin": math.inf, "error": None},
        {"query": "b", "model": None, "score": None, "margin": None, "error": "line 2: broken"},
    ]
    write_rows(tmp_path / "out.jsonl", rows)
    assert (tmp_path / "out.jsonl").read_bytes() == (
        b'{"query":"a","model":"m","score":0.5,"margin":null}\n'
        b'{"query":"b","model":null,"score":null,"margin":null,"error":"line 2: broken"}\n'
    )
    assert "error" in rows[0]


def test_many_rows_in_one_window_are_all_written(tmp_path, write_rows):
    write_rows(tmp_path / "out.jsonl", [{"id": i} for i in range(1000)], n_rows=1000)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": i} for i in range(1000)]


def test_no_rows_make_an_empty_file(tmp_path, write_rows, read_rows):
    write_rows(tmp_path / "out.jsonl", [])
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert read_rows(tmp_path / "out.jsonl") == []


def test_neither_reading_nor_writing_imports_pyarrow(tmp_path, monkeypatch, read_rows, write_rows):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_rows(tmp_path / "out.jsonl", [{"a": 1}])
    assert read_rows(tmp_path / "out.jsonl")[0].fields == {"a": 1}
