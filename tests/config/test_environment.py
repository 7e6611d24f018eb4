"""Environment variables in values: replaced anywhere, missing ones named with their path, contents never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.config.environment import expand, is_expanded, shown

SET = {"TOKEN": "sk-secret", "PORT": "80", "EMPTY": "", "NESTED": "${TOKEN}"}


def expanded(value, environment=SET):
    problems = []
    result = expand(value, lambda where, text: problems.append(f"{where}: {text}"), environment=environment)
    return result, problems


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Bearer ${TOKEN}", "Bearer sk-secret"),
        ("http://h:${PORT}/${EMPTY}v1", "http://h:80/v1"),
        ("${TOKEN}${PORT}", "sk-secret80"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$$${TOKEN}", "$${TOKEN}"),
        ("${NESTED}", "${TOKEN}"),
        ("$TOKEN {TOKEN} ${", "$TOKEN {TOKEN} ${"),
    ],
)
def test_variables_inside_a_value(written, text):
    assert expanded(written) == (text, [])


def test_values_at_any_depth_and_no_keys():
    value = {"${TOKEN}": [{"a": "${PORT}"}, 1, None, True, 0.5], "b": "x"}
    assert expanded(value) == ({"${TOKEN}": [{"a": "80"}, 1, None, True, 0.5], "b": "x"}, [])


def test_every_missing_variable_is_named_with_its_path():
    value = {"a": ["${X}", {"b.c": "${Y}${Z}"}], "d\n": "${}", "e": "${X:-1}", "f": "${PORT}"}
    assert expanded(value)[1] == [
        "a[0]: the environment variable X is not set",
        "a[1].b.c: the environment variable Y is not set",
        "a[1].b.c: the environment variable Z is not set",
        "'d\\n': expected ${NAME} with the name of an environment variable, got '${}'",
        "e: expected ${NAME} with the name of an environment variable, got '${X:-1}'",
    ]


def test_what_a_variable_holds_is_not_shown():
    value, _ = expanded({"k": ["Bearer ${TOKEN}"], "plain": "x"})
    assert shown(value) == "{'k': ['Bearer ${TOKEN}'], 'plain': 'x'}"
    assert [is_expanded(value["k"][0]), is_expanded("x"), is_expanded("$${X}")] == [True, False, False]


@given(st.text(), st.text())
def test_any_text_keeps_what_is_no_reference(before, after):
    value, _ = expanded(before.replace("{", "") + "${PORT}" + after.replace("{", ""))
    start = before.replace("{", "")
    expected = start + "80" if not start.endswith("$") else start[:-1] + "${PORT}"
    assert value == expected + after.replace("{", "")
