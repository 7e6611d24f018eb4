"""Arrow tables in memory."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import pytest

from gpu_select.errors import InputError
from gpu_select.logs import Row
from gpu_select.logs.tables import ArrowColumns, is_arrow

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")

RESULTS = {"model": [None, "a"], "score": [None, 1.5], "margin": [None, None], "error": [None, None]}
TYPES = {"model": pa.string(), "score": pa.float64(), "margin": pa.float64(), "error": pa.string()}


def tables(columns):
    """The same as a table of one piece, as one of two, and as a record batch."""
    table = pa.table(columns)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert pieces.column(0).num_chunks == 2
    return [table, pieces, table.combine_chunks().to_batches()[0]]


def test_only_tables_and_record_batches_of_arrow_are_meant():
    assert all(map(is_arrow, tables({"x": ["law", None]})))
    others = [pa.array([1]), pa.chunked_array([[1]]), {"x": [1]}, [1], None, SimpleNamespace(schema=1, num_rows=1)]
    assert not any(map(is_arrow, others))


def test_rows_have_the_columns_that_are_asked_for():
    for table in tables({"x": ["law", None], "y": [1, 2], "v": [[1.0], [2.0]]}):
        columns = ArrowColumns(table)
        assert (columns.names, columns.n_rows) == (["x", "y", "v"], 2)
        assert columns.rows(["v", "x"]) == [Row({"v": [1.0], "x": "law"}), Row({"v": [2.0], "x": None})]
        assert columns.rows([]) == [Row({}), Row({})]


def test_dictionaries_and_extensions_are_read_as_what_they_stand_for():
    class Label(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.string(), "test.label")

        def __arrow_ext_serialize__(self):
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            return cls()

    coded = pa.array(["law", "law"]).dictionary_encode()
    label = pa.ExtensionArray.from_storage(Label(), pa.array(["math", None]))
    for table in tables({"x": coded, "y": label}):
        assert ArrowColumns(table).rows(["x", "y"]) == [Row({"x": "law", "y": "math"}), Row({"x": "law", "y": None})]


def test_a_text_that_is_not_utf8_spoils_its_row_alone():
    broken = pa.array([b"law", b"\xff\xfe"]).view(pa.string())
    for table in tables({"x": broken}):
        good, bad = ArrowColumns(table).rows(["x"])
        assert good == Row({"x": "law"})
        assert bad.fields == {}
        assert bad.error.startswith("row 2: column 'x': ")


def test_columns_keep_their_types_and_results_have_theirs_whatever_they_hold():
    when = pa.array([datetime.datetime(2026, 1, 2), None], pa.timestamp("ns", "UTC"))
    small = pa.array([1, None], pa.int8())
    for table in tables({"when": when, "model": small, "left": small}):
        routed = ArrowColumns(table).with_results([("when", "when"), ("model", "input_model")], RESULTS)
        assert type(routed) is type(table)
        assert dict(zip(routed.schema.names, routed.schema.types, strict=True)) == {
            "when": when.type,
            "input_model": pa.int8(),
            **TYPES,
        }
        assert routed.column("input_model").to_pylist() == [1, None]
        assert {name: routed.column(name).to_pylist() for name in RESULTS} == RESULTS


def test_a_table_without_rows_has_its_columns():
    for table in (pa.table({"x": pa.array([], pa.int8())}), pa.record_batch({"x": pa.array([], pa.int8())})):
        routed = ArrowColumns(table).with_results([("x", "x")], {name: [] for name in RESULTS})
        assert dict(zip(routed.schema.names, routed.schema.types, strict=True)) == {"x": pa.int8(), **TYPES}
        assert ArrowColumns(table).rows(["x"]) == []


def test_a_column_that_is_there_twice_is_refused():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(InputError, match=r"^batch: it has the column 'x' twice$"):
        ArrowColumns(table)
