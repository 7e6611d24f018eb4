"""Sections: each kind of value, what is wrong with it, and what variables may stand for."""

from __future__ import annotations

import pytest

from gpu_select.config.environment import expand
from gpu_select.config.sections import Problems, Section
from gpu_select.errors import ConfigError


def found(use, value, **environment):
    """What a function makes of a section of this value, and the text of its problems."""
    problems = Problems("f.yaml")
    result = use(Section(expand(value, problems.add_missing, environment=environment), "", problems))
    try:
        problems.raise_if_any()
    except ConfigError as error:
        return result, str(error).removeprefix("f.yaml: ")
    return result, ""


@pytest.mark.parametrize(
    ("use", "value", "result", "problem"),
    [
        (lambda s: s.boolean("a"), {"a": False}, False, ""),
        (lambda s: s.boolean("a"), {}, None, ""),
        (lambda s: s.boolean("a"), {"a": "true"}, None, "a: expected true or false, got 'true'"),
        (lambda s: s.boolean("a"), {"a": 1}, None, "a: expected true or false, got 1"),
        (lambda s: s.choice("a", ("x", "y")), {"a": "y"}, "y", ""),
        (lambda s: s.choice("a", ("x", "y")), {"a": ["x"]}, None, "a: expected one of x, y, got ['x']"),
        (lambda s: s.choice("a", ("x",), required=True), {}, None, "a: expected x, got None"),
        (lambda s: s.integer("a", 9, least=-9), {"a": -9}, -9, ""),
        (lambda s: s.integer("a", 9), {"a": 10}, None, "a: expected an integer from 1 to 9, got 10"),
        (lambda s: s.number("a", 2, least=0.5), {"a": 2}, 2.0, ""),
        (lambda s: s.number("a", 2, least=0.5), {"a": 0.1}, None, "a: expected a number from 0.5 to 2, got 0.1"),
        (lambda s: s.number("a", 2), {"a": "1"}, None, "a: expected a number from 0 to 2, got '1'"),
        (lambda s: s.section("a"), {"b": 1}, None, ""),
        (lambda s: s.section("a").text("b"), {"a": {"b": "c"}}, "c", ""),
        (lambda s: s.section("a").text("b"), {"a": 3}, None, "a: expected a mapping, got a number"),
        (lambda s: s.items("a", "things", most=3), {"a": [5, 6]}, [("a[0]", 5), ("a[1]", 6)], ""),
        (lambda s: s.items("a", "things", most=1), {"a": [5, 6]}, [], "a: expected a list of 0 to 1 things, got 2 of"),
        (lambda s: s.items("a", "things", least=1, most=2), {}, [], "a: expected a list of 1 to 2 things, got nothing"),
        (lambda s: s.items("a", "things", most=2), {"a": {}}, [], "a: expected a list of 0 to 2 things, got a mapping"),
        (lambda s: s.text("a") and s.finish(), {"a": "x", "b": 1, "c": 2}, None, "b: unknown key; expected one of a; "),
        (lambda s: s.finish(), {"k" * 99: 1}, None, f"'{'k' * 76}...: unknown key"),
        (lambda s: s.names(), {"b": 1, "a": 2}, ("b", "a"), ""),
    ],
)  # fmt: skip
def test_values(use, value, result, problem):
    got, text = found(use, value)
    assert got == result
    assert text.startswith(problem)
    assert bool(text) == bool(problem)


@pytest.mark.parametrize(
    ("use", "held", "result"),
    [
        (lambda s: s.integer("a", 9), "7", 7),
        (lambda s: s.number("a", 9), "2.5e0", 2.5),
        (lambda s: s.boolean("a"), "True", True),
        (lambda s: s.text("a"), "x", "x"),
        (lambda s: s.choice("a", ("x", "y")), "y", "y"),
    ],
)
def test_a_variable_may_stand_for_any_kind(use, held, result):
    got, text = found(use, {"a": "${V}"}, V=held)
    assert (got, text) == (result, "")
    assert type(got) is type(result)  # not a text that remembers where it comes from


@pytest.mark.parametrize("use", [lambda s: s.integer("a", 9), lambda s: s.number("a", 9), lambda s: s.boolean("a")])
def test_what_a_bad_variable_holds_is_not_shown(use):
    assert found(use, {"a": "${V}"}, V="sk-secret")[1].endswith(", got '${V}'")


def test_a_missing_variable_is_the_only_problem_of_its_place():
    assert found(lambda s: s.integer("a", 9), {"a": "${V}"})[1] == "a: the environment variable V is not set"
