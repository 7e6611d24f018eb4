import datetime
import decimal
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.errors import InputError
from gpu_select.logs import open_log, open_writer

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

texts = st.text(st.characters(exclude_categories=["Cs"]))
RESULT = {"model": "m", "score": 0.5, "margin": 0.25, "error": None}
RESULT_WITHOUT_ERROR = {name: value for name, value in RESULT.items() if name != "error"}

UNUSUAL = {
    "ns": pa.array([1, None, -(2**62)], pa.timestamp("ns")),
    "zone": pa.array([1, None, 2], pa.timestamp("us", "Europe/Berlin")),
    "no_such_zone": pa.array([1, None, 2], pa.timestamp("us", "Mars/Phobos")),
    "far": pa.array([2**60, None, 0], pa.timestamp("ms")),
    "time": pa.array([1, None, 2], pa.time64("ns")),
    "duration": pa.array([1, None, -5], pa.duration("ns")),
    "date": pa.array([2**30, None, 0], pa.date32()),
    "decimal": pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("-3.00")], pa.decimal128(10, 2)),
    "bytes": pa.array([b"\xff\x00a", None, "é".encode()]),
    "float": pa.array([0.1, None, float("inf")], pa.float32()),
    "small": pa.array([1, None, -2], pa.int8()),
    "large": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "map_of_times": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.timestamp("ns"))),
    "struct": pa.array([{"role": "user", "n": [1]}, None, {"role": None, "n": []}]),
    "struct_of_times": pa.array(
        [{"at": 1, "days": [1, None]}, None, {"at": None, "days": None}],
        pa.struct([("at", pa.timestamp("ns")), ("days", pa.list_(pa.date32()))]),
    ),
    "list": pa.array([[1, None], None, []], pa.large_list(pa.int16())),
    "pair": pa.array([[1.0, 2.0], [None, 0.5], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "nothing": pa.nulls(3),
    "large_text": pa.array(["a", None, "b"], pa.large_string()),
}


def route(source, target, n_rows=2):
    """Copy a log with results added, as `route` does."""
    with (
        open_log(str(source)) as reader,
        open_writer(str(target), columns=reader.columns, schema=reader.schema) as writer,
    ):
        for window in reader.windows(n_rows):
            writer.write([row.fields | RESULT | {"error": row.error} for row in window])


@pytest.mark.parametrize("name", UNUSUAL)
def test_every_type_survives_to_parquet_and_to_text(tmp_path, name, read_rows):
    column = UNUSUAL[name]
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet")
    route(tmp_path / "in.parquet", tmp_path / "out.parquet")
    expected = pq.ParquetFile(tmp_path / "in.parquet").read()
    table = pq.ParquetFile(tmp_path / "out.parquet").read()
    assert table.schema.names == ["x", "model", "score", "margin", "error"]
    assert table.schema.field("x").type == expected.schema.field("x").type
    assert table.column("x").combine_chunks().equals(expected.column("x").combine_chunks())
    for kind in ("jsonl", "csv", "txt"):
        route(tmp_path / "in.parquet", tmp_path / f"out.{kind}")
        assert len(read_rows(tmp_path / f"out.{kind}")) == 3


def test_what_json_lacks_becomes_text(tmp_path, read_rows):
    pq.write_table(pa.table(UNUSUAL), tmp_path / "in.parquet")
    route(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    first, second, third = (row.fields for row in read_rows(tmp_path / "out.jsonl"))
    assert first == RESULT_WITHOUT_ERROR | {
        "ns": "1970-01-01T00:00:00.000000001",
        "zone": "1970-01-01T00:00:00.000001Z",
        "no_such_zone": "1970-01-01T00:00:00.000001Z",
        "far": first["far"],
        "time": "00:00:00.000000001",
        "duration": "1 ns",
        "date": first["date"],
        "decimal": "1.20",
        "bytes": "\\xff\x00a",
        "float": pytest.approx(0.1),
        "small": 1,
        "large": 2**64 - 1,
        "dictionary": "a",
        "map": [["a", 1]],
        "map_of_times": [["a", "1970-01-01T00:00:00.000000001"]],
        "struct": {"role": "user", "n": [1]},
        "struct_of_times": {"at": "1970-01-01T00:00:00.000000001", "days": ["1970-01-02", None]},
        "list": [1, None],
        "pair": [1.0, 2.0],
        "nothing": None,
        "large_text": "a",
    }
    assert isinstance(first["far"], str)
    assert isinstance(first["date"], str)
    assert second == RESULT_WITHOUT_ERROR | dict.fromkeys(UNUSUAL) | {"pair": [None, 0.5]}
    assert (third["float"], third["bytes"], third["duration"]) == (None, "é", "-5 ns")


@settings(max_examples=30, deadline=None)  # each example syncs files to the disk
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "text": st.none() | texts,
                "int": st.none() | st.integers(-(2**63), 2**63 - 1),
                "float": st.none() | st.floats(allow_nan=False),
                "bytes": st.none() | st.binary(max_size=5),
                "time": st.none() | st.datetimes(),
                "turns": st.none()
                | st.lists(st.fixed_dictionaries({"role": texts, "n": st.integers(0, 9)}), max_size=3),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_table_comes_back_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    turn = pa.struct([("role", pa.string()), ("n", pa.int32())])
    schema = pa.schema(
        [
            ("text", pa.string()),
            ("int", pa.int64()),
            ("float", pa.float64()),
            ("bytes", pa.binary()),
            ("time", pa.timestamp("us")),
            ("turns", pa.list_(turn)),
        ]
    )
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, folder / "given.parquet")
    route(folder / "given.parquet", folder / "routed.parquet", n_rows=3)
    assert pq.read_table(folder / "routed.parquet").select(schema.names).to_pylist() == table.to_pylist()


def test_half_precision_becomes_single(tmp_path):
    column = pa.array([np.float16(1.5), None, np.float16(2)], pa.float16())
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet")
    route(tmp_path / "in.parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("x").type == pa.float32()
    assert table.column("x").to_pylist() == [1.5, None, 2.0]


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="needs a newer pyarrow")
def test_extension_types_become_what_they_are_stored_as(tmp_path):
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16)))
    times = pa.array([datetime.datetime(2020, 1, 1), None], pa.timestamp("ns")).dictionary_encode()
    pq.write_table(pa.table({"id": column, "at": times}), tmp_path / "in.parquet")
    route(tmp_path / "in.parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == [b"0123456789abcdef", None]
    assert table.schema.field("at").type == pa.timestamp("ns")


def test_text_that_is_not_utf8_is_an_error_of_its_row(tmp_path, read_rows):
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2, 4, 5)))
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"ok\xff\xfez")])
    pq.write_table(pa.table({"query": column}), tmp_path / "log.parquet")
    rows = read_rows(tmp_path / "log.parquet")
    assert [row.fields for row in rows] == [{"query": "ok"}, {}, {"query": "z"}]
    assert rows[1].error.startswith("row 2: column 'query': 'utf-8' codec can't decode byte 0xff")


def test_columns_and_schema_are_known_in_advance(tmp_path):
    pq.write_table(pa.table({"b": [1], "a": ["x"]}), tmp_path / "log.parquet")
    with open_log(str(tmp_path / "log.parquet")) as reader:
        assert reader.columns == ["b", "a"]
        assert reader.schema == pa.schema([("b", pa.int64()), ("a", pa.string())])


def test_a_file_that_is_no_parquet_is_one_error(tmp_path):
    path = tmp_path / "log.parquet"
    with pytest.raises(InputError, match=r"^cannot read .*log\.parquet: No such file or directory$"):
        open_log(str(path))
    with pytest.raises(InputError, match=r"^cannot read .*directory$"):
        open_log(str(tmp_path), format="parquet")
    for data, reason in [
        (b"", "Parquet file size is 0 bytes"),
        (b"PAR1", "Parquet file size is 4 bytes"),
        (b"query\n" * 100, "Parquet magic bytes not found in footer"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"^cannot read .*log\.parquet: {reason}") as caught:
            open_log(str(path))
        assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_one_error_or_none(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"query": [f"query {i}" for i in range(3000)], "n": range(3000)}), path)
    whole = path.read_bytes()
    chance = random.Random(0)
    n_errors = 0
    for _ in range(60):
        data = bytearray(whole)
        start = chance.randrange(4, len(whole) - 700)
        data[start : start + 40] = chance.randbytes(40)
        path.write_bytes(data)
        try:
            with open_log(str(path)) as reader:
                for _window in reader.windows(100):
                    pass
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some damage goes unnoticed
            n_errors += 1
    assert n_errors > 10


def test_a_file_without_columns_or_with_one_twice_is_refused(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({}), path)
    with pytest.raises(InputError, match=r": it has no columns$"):
        open_log(str(path))
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    with pytest.raises(InputError, match=r": it has the column 'a' twice$"):
        open_log(str(path))
