"""Any JSON object with another model and nothing else changed."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.gateway.body import JsonBody, _has_more_values
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


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'"x"', b'{"a":1}'])
def test_too_many_values(value):
    data = b'{"model": "a", "x": [' + b",".join([value] * 320_000) + b"]}"
    with pytest.raises(BadRequestError, match="the body has more than 320000 values"):
        JsonBody(data)


def test_marks_within_strings_are_no_values():
    text = '[{,"\\' * 200_000
    body = JsonBody(json.dumps({"model": "a", "x": [text, "\\", text, ""]}).encode())
    assert body.values["x"][0] == text


@given(st.lists(VALUES, max_size=5), st.integers(0, 30))
def test_values_are_counted_outside_of_strings(values, most):
    def n_marks(value):
        inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(len(inner) - 1, 0) + sum(map(n_marks, inner))

    text = json.dumps(values)
    assert _has_more_values(text, most) == (n_marks(values) > most)


def test_too_many_members():
    values = {"model": "a", **{f"k{i}": 1 for i in range(999)}}
    assert JsonBody(json.dumps(values).encode()).values == values
    values["one more"] = 1
    with pytest.raises(BadRequestError, match="the body's object has more than 1000 members"):
        JsonBody(json.dumps(values).encode())


def test_a_long_body_is_read_outside_of_the_event_loop(two, monkeypatch):
    from gpu_select.gateway import call

    threads = []

    def read(data):
        threads.append(threading.current_thread().name)
        return JsonBody(data)

    monkeypatch.setattr(call, "JsonBody", read)
    gateway, small, _ = two
    for text in ("short", "long " * 20_000):
        assert gateway.chat(f"small {text}").status == 200
        assert json.loads(small.requests[-1][2])["messages"][0]["content"] == f"small {text}"
    assert threads[0] != threads[1]
    assert threads[1].startswith("asyncio_")


def test_the_same_model_gives_the_same_bytes():
    data = b'{"model": "\\u0061uto" }'
    assert JsonBody(data).with_model("auto") is data


def test_long_integers_keep_their_digits():
    assert JsonBody(b'{"model": "a", "seed": %d}' % 10**40).with_model("b") == b'{"model": "b", "seed": %d}' % 10**40
    with pytest.raises(BadRequestError, match="not valid JSON"):
        JsonBody(b'{"model": ' + b"9" * 5000 + b"}")
