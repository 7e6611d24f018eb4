import datetime
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select import jsonio
from gpu_select.jsonio import MAX_DEPTH, dumps, loads

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
near_json = st.lists(
    st.sampled_from(
        [*'{}[]:,"\\/ \t\n\r0123456789+-.eE', *"ntfu", "null", "true", "1e999", "NaN", "\\ud800", "\\udc00"]
    )
).map("".join)


@pytest.fixture(params=["orjson", "standard library"], autouse=True)
def backend(request, monkeypatch):
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(jsonio, "orjson", None)


def outcome(data):
    try:
        return repr(loads(data))
    except ValueError as error:
        return f"{type(error)} {error}"


@settings(deadline=None)
@given(value=values)
def test_every_value_comes_back_the_same(value):
    line = dumps(value)
    assert b"\n" not in line
    assert repr(loads(line)) == repr(value)


@settings(deadline=None)
@given(data=near_json.map(str.encode) | st.binary(max_size=20))
def test_both_parsers_accept_the_same_and_refuse_in_the_same_words(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonio, "orjson", None)
        expected = outcome(data)
    assert outcome(data) == expected


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"NaN", ValueError, "NaN is not a JSON number"),
        (b"[-Infinity]", ValueError, "-Infinity is not a JSON number"),
        (b"1e999", ValueError, "beyond the range of a double"),
        (b'"\\ud800"', ValueError, "half of a surrogate pair"),
        (b'{"a": 1} x', json.JSONDecodeError, "Extra data"),
        (b'"a\x00"', json.JSONDecodeError, "Invalid control character"),
        (b"", json.JSONDecodeError, "Expecting value"),
        (b'"\xff"', UnicodeDecodeError, "invalid start byte"),
        (b"9" * 5000, ValueError, "digits"),
    ],
)
def test_what_is_not_json_is_refused(data, error, text):
    with pytest.raises(error, match=text):
        loads(data)


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18, 10**40, -(10**40)]
)
def test_integers_keep_every_digit(number):
    line = f'{{"deep": [{{"id": {number}}}]}}'.encode()
    assert loads(line) == {"deep": [{"id": number}]}
    assert dumps(loads(line)) == line.replace(b" ", b"")


def test_large_floats_stay_floats():
    assert loads(b"[1e30, -1.5e300]") == [1e30, -1.5e300]
    assert isinstance(loads(b"1e30"), float)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded_and_what_is_within_can_be_written(opening, closing):
    deepest = opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH
    assert dumps(loads(deepest)) == deepest
    assert dumps([loads(deepest), 2**70]) == b"[" + deepest + b"," + str(2**70).encode() + b"]"
    for extra in (1, 1000, 100_000):
        depth = MAX_DEPTH + extra
        with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH} levels"):
            loads(opening * depth + b"1" + closing * depth)
        with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH} levels"):
            loads(b"[1e300," + opening * depth + b"1" + closing * depth + b"]")


def test_numbers_that_json_lacks_become_null():
    assert dumps({"a": math.nan, "b": [math.inf, (-math.inf, 1.5)]}) == b'{"a":null,"b":[null,[null,1.5]]}'
    assert dumps([2**70, math.nan]) == b"[%d,null]" % 2**70


def test_text_is_utf8_and_half_a_surrogate_pair_is_replaced():
    assert dumps("é😀") == '"é😀"'.encode()
    assert dumps(["\ud800"]) == b'["?"]'


@pytest.mark.parametrize("value", [b"bytes", datetime.date(2020, 1, 1), {1, 2}, object()])
def test_other_types_need_a_default(value):
    with pytest.raises(TypeError):
        dumps({"a": value})
    assert dumps({"a": [value]}, lambda _: {"nan": math.nan}) == b'{"a":[{"nan":null}]}'
    assert dumps({"a": [value], "b": 2**70}, lambda _: [math.nan]) == b'{"a":[[null]],"b":%d}' % 2**70
