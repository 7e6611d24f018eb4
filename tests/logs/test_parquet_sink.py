import pytest

from gpu_select.errors import OutputError
from gpu_select.logs import open_log, parquet_sink

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RESULT = {"model": "m", "score": 0.5, "margin": 0.25, "error": None}
NO_RESULT = {"model": None, "score": None, "margin": None, "error": "line 1: broken"}
RESULT_TYPES = [("model", pa.string()), ("score", pa.float64()), ("margin", pa.float64()), ("error", pa.string())]


def test_result_columns_have_their_types_even_when_empty(tmp_path, write_rows):
    write_rows(tmp_path / "out.parquet", [dict.fromkeys(RESULT)] * 3 + [RESULT, NO_RESULT])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema == pa.schema(RESULT_TYPES)
    assert table.to_pylist() == [dict.fromkeys(RESULT)] * 3 + [RESULT, NO_RESULT]


def test_a_file_without_rows_has_its_columns(tmp_path, write_rows):
    write_rows(tmp_path / "out.parquet", [], columns=["id"], schema=pa.schema([("id", pa.int16())]))
    assert pq.read_table(tmp_path / "out.parquet").schema == pa.schema([("id", pa.int16()), *RESULT_TYPES])


def test_types_of_json_values_are_those_of_the_first_window(tmp_path, write_rows):
    rows = [
        {"n": 1, "x": 1, "ok": True, "text": None, "turns": [{"by": "user"}], "tags": []} | RESULT,
        {"n": 2, "x": 1.5, "turns": [{"by": "bot", "n": 3}], "object": {"a": None}} | RESULT,
        {"n": None} | NO_RESULT,
        {"n": -3, "text": "late", "tags": ["late"], "object": {"a": "late"}, "turns": [{}, None]} | RESULT,
    ]
    write_rows(tmp_path / "out.parquet", rows)
    table = pq.read_table(tmp_path / "out.parquet")
    turn = pa.struct([("by", pa.string()), ("n", pa.int64())])
    kept = [
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("ok", pa.bool_()),
        ("text", pa.string()),
        ("turns", pa.list_(turn)),
        ("tags", pa.list_(pa.string())),
        ("object", pa.struct([("a", pa.string())])),
    ]
    assert [(field.name, str(field.type).replace("element", "item")) for field in table.schema] == [
        (name, str(kind)) for name, kind in [*kept, *RESULT_TYPES]
    ]
    assert table.column("turns").to_pylist()[3] == [{"by": None, "n": None}, None]
    assert table.column("object").to_pylist() == [None, {"a": None}, None, {"a": "late"}]


@pytest.mark.parametrize(
    ("first", "late", "expected", "got"),
    [
        (1, "one", "int64", "'one'"),
        (1, 1.5, "int64", "1.5"),
        ("one", 1, "string", "1"),
        (None, 1, "string", "1"),
        (1, 2**70, "int64", str(2**70)),
        ([1], [1, "a"], "list<item: int64>", "[1, 'a']"),
        ({"a": 1}, {"a": 1, "b": 2}, "struct<a: int64>", "{'a': 1, 'b': 2}"),
        ([{"a": 1}], [{"b": 1}], "list<item: struct<a: int64>>", "[{'b': 1}]"),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, "struct<a: struct<b: int64>>", "{'a': {'c': 1}}"),
        ({"a": [1]}, {"a": [1.5]}, "struct<a: list<item: int64>>", "{'a': [1.5]}"),
        (0.5, True, "double", "True"),
        (0.5, 2**53 + 1, "double", str(2**53 + 1)),
    ],
)
def test_a_later_value_that_does_not_fit_is_named(tmp_path, write_rows, first, late, expected, got):
    path = tmp_path / "out.parquet"
    with pytest.raises(OutputError) as caught:
        write_rows(path, [{"x": value} | RESULT for value in (first, None, first, late, first)])
    assert str(caught.value) == (
        f"cannot write {path}: row 4, column 'x': expected {expected}, got {got}; "
        "leave the column out with --keep, or write JSON lines"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, None, 2, "three", 4], "row 4, column 'x': expected int64, got 'three'"),
        (["one", 2], "row 2, column 'x': expected string, got 2"),
        ([[1], [2, "a"]], "row 2, column 'x': expected list<item: int64>, got [2, 'a']"),
        ([2**70], f"row 1, column 'x': expected string, got {2**70}"),
        ([None, True, 1], "row 3, column 'x': expected bool, got 1"),
        ([0.5, True], "row 2, column 'x': expected double, got True"),
    ],
)
def test_values_of_the_first_window_must_agree(tmp_path, write_rows, values, text):
    with pytest.raises(OutputError) as caught:
        write_rows(tmp_path / "out.parquet", [{"x": value} | RESULT for value in values], n_rows=9)
    assert text in str(caught.value)


def test_whole_floats_fit_an_integer_column(tmp_path, write_rows):
    write_rows(tmp_path / "out.parquet", [{"x": 1} | RESULT, {"x": 2.0} | RESULT], n_rows=1)
    assert pq.read_table(tmp_path / "out.parquet").column("x").to_pylist() == [1, 2]


def test_objects_without_fields_are_refused(tmp_path, write_rows):
    with pytest.raises(OutputError, match=r"column 'x': Parquet has no objects without fields; leave the column out"):
        write_rows(tmp_path / "out.parquet", [{"x": {}} | RESULT])


def test_small_windows_share_a_row_group(tmp_path, write_rows, monkeypatch):
    monkeypatch.setattr(parquet_sink, "_ROW_GROUP_ROWS", 10)
    write_rows(tmp_path / "out.parquet", [{"id": i} | RESULT for i in range(25)], n_rows=4)
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [12, 12, 1]
    assert file.read().column("id").to_pylist() == list(range(25))


def test_a_kept_column_named_like_a_result_gives_way(tmp_path, write_rows):
    pq.write_table(pa.table({"model": [7], "id": [1]}), tmp_path / "in.parquet")
    with open_log(str(tmp_path / "in.parquet")) as reader:
        write_rows(
            tmp_path / "out.parquet", [{"model": 7, "id": 1} | RESULT], columns=reader.columns, schema=reader.schema
        )
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [{"id": 1} | RESULT]
