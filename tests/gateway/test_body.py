"""Any JSON object with another model and nothing else changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.gateway.body import JsonBody
from gpu_select.gateway.errors import BadRequestError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(st.text(), VALUES), st.data(), NAMES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_only_the_model_changes(values, data, name, ascii_only, indent):
    keys = data.draw(st.permutations([*values, "model"])) if "model" not in values else [*values]
    values = {key: values.get(key, "auto") for key in keys}
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    sent = text.encode("utf-8", "surrogatepass")
    if not ascii_only and any(0xD800 <= ord(c) < 0xE000 for c in text):
        with pytest.raises(BadRequestError):
            JsonBody(sent)
        return
    body = JsonBody(sent)
    assert body.values == json.loads(text)
    replaced = body.with_model(name)
    assert json.loads(replaced) == {**values, "model": name}
    marked = json.dumps({**values, "model": "\0mark"}, ensure_ascii=ascii_only, indent=indent)
    before, after = marked.split(json.dumps("\0mark"), 1) if marked.count('"\\u0000mark"') == 1 else (None, None)
    if before is not None and name != values["model"]:
        assert replaced == f"{before}{json.dumps(name)}{after}".encode()


@given(st.binary() | st.text().map(str.encode) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_it_takes_what_the_standard_library_takes_for_an_object(data):
    try:
        expected = json.loads(data.decode(), parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        expected = None
    try:
        values = JsonBody(data).values
    except BadRequestError:
        values = None
    assert values == (expected if isinstance(expected, dict) else None)


@pytest.mark.parametrize(
    "text",
    ["{} {}", '{"a":1,}', '{"a" 1}', '{"a":}', "{,}", '{"a":1 "b":2}', "{1:2}", '{"a":1', "{", '{"a":01}', "\ufeff{}"],
)
def test_what_is_no_json(text):
    with pytest.raises(BadRequestError, match="the body is not valid JSON"):
        JsonBody(text.encode())


def test_the_same_model_gives_the_same_bytes():
    data = b'{"model": "\\u0061uto" }'
    assert JsonBody(data).with_model("auto") is data


def test_long_integers_keep_their_digits():
    assert JsonBody(b'{"model": "a", "seed": %d}' % 10**40).with_model("b") == b'{"model": "b", "seed": %d}' % 10**40
    with pytest.raises(BadRequestError, match="not valid JSON"):
        JsonBody(b'{"model": ' + b"9" * 5000 + b"}")
