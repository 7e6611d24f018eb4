"""YAML comes in as plain values or as a one-line error, and what goes out comes back."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select import yamlio
from gpu_select.errors import ConfigError, GpuSelectError, InputError
from gpu_select.yamlio import dump_yaml, load_yaml


@pytest.fixture
def load(tmp_path):
    """Call with a text or bytes: what reading a file of it gives."""

    def read(content, name="settings.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_yaml(path)

    return read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment\n", None),
        ("a: 1\nb: [x, 2.5, true, null, ~]\n", {"a": 1, "b": ["x", 2.5, True, None, None]}),
        ("- a\n- b: {c: d}\n", ["a", {"b": {"c": "d"}}]),
        ("---\na: 1\n...\n", {"a": 1}),
        ("a:\n", {"a": None}),
        ("text: |\n  two\n  lines\n", {"text": "two\nlines\n"}),
        ("key: ${VAR}\nname: llama3.2:1b", {"key": "${VAR}", "name": "llama3.2:1b"}),
        ("\ufeffa: é", {"a": "é"}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("[0o17, 0x1F, 010, -7, +7]", [15, 31, 10, -7, 7]),
        ("[1e-3, 1.5E+2, .5, 2., -1.0]", [0.001, 150.0, 0.5, 2.0, -1.0]),
        ("[.inf, -.Inf, +.INF]", [math.inf, -math.inf, math.inf]),
        # what YAML 1.1 takes for booleans, dates, base 60 and numbers with underscores
        ("[yes, No, on, OFF, y]", ["yes", "No", "on", "OFF", "y"]),
        ("[2024-01-01, '5', 1:30, 1_000, 0b1]", ["2024-01-01", "5", "1:30", "1_000", "0b1"]),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("a: &anchor 1", {"a": 1}),
    ],
)
def test_values_are_those_of_the_core_schema(load, text, value):
    found = load(text)
    assert found == value
    assert repr(found) == repr(value)


def test_not_a_number_is_a_number(load):
    assert math.isnan(load(".nan"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "line 2, column 1: the key 'a' occurs twice"),
        ("x:\n  - {b: 1, 'b': 2}", "line 2, column 12: the key 'b' occurs twice"),
        ("a: &x [1]\nb: *x", "line 2, column 4: an alias (*name), which is not supported: write the value out"),
        ("5: x", "line 1, column 1: expected a text as key, got 5 (put it in quotes)"),
        ("true: x", "line 1, column 1: expected a text as key, got True (put it in quotes)"),
        ("? [a]\n: x", "line 1, column 3: expected a text as key, got ['a'] (put it in quotes)"),
        ("a: [1, 2", "line 1, column 9: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a:\n\t- b", "line 2, column 1: while scanning for the next token, found character '\\t' that cannot start"),
        ("--- a\n--- b", "line 2, column 1: expected a single document in the stream, but found another document"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: the tag 'tag:yaml.org,2002:python/object/apply"),
        ("a: !secret x", "line 1, column 4: the tag '!secret' is not supported"),
        ("!!set {a}", "line 1, column 1: the tag 'tag:yaml.org,2002:set' is not supported"),
        ("!!binary aGk=", "line 1, column 1: the tag 'tag:yaml.org,2002:binary' is not supported"),
        ("!!int x", "line 1, column 1: expected a value of type int, got 'x'"),
        ("!!bool 'yes'", "line 1, column 1: expected a value of type bool, got 'yes'"),
        ("!!map [a]", "line 1, column 1: expected a mapping"),
        ("!!seq {a: b}", "line 1, column 1: expected a sequence node, but found mapping"),
        ("!!int [a]", "line 1, column 1: expected a scalar node, but found sequence"),
        ("9" * 5000, "line 1, column 1: an integer of 5000 digits"),
        ("[" * 200 + "]" * 200, "line 1, column 102: nested deeper than 100 levels"),
        ("\n".join(" " * i + "a:" for i in range(200)), "line 101, column 101: nested deeper than 100 levels"),
        ("a: 1\nb: \x01", "line 2: the character U+0001 is not allowed in YAML"),
        (b"a: \xff", "not UTF-8: byte 3 is 0xff"),
        ("a: 'open", "line 1, column 9: while scanning a quoted scalar, found unexpected end of stream"),
        ("%YAML 3.0\n--- a", "line 1, column 1: found incompatible YAML document (version 1.* is required)"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(load, tmp_path, text, problem):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'settings.yaml'}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_aliases_is_refused_before_it_grows(load):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="line 2, column 10: an alias"):
        load("\n".join(lines))


def test_the_size_is_bounded(load, tmp_path, monkeypatch):
    monkeypatch.setattr(yamlio, "_MAX_BYTES", 1 << 20)
    with pytest.raises(
        InputError, match=r"cannot read .*settings\.yaml: expected a YAML file of at most 1 MiB, got a l"
    ):
        load("a" * ((1 << 20) + 1))
    monkeypatch.setattr(yamlio, "_MAX_BYTES", 5)
    assert load("a: 12") == {"a": 12}


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.yaml: No such file or directory"):
        load_yaml(tmp_path / "absent.yaml")


def test_the_output_is_readable_and_keeps_the_order():
    value = {"models": [{"name": "b", "prices": {"z": 1.5, "a": 2}}, {"name": "a"}], "none": None, "yes": "no"}
    assert dump_yaml(value) == (
        "models:\n- name: b\n  prices:\n    z: 1.5\n    a: 2\n- name: a\nnone: null\n'yes': 'no'\n"
    )


def test_the_same_list_twice_is_written_twice(load):
    shared = ["a"]
    assert load(dump_yaml({"x": shared, "y": shared})) == {"x": ["a"], "y": ["a"]}


def test_other_types_are_refused():
    with pytest.raises(TypeError, match=r"no YAML for <object object"):
        dump_yaml({"a": object()})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "1e-3",
        "no",
        "null",
        "~",
        "1:30",
        "0o7",
        "1_0",
        "2024-01-01",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "\t",
        ".nan",
        "*a",
        "&a",
    ]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(value=PLAIN)
def test_what_is_written_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any_value.yaml"
    text = dump_yaml(value)
    path.write_text(text, encoding="utf-8", newline="")
    found = load_yaml(path)
    assert found == value
    assert repr(found) == repr(value)
    # a reader of YAML 1.1 sees the same
    assert yaml.safe_load(text) == value


@settings(max_examples=150, deadline=None)
@given(
    data=st.text(st.sampled_from("ab:-[]{},*&!|>'\"#%\n \t?<0.~"), max_size=40).map(str.encode) | st.binary(max_size=20)
)
def test_any_bytes_give_a_value_or_a_one_line_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any_bytes.yaml"
    path.write_bytes(data)
    text = f"{path}: "
    try:
        load_yaml(path)
    except GpuSelectError as error:
        text = str(error)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
