"""Values that are safe in a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.gateway.headers import answer_headers, request_id, safe_value


@given(st.text())
def test_a_value_is_printable_ascii_of_bounded_length(text):
    value = safe_value(text)
    assert value.isascii()
    assert value.isprintable()
    assert len(value) <= 256


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("org/gpt-4o:mini (beta)", "org/gpt-4o:mini (beta)"),
        ("a\r\nSet-Cookie: x", "a%0D%0ASet-Cookie: x"),
        ("数学", "%E6%95%B0%E5%AD%A6"),
        ("100%", "100%25"),
        ("\ud800", "?"),
    ],
)
def test_what_is_not_is_percent_encoded(text, value):
    assert safe_value(text) == value


def test_new_request_ids_differ():
    assert request_id(None) != request_id(None)


def test_headers_named_by_connection_stay_behind():
    assert answer_headers([("Connection", "x-a, X-B"), ("X-A", "1"), ("x-b", "2"), ("X-C", "3"), ("X-C", "4")]) == [
        ("x-c", "3"),
        ("x-c", "4"),
    ]
