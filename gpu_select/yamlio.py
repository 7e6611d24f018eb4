"""YAML in and out: one document of plain values, read strictly, and written so that any reader gives the same back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from gpu_select.errors import ConfigError, InputError, brief
from gpu_select.files import open_read

__all__ = ["dump_yaml", "load_yaml"]

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 100
_TAG = "tag:yaml.org,2002:"
_BOM = b"\xef\xbb\xbf"

# The core schema of YAML 1.2. Version 1.1, PyYAML's own, reads `no` as false, `1:30` as 90 and `1e-3` as a text.
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_LINE_ENDS = re.compile("[\r\x85\u2028\u2029\ufeff]")
_SCHEMA = (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


def _resolvers(more: Mapping[str, list[Any]] | None = None) -> dict[str, list[Any]]:
    """By first character, the tags and patterns of the schema, after those of another one."""
    out = {start: [*pairs] for start, pairs in (more or {}).items()}
    for kind, pattern, starts in _SCHEMA:
        for start in starts:
            out.setdefault(start, []).append((_TAG + kind, pattern))
    return out


class _Loader(yaml.SafeLoader):
    """Texts, numbers, booleans, nulls, lists and mappings; neither tags of other types nor aliases."""

    yaml_implicit_resolvers = _resolvers()
    yaml_constructors: ClassVar[dict[Any, Any]] = {}  # filled below; nothing is inherited

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            # a few lines of aliases to aliases stand for billions of values
            raise yaml.MarkedYAMLError(
                None, None, "an alias (*name), which is not supported: write the value out", mark
            )
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {_MAX_DEPTH} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def plain_scalar(self, node: Any) -> Any:
        """The value of a scalar with one of the schema's tags."""
        text = str(self.construct_scalar(node))
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if not next(pattern for name, pattern, _ in _SCHEMA if name == kind).match(text):
            raise _fault(node, f"expected a value of type {kind}, got {brief(text)}")
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            try:
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            except ValueError as error:  # more digits than Python converts
                raise _fault(node, f"an integer of {len(text)} digits") from error
        return float(re.sub(r"\.(?=[iInN])", "", text))

    def plain_list(self, node: Any) -> list[Any]:
        """The items of a list."""
        return self.construct_sequence(node, deep=True)

    def plain_mapping(self, node: yaml.Node) -> dict[str, Any]:
        """A mapping with texts as keys, each of them once."""
        if not isinstance(node, yaml.MappingNode):
            raise _fault(node, "expected a mapping")
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _fault(key_node, f"expected a text as key, got {brief(key)} (put it in quotes)")
            if key in out:
                raise _fault(key_node, f"the key {brief(key)} occurs twice")
            out[key] = self.construct_object(value_node, deep=True)
        return out

    def refuse(self, node: yaml.Node) -> Any:
        """Any other tag."""
        raise _fault(node, f"the tag {brief(node.tag)} is not supported")


for _kind in ("null", "bool", "int", "float", "str"):
    _Loader.add_constructor(_TAG + _kind, _Loader.plain_scalar)
_Loader.add_constructor(_TAG + "seq", _Loader.plain_list)
_Loader.add_constructor(_TAG + "map", _Loader.plain_mapping)
_Loader.add_constructor(None, _Loader.refuse)


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, node.start_mark)


def load_yaml(path: str | Path) -> Any:
    """The one document of a YAML file, by the core schema of YAML 1.2.

    Args:
        path: a file in UTF-8, or `-`; at most 1 MiB.

    Returns:
        dicts with texts as keys, lists, texts, integers, floats (NaN and infinities too), booleans, None; None for an
        empty file.

    Raises:
        InputError: the file cannot be read, or is larger.
        ConfigError: not such a document: broken YAML, a key twice, an alias, another tag, nested too deep. Names the
            file, the line and the column.
    """
    with open_read(path) as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(
            f"cannot read {path}: expected a YAML file of at most {_MAX_BYTES >> 20} MiB, got a larger one"
        )
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError.joined([f"{path}: not UTF-8: byte {error.start} is {data[error.start]:#04x}"]) from error
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError.joined([f"{path}: {where}{' '.join(what.split())}"]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{error.character:04X}"
        raise ConfigError.joined([f"{path}: line {line}: the character {character} is not allowed in YAML"]) from error


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would take for something else."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Line ends of other scripts are escaped: left as they are, they would come back as spaces."""
        style = '"' if _LINE_ENDS.search(data) else None
        return self.represent_scalar(_TAG + "str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)


def dump_yaml(value: Any) -> str:
    """A YAML document in block style, its keys in the given order; `load_yaml` gives the value back.

    Args:
        value: dicts with texts as keys, lists, texts, numbers, booleans, None, without cycles.
    Raises:
        TypeError: another type.
    """
    try:
        return str(
            yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
        )
    except yaml.representer.RepresenterError as error:
        raise TypeError(f"no YAML for {brief(error.args[-1])}") from error
