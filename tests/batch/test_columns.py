"""Batches of every kind that engines hand over."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_select.batch.columns import columns_of
from gpu_select.errors import InputError
from gpu_select.logs import Row


def values(column):
    return [row.fields["x"] for row in columns_of({"x": column}).rows(["x"])]


@pytest.mark.parametrize(
    "column",
    [
        ["law", None, ""],
        ("law", None, ""),
        np.array(["law", None, ""], object),
        np.array(["law", float("nan"), ""], object),
        ["law", np.float32("nan"), np.str_("")],
    ],
)
def test_texts_and_what_is_missing(column):
    assert values(column) == ["law", None, ""]


def test_texts_of_pandas():
    pd = pytest.importorskip("pandas", reason="needs pandas")
    frame = pd.DataFrame({"x": ["law", None, ""]})
    for column in (frame["x"], frame["x"].astype(object), frame["x"].astype("category"), frame["x"].astype("string")):
        assert values(column) == ["law", None, ""]
    assert values(pd.Series([pd.NaT, pd.NA], dtype=object)) == [None, None]


def test_texts_of_arrow():
    pa = pytest.importorskip("pyarrow")
    for column in (pa.array(["law", None, ""]), pa.chunked_array([["law"], [None, ""]])):
        assert values(column) == ["law", None, ""]


@pytest.mark.parametrize(
    "column",
    [
        np.array([[1.5, 2.0], [3.0, 4.0]], np.float32),
        [np.array([1.5, 2.0]), np.array([3.0, 4.0])],
        [[1.5, 2.0], [3.0, 4.0]],
        [(1.5, 2.0), [*np.array([3.0, 4.0])]],
    ],
)
def test_vectors_become_lists(column):
    assert values(column) == [[1.5, 2.0], [3.0, 4.0]]


def test_rows_without_columns_are_still_rows():
    assert columns_of({"x": [1, 2]}).rows([]) == [Row({}), Row({})]


def test_results_come_last_and_columns_stay_as_they_are():
    column = np.arange(2)
    routed = columns_of({"x": column, "y": [3, 4]}).with_results([("x", "input_x")], {"x": [5, 6]})
    assert routed == {"input_x": column, "x": [5, 6]}
    assert routed["input_x"] is column


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"x": "law"}, "batch['x']: expected a list or an array, a value a row, got 'law'"),
        ({"x": 3}, "batch['x']: expected a list or an array, a value a row, got 3"),
        ({"x": {"a": 1}}, "batch['x']: expected a list or an array, a value a row, got {'a': 1}"),
        ({"x": np.array(3)}, "batch['x']: expected a list or an array, a value a row, got array(3)"),
        ({3: [1]}, "batch: expected columns whose names are texts, got the name 3"),
        ({"x": [1], "y": []}, "batch['y']: expected 1 values, as many as 'x' has, got 0"),
        (
            ["law"],
            "batch: expected a dict of columns or an Arrow table, got list; with pandas, dict(frame.items()); with "
            "Ray Data, batch_format='numpy' or 'pyarrow'",
        ),
    ],
)
def test_what_makes_no_rows_is_refused(batch, text):
    with pytest.raises(InputError) as caught:
        columns_of(batch)
    assert str(caught.value) == text
