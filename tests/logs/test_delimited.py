import contextlib
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.errors import InputError, OutputError
from gpu_select.logs import RESULT_FIELDS, delimited, open_log
from gpu_select.logs.delimited import Records, read_header, read_records

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('",;\t\n\r'))
names = texts.filter(lambda name: name not in RESULT_FIELDS and not name.startswith("\ufeff"))  # a byte order mark
result = {"model": "m", "score": 0.5, "margin": 0.25, "error": None}


def read_csv(data: bytes):
    """Columns and rows."""
    records = Records(io.BytesIO(data), ",")
    columns = read_header(records, "log.csv")
    return columns, [row for chunk, _ in read_records(records, columns) for row in chunk]


@settings(max_examples=30, deadline=None)  # each example syncs files to the disk
@given(columns=st.lists(names, min_size=1, max_size=4, unique=True), data=st.data())
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_any_text_comes_back_the_same(tmp_path_factory, packing, read_rows, write_rows, kind, columns, data):
    path = tmp_path_factory.getbasetemp() / f"rows.{kind}{packing}"
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, texts)), max_size=6))
    write_rows(path, [row | result for row in rows], columns=columns)
    back = read_rows(path)
    assert [row.error for row in back] == [None] * len(rows)
    texts_of_result = {"model": "m", "score": "0.5", "margin": "0.25", "error": ""}
    assert [row.fields for row in back] == [row | texts_of_result for row in rows]


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b"\r\n", b",", b'"', b'""', b"a", b"\xff", b"\0", b"\r", b" "])).map(b"".join)
)
def test_any_bytes_give_rows_or_one_error(tmp_path_factory, read_rows, data):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"a,b\n" + data)
    rows = read_rows(path)
    assert all((row.error is None) == (list(row.fields) == ["a", "b"]) for row in rows)
    if b'"' not in data:
        assert len(rows) == sum(bool(line.rstrip(b"\r")) for line in data.split(b"\n"))
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        read_rows(path)


@settings(deadline=None)
@given(data=st.lists(st.sampled_from(["\n", "\r\n", ",", '"', '""', "a", "b", " "])).map("".join))
def test_rows_are_those_of_the_csv_module(data):
    columns, rows = read_csv(b"x,y\n" + data.encode())
    expected = [values for values in csv.reader(io.StringIO(data, newline="")) if values]
    assert columns == ["x", "y"]
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        if row.error is None:
            assert list(row.fields.values()) == values
        else:
            assert len(values) != 2 or "a quote that is never closed" in row.error


def test_broken_rows_keep_their_place_and_say_why(tmp_path, read_rows):
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,query\r\n"
        b"1,plain\r\n"
        b"\r\n"
        b'2,"two\r\nlines, ""quoted"""\n'
        b"3\n"
        b"4,a,b\n"
        b"5,gr\xfcn\n"
        b"6,n\0l\n"
        b'7,"a\n\xff\nb"\n'
        b"8,a\rb\n"
        b"9,\n"
        b'10,"never\nclosed\n'
    )
    rows = read_rows(path)
    assert [row.error for row in rows] == [
        None,
        None,
        "line 6: expected 2 columns, got 1",
        "line 7: expected 2 columns, got 3",
        "line 8: not UTF-8",
        "line 9: a NUL byte, which no text has",
        "line 10: not UTF-8",
        rows[7].error,
        None,
        "line 15: a quote that is never closed, up to the last line, 16",
    ]
    assert rows[7].error.startswith("line 13: not CSV: ")
    assert [row.fields for row in rows if row.error is None] == [
        {"id": "1", "query": "plain"},
        {"id": "2", "query": 'two\r\nlines, "quoted"'},
        {"id": "9", "query": ""},
    ]


def test_a_quote_that_is_not_closed_takes_bounded_memory_and_reading_goes_on(monkeypatch):
    monkeypatch.setattr(delimited, "MAX_LINE_BYTES", 1 << 20)
    data = b'a,b\n1,"open\n' + b"x,y\n" * (300 << 10) + b'2,"closed"\n'
    _, rows = read_csv(data)
    assert rows[0].error == "line 2: a quote that is not closed within 1 MiB, at line 262145"
    assert len(rows) == 1 + (300 << 10) - (262145 - 2) + 1
    assert rows[-1].fields == {"a": "2", "b": "closed"}


def test_fields_may_be_larger_than_the_csv_module_wants(tmp_path, read_rows):
    (tmp_path / "log.csv").write_text('a,b\n1,"' + "x" * 1_000_000 + '"\n')
    assert len(read_rows(tmp_path / "log.csv")[0].fields["b"]) == 1_000_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty, expected a header row with column names"),
        (b"\n\n", "it is empty, expected a header row with column names"),
        (b"a,b,a\n1,2,3\n", "line 1: the header has the column 'a' twice"),
        (b"a,,\n", "line 1: the header has the column '' twice"),
        (b"a,\xff\n", "line 1: not UTF-8"),
        (b"a,\0\n", "line 1: a NUL byte, which no text has"),
        (b'\na,"b\n1,2\n', "line 2: a quote that is never closed, up to the last line, 3"),
    ],
)
def test_without_a_usable_header_nothing_is_read(tmp_path, data, reason):
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_log(str(path))
    assert str(caught.value) == f"cannot read {path}: {reason}"


def test_columns_are_known_in_advance(tmp_path):
    (tmp_path / "log.tsv").write_text("id\tquery\n1\ta,b\n")
    with open_log(str(tmp_path / "log.tsv")) as reader:
        assert reader.columns == ["id", "query"]
        assert reader.schema is None
        assert [row.fields for row in next(reader.windows(5))] == [{"id": "1", "query": "a,b"}]


def test_cells_of_other_values(tmp_path, write_rows):
    row = {"none": None, "yes": True, "n": 12, "x": 2.5, "nan": float("nan"), "list": [1, "a"], "object": {"a": None}}
    write_rows(tmp_path / "out.csv", [row | result])
    assert (tmp_path / "out.csv").read_text() == (
        'none,yes,n,x,nan,list,object,model,score,margin,error\n,true,12,2.5,,"[1,""a""]","{""a"":null}",m,0.5,0.25,\n'
    )


def test_columns_are_those_given_and_those_of_the_first_window(tmp_path, write_rows):
    rows = [{"b": "1"} | result, {"c": "2"} | result, {"a": "3", "b": "4"} | result, {"c": "5"} | result]
    write_rows(tmp_path / "out.csv", rows, columns=["a"])
    assert (tmp_path / "out.csv").read_text() == (
        "a,b,c,model,score,margin,error\n,1,,m,0.5,0.25,\n,,2,m,0.5,0.25,\n3,4,,m,0.5,0.25,\n,,5,m,0.5,0.25,\n"
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_later_column_is_an_error_that_names_it(tmp_path, write_rows, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"out.{kind}"
    with pytest.raises(OutputError) as caught:
        write_rows(path, [{"a": "1"} | result] * 4 + [{"a": "2", "late": "3"} | result])
    assert str(caught.value) == (
        f"cannot write {path}: row 5 has the field 'late', which no row of the first window has; "
        "name the fields with --keep, or write JSON lines"
    )
    assert not list(tmp_path.iterdir())


def test_a_file_without_rows_has_a_header(tmp_path, write_rows, read_rows):
    write_rows(tmp_path / "out.csv", [], columns=["id"])
    assert (tmp_path / "out.csv").read_text() == "id,model,score,margin,error\n"
    assert read_rows(tmp_path / "out.csv") == []
