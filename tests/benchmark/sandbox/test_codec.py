from __future__ import annotations

import contextlib
import os
from collections import Counter, OrderedDict, deque, namedtuple
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.sandbox import codec
from gpu_select.benchmark.sandbox.codec import CodecError, Handle, decode, encode, read_frame, write_frame

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(alphabet=st.characters())
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_out_as_it_went_in(value):
    out = decode(encode(value))
    assert out == value
    assert type(out) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset({"a"}),
        bytearray(b"x"),
        range(1, 9, 2),
        deque([1, 2], 5),
        1 << 10_000,
        "\ud800",
        float("inf"),
        {(1, 2): [3]},
    ],
)
def test_other_types(value):
    out = decode(encode(value))
    assert out == value
    assert type(out) is type(value)


def test_subclasses_come_as_what_they_derive_from():
    class Number(IntEnum):
        ONE = 1

    class Text(str):
        __slots__ = ()

        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    point = namedtuple("point", "x y")
    for value, plain in (
        (Number.ONE, 1),
        (Text("a"), "a"),
        (point(1, 2), (1, 2)),
        (Counter("aa"), {"a": 2}),
        (OrderedDict(a=1), {"a": 1}),
    ):
        out = decode(encode(value))
        assert out == plain
        assert type(out) is type(plain)


def test_what_has_no_value_goes_by_a_handle():
    value = [object(), 1]
    with pytest.raises(CodecError, match="a object cannot be sent"):
        encode(value)
    data = encode(value, lambda _: Handle(7))
    assert decode(data, lambda number: f"object {number}") == ["object 7", 1]
    with pytest.raises(CodecError, match="no value"):
        decode(data)


def test_what_holds_itself_is_too_deep():
    value: list[object] = []
    value.append(value)
    with pytest.raises(CodecError, match="nested too deep"):
        encode(value)


def test_what_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(codec, "MAX_FRAME_BYTES", 100)
    with pytest.raises(CodecError, match="too large"):
        encode("x" * 100)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data):
    with contextlib.suppress(CodecError):
        decode(data)


@given(VALUES, st.data())
def test_damaged_bytes_are_a_value_or_an_error(value, data):
    raw = bytearray(encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        decode(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"l\xff\xff\xff\xff",
        b"u\xff\xff\xff\xffx",
        b"i\0\0\0\x01z",
        b"NN",
        b"l\0\0\0\x01" * 10_000,
        b"d\0\0\0\x01l\0\0\0\0N",
        b"q" + encode((1, 2)),
        b"1" + encode((1, 2, 3, 4)),
        b"F" + encode("1/0")[1:],
    ],
)
def test_bytes_that_are_no_value(data):
    with pytest.raises(CodecError):
        decode(data)


def test_dates_and_numbers_are_of_the_library_s_types():
    values = [date(2020, 2, 29), datetime(2020, 1, 1, 5), time(1), timedelta(days=-1), Decimal("1.10"), Fraction(1, 3)]
    assert decode(encode(values)) == values


def test_frames():
    reader, writer = os.pipe()
    try:
        write_frame(writer, b"abc")
        write_frame(writer, b"")
        assert read_frame(reader) == b"abc"
        assert read_frame(reader) == b""
        os.write(writer, b"\xff\xff\xff\xff")
        with pytest.raises(CodecError, match="too large"):
            read_frame(reader)
        os.write(writer, b"\0\0\0\x05ab")
    finally:
        os.close(writer)
    with pytest.raises(CodecError, match="the other end is gone"):
        read_frame(reader)
    os.close(reader)
