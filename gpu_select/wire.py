"""The standard JSON selector files <-> plain arrays: the only place that knows their keys.

Production routers read and write these files; what they panic or guess on is refused here, with the file, the field,
what was expected and what was found. Number matrices are parsed row by row, so that a file of any size costs its own
bytes plus its array.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gpu_select import jsonio
from gpu_select.errors import FileFormatError, InputError, brief
from gpu_select.files import atomic_write, open_read, strip_compression

__all__ = [
    "ALGORITHMS",
    "MAX_MAGNITUDE",
    "OWN_KEY",
    "BatchNormLayer",
    "DropoutLayer",
    "KMeansFile",
    "KNNFile",
    "LinearClassifier",
    "LinearLayer",
    "MLPFile",
    "MLPLayer",
    "RBFClassifier",
    "ReLULayer",
    "SVMFile",
    "SelectorFile",
    "file_name",
    "read_selector_file",
    "write_selector_file",
]

ALGORITHMS = ("knn", "kmeans", "svm", "mlp")

OWN_KEY = "gpu_select"
"""Everything of ours in a file goes under this one key, which engines ignore."""

_MAX_BYTES = 4 << 30
"""A compressed file may not grow beyond this: a few MB can hold terabytes of zeros."""

MAX_MAGNITUDE = 1e15
"""Larger numbers are refused: squares and sums of smaller ones stay finite in float32."""

_BOUNDED = f"finite numbers of at most {MAX_MAGNITUDE:g} in magnitude"


@dataclass(frozen=True, eq=False)
class KNNFile:
    """Labelled rows that vote. `own` is what stands under our key, if anything does."""

    k: int
    embeddings_ND: NDArray[np.float32]
    labels: list[str]
    qualities_N: NDArray[np.float64] | None = None
    latencies_ns_N: NDArray[np.int64] | None = None
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class KMeansFile:
    """Centroids, each with the model that answers its cluster."""

    centroids_KD: NDArray[np.float32]
    cluster_models: list[str]
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """f(x) = weights . x - rho, x of unit norm."""

    model_name: str
    weights_D: NDArray[np.float64]
    rho: float


@dataclass(frozen=True, eq=False)
class RBFClassifier:
    """f(x) = sum_i alpha_i exp(-gamma ||x - support_vector_i||^2) - rho, x of unit norm."""

    model_name: str
    alpha_S: NDArray[np.float64]
    support_vectors_SD: NDArray[np.float32]
    rho: float
    gamma: float


@dataclass(frozen=True, eq=False)
class SVMFile:
    """One decision function a classifier; the largest wins, linear ones count first at a tie."""

    model_names: list[str]
    kernel_type: str
    gamma: float
    linear_classifiers: list[LinearClassifier] = field(default_factory=list)
    rbf_classifiers: list[RBFClassifier] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """y = weight x + bias; no bias is one of zeros."""

    weight_OI: NDArray[np.float32]
    bias_O: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class ReLULayer:
    """y = max(x, 0)."""


@dataclass(frozen=True, eq=False)
class BatchNormLayer:
    """y = weight (x - running_mean) / sqrt(running_var + eps) + bias, each (W,) for a layer of W units."""

    weight_W: NDArray[np.float64]
    bias_W: NDArray[np.float64]
    running_mean_W: NDArray[np.float64]
    running_var_W: NDArray[np.float64]
    eps: float


@dataclass(frozen=True)
class DropoutLayer:
    """Nothing at inference; p is what training left out."""

    p: float


MLPLayer = LinearLayer | ReLULayer | BatchNormLayer | DropoutLayer


@dataclass(frozen=True, eq=False)
class MLPFile:
    """Layers in order on the feature as it is; the model of the largest output wins, the first at a tie."""

    model_names: list[str]
    layers: list[MLPLayer]
    dropout: float = 0.0
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_dim(self) -> int:
        """Width of the features: the first linear layer's."""
        return int(self._linear[0].weight_OI.shape[1])

    @property
    def hidden_sizes(self) -> list[int]:
        """Outputs of every linear layer but the last."""
        return [len(layer.weight_OI) for layer in self._linear[:-1]]

    @property
    def _linear(self) -> list[LinearLayer]:
        return [layer for layer in self.layers if isinstance(layer, LinearLayer)]


SelectorFile = KNNFile | KMeansFile | SVMFile | MLPFile


def file_name(algorithm: str) -> str:
    """The name under which routers look for a selector in a folder."""
    return f"{algorithm}_model.json"


def read_selector_file(path: str | Path, algorithm: str | None = None) -> SelectorFile:
    """Read and check one selector file, plain or compressed.

    Args:
        path: the JSON file, also .gz or .zst.
        algorithm: what it must hold; by default whatever it says it holds.

    Returns:
        The file's arrays: matrices float32 (N, D), other numbers float64, latencies int64 nanoseconds.

    Raises:
        InputError: missing or unreadable.
        FileFormatError: anything that an engine would panic or guess on.
    """
    if not os.path.exists(path):  # pathlib's raises for a name that is too long
        raise InputError(
            f"pretrained model not found: {path} (train it: gpu-select train --data-file RECORDS.jsonl "
            f"--output-dir {Path(path).parent})"
        )
    with _file_bytes(path) as data:
        document = _Parser(path, data).document()
    return _checked(_Fields(path, "", document), algorithm)


# ---------------------------------------------------------------- bytes -> values


@contextlib.contextmanager
def _file_bytes(path: str | Path) -> Iterator[bytes | mmap.mmap]:
    if strip_compression(str(path))[1]:
        with open_read(path) as stream:
            yield _read_bounded(stream, path)
        return
    with open_read(path) as stream:
        try:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # an empty file, or a pipe
            yield _read_bounded(stream, path)
            return
        with mapped:
            yield mapped


def _read_bounded(stream: IO[bytes], path: str | Path) -> bytes:
    data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: more than {_MAX_BYTES >> 30} GiB when decompressed; decompress it first")
    return data


_SPACE = re.compile(rb"[ \t\n\r]*")
# Possessive, and in _BRACKET with the closing quote left open, so that no text makes them go back and try again.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\[\]{}]+")

_MATRICES = frozenset({"embeddings", "centroids", "support_vectors"})
_OBJECT_LISTS = frozenset({"linear_classifiers", "rbf_classifiers"})
_LAYERS = "layers"


class _Parser:
    """A JSON reader that turns matrix fields into arrays row by row and gives the rest to `jsonio`."""

    def __init__(self, path: str | Path, data: bytes | mmap.mmap) -> None:
        self.path, self.data, self.pos = path, data, 0

    def document(self) -> dict[str, Any]:
        if self._peek() != b"{":
            raise self._error("", "a JSON object", self._found())
        document = self._object("")
        if self._peek():
            raise self._error("", "one JSON object and nothing after it", self._found())
        return document

    def _peek(self) -> bytes:
        space = _SPACE.match(self.data, self.pos)
        self.pos = space.end() if space else self.pos
        return self.data[self.pos : self.pos + 1]

    def _found(self) -> str:
        text = bytes(self.data[self.pos : self.pos + 20])
        where = f"at byte {self.pos}"
        return f"{brief(text.decode('utf-8', 'replace'), 40)} {where}" if text else f"the end of the file {where}"

    def _error(self, name: str, expected: str, got: str) -> FileFormatError:
        return FileFormatError(self.path, name or "document", expected, got)

    def _take(self, token: bytes, name: str) -> None:
        if self._peek() != token:
            raise self._error(name, f"{token.decode()!r}", self._found())
        self.pos += 1

    def _items(self, closing: bytes, name: str) -> Iterator[int]:
        """Positions of the items of an array or object whose opening bracket was just taken."""
        if self._peek() == closing:
            self.pos += 1
            return
        count = 0
        while True:
            yield count
            count += 1
            token = self._peek()
            if token not in (b",", closing) or not token:
                raise self._error(name, f"',' or {closing.decode()!r}", self._found())
            self.pos += 1
            if token == closing:
                return

    def _object(self, prefix: str, *, in_layer: bool = False) -> dict[str, Any]:
        self._take(b"{", prefix)
        out: dict[str, Any] = {}
        for _ in self._items(b"}", prefix):
            self._peek()
            match = _STRING.match(self.data, self.pos)
            if match is None:
                raise self._error(prefix, "a field name in double quotes", self._found())
            key = self._loads(match.start(), match.end(), prefix)
            self.pos = match.end()
            name = f"{prefix}{key}"
            if key in out:
                raise self._error(name, "each field once", "the same field twice")
            self._take(b":", name)
            # a layer's weight is a matrix or, in batch norm, a list of numbers
            out[key] = self._layer_value(key, name) if in_layer else self._value(key, name)
        return out

    def _layer_value(self, key: str, name: str) -> Any:
        self._peek()
        return self._matrix(name) if key == "weight" and self._opens(b"[") else self._any(name)

    def _value(self, key: str, name: str) -> Any:
        opening = self._peek()
        if key in _MATRICES and opening == b"[":
            return self._matrix(name)
        if key in _OBJECT_LISTS and name == key and opening == b"[":  # within a classifier, it is not one of ours
            self.pos += 1
            out = []
            for i in self._items(b"]", name):
                if self._peek() != b"{":
                    raise self._error(f"{name}[{i}]", "a JSON object", self._found())
                out.append(self._object(f"{name}[{i}]."))
            return out
        if name == _LAYERS and self._opens(b"{"):  # other files may mean something else by it
            self.pos += 1
            return [
                self._object(f"{name}[{i}].", in_layer=True) if self._peek() == b"{" else self._any(f"{name}[{i}]")
                for i in self._items(b"]", name)
            ]
        return self._any(name)

    def _any(self, name: str) -> Any:
        """A value that `jsonio` reads as a whole."""
        start = self.pos
        self.pos = self._extent(start, name)
        return self._loads(start, self.pos, name)

    def _opens(self, token: bytes) -> bool:
        """Whether a list begins here whose first item begins with `token`."""
        if self.data[self.pos : self.pos + 1] != b"[":
            return False
        space = _SPACE.match(self.data, self.pos + 1)
        start = space.end() if space else self.pos + 1
        return self.data[start : start + 1] == token

    def _extent(self, start: int, name: str) -> int:
        """Position after the JSON value that begins at `start`; `jsonio` checks what lies between."""
        opening = self.data[start : start + 1]
        if opening in (b"[", b"{"):
            depth = 0
            for match in _BRACKET.finditer(self.data, start):
                token = match.group()
                if token in (b"[", b"{"):
                    depth += 1
                elif token in (b"]", b"}"):
                    depth -= 1
                    if depth == 0:
                        return match.end()
            raise self._error(name, "a complete JSON value", "the end of the file")
        match_one = (_STRING if opening == b'"' else _SCALAR).match(self.data, start)
        if match_one is None:
            raise self._error(name, "a JSON value", self._found())
        return match_one.end()

    def _loads(self, start: int, end: int, name: str) -> Any:
        try:
            return jsonio.loads(self.data[start:end])
        except ValueError as error:
            raise self._error(name, "valid JSON", f"{brief(str(error))} near byte {start}") from error

    def _matrix(self, name: str) -> NDArray[np.float32]:
        self.pos += 1
        out = np.empty((0, 0), np.float32)
        n_rows = 0
        for i in self._items(b"]", name):
            if self._peek() != b"[":
                raise self._error(f"{name}[{i}]", "a list of numbers", self._found())
            start = self.pos
            end = self.data.find(b"]", start) + 1 or len(self.data)
            row = self._row(start, end, f"{name}[{i}]")
            self.pos = end
            if i == 0:
                # the first row's length in bytes tells how many rows can follow
                out = np.empty(((len(self.data) - start) // (end - start) + 16, len(row)), np.float32)
            elif len(row) != out.shape[1]:
                raise self._error(f"{name}[{i}]", f"{out.shape[1]} numbers like row 0", f"{len(row)}")
            if i == len(out):
                out.resize((i + i // 4 + 16, out.shape[1]), refcheck=False)
            with np.errstate(over="ignore"):  # a double beyond float32 becomes an infinity
                out[i] = row
            n_rows = i + 1
        out.resize((n_rows, out.shape[1]), refcheck=False)
        if out.size:
            bad = np.flatnonzero((out.max(axis=1) > MAX_MAGNITUDE) | (out.min(axis=1) < -MAX_MAGNITUDE))
            if len(bad):
                raise self._error(f"{name}[{bad[0]}]", _BOUNDED, "a larger one")
        return out

    def _row(self, start: int, end: int, name: str) -> NDArray[np.float64]:
        text = self.data[start:end]
        values = self._loads(start, end, name)
        if not _flat(text):
            raise self._error(name, "a list of numbers", brief(values, 60))
        try:
            return np.asarray(values, dtype=np.float64)
        except OverflowError as error:
            raise self._error(name, _BOUNDED, "an integer beyond float64") from error


def _flat(text: bytes) -> bool:
    """True when a bracketed text holds numbers alone: `true`, `null` and NaN have letters that numbers lack."""
    return not (b'"' in text or b"[" in text[1:] or b"u" in text or b"a" in text or b"{" in text)


# ---------------------------------------------------------------- values -> checked documents


class _Fields:
    """Typed access to one JSON object's fields; every complaint names the file and the field."""

    def __init__(self, path: str | Path, prefix: str, values: dict[str, Any]) -> None:
        self.path, self.prefix, self.values = path, prefix, values

    def error(self, name: str, expected: str, got: str) -> FileFormatError:
        return FileFormatError(self.path, self.prefix + name, expected, got)

    def _get(self, name: str, expected: str) -> Any:
        if name not in self.values:
            raise self.error(name, expected, "no such field")
        return self.values[name]

    def integer(self, name: str, least: int) -> int:
        expected = f"an integer >= {least}"
        value = self._get(name, expected)
        if type(value) is not int or value < least:
            raise self.error(name, expected, brief(value))
        return value

    def number(self, name: str) -> float:
        expected = f"a finite number of at most {MAX_MAGNITUDE:g} in magnitude"
        value = self._get(name, expected)
        if type(value) not in (int, float) or not abs(value) <= MAX_MAGNITUDE:
            raise self.error(name, expected, brief(value))
        return float(value)

    def string(self, name: str) -> str:
        value = self._get(name, "a text")
        if not isinstance(value, str):
            raise self.error(name, "a text", brief(value))
        return value

    def model_name(self) -> str:
        value = self.string("model_name")
        if not value:
            raise self.error("model_name", "a model name", brief(value))
        return value

    def strings(self, name: str, length: int | None = None, like: str = "") -> list[str]:
        expected = "a list of model names"
        value = self._get(name, expected)
        if not isinstance(value, list):
            raise self.error(name, expected, brief(value))
        for i, item in enumerate(value):
            if not isinstance(item, str) or not item:
                raise self.error(f"{name}[{i}]", "a model name", brief(item))
        self._same_length(name, len(value), length, like)
        return value

    def numbers(self, name: str, length: int | None = None, like: str = "") -> NDArray[np.float64]:
        value = self._list_of(name, (int, float), "a list of numbers")
        self._same_length(name, len(value), length, like)
        try:
            out = np.array(value, dtype=np.float64)
        except OverflowError as error:
            raise self.error(name, _BOUNDED, "an integer beyond float64") from error
        bad = np.flatnonzero(np.abs(out) > MAX_MAGNITUDE)
        if len(bad):
            raise self.error(f"{name}[{bad[0]}]", _BOUNDED, f"{out[bad[0]]:g}")
        return out

    def sizes(self, name: str) -> list[int]:
        value = self._list_of(name, (int,), "a list of integers")
        for i, item in enumerate(value):
            if item < 1:
                raise self.error(f"{name}[{i}]", "an integer >= 1", brief(item))
        return value

    def share(self, name: str) -> float:
        value = self.number(name)
        if not 0 <= value < 1:
            raise self.error(name, "a number in [0, 1)", f"{value:g}")
        return value

    def integers(self, name: str, length: int, like: str) -> NDArray[np.int64]:
        value = self._list_of(name, (int,), "a list of integers")
        self._same_length(name, len(value), length, like)
        try:
            return np.array(value, dtype=np.int64)
        except OverflowError as error:
            raise self.error(name, "integers of 64 bits", "a larger one") from error

    def _list_of(self, name: str, types: tuple[type, ...], expected: str) -> list[Any]:
        value = self._get(name, expected)
        if not isinstance(value, list):
            raise self.error(name, expected, "rows of numbers" if isinstance(value, np.ndarray) else brief(value))
        if not set(map(type, value)) <= set(types):
            i = next(i for i, item in enumerate(value) if type(item) not in types)
            raise self.error(f"{name}[{i}]", "an integer" if types == (int,) else "a number", brief(value[i]))
        return value

    def matrix(self, name: str) -> NDArray[np.float32]:
        value = self._get(name, "a list of rows of numbers")
        if not isinstance(value, np.ndarray):
            raise self.error(name, "a list of rows of numbers", brief(value))
        if value.size == 0:
            raise self.error(name, "at least one row of at least one number", f"{value.shape[0]} x {value.shape[1]}")
        return value

    def objects(self, name: str, of: str = "classifiers") -> list[_Fields]:
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(name, f"a list of {of}", brief(value))
        for i, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.error(f"{name}[{i}]", "a JSON object", brief(item))
        return [_Fields(self.path, f"{self.prefix}{name}[{i}].", item) for i, item in enumerate(value)]

    def _same_length(self, name: str, got: int, length: int | None, like: str) -> None:
        if length is not None and got != length:
            raise self.error(name, f"{length} entries, as many as {like}", f"{got}")

    def own(self) -> dict[str, Any]:
        value = self.values.get(OWN_KEY, {})
        if not isinstance(value, dict):
            raise self.error(OWN_KEY, "a JSON object", brief(value))
        return value


def _checked(fields: _Fields, algorithm: str | None) -> SelectorFile:
    known = (algorithm,) if algorithm else ALGORITHMS
    found = fields.string("algorithm")
    if found not in known:
        raise fields.error("algorithm", " or ".join(map(repr, known)), brief(found))
    if fields.values.get("trained") is not True:
        got = brief(fields.values["trained"]) if "trained" in fields.values else "no such field"
        raise fields.error("trained", "true", got)
    if found == "knn":
        return _knn(fields)
    if found == "kmeans":
        return _kmeans(fields)
    return _svm(fields) if found == "svm" else _mlp(fields)


def _knn(fields: _Fields) -> KNNFile:
    k = fields.integer("k", least=1)
    embeddings = fields.matrix("embeddings")
    rows, like = len(embeddings), "embeddings"
    return KNNFile(
        k=k,
        embeddings_ND=embeddings,
        labels=fields.strings("labels", rows, like),
        # engines take an empty list for "not there"
        qualities_N=None if fields.values.get("qualities") in (None, []) else fields.numbers("qualities", rows, like),
        latencies_ns_N=None
        if fields.values.get("latencies") in (None, [])
        else fields.integers("latencies", rows, like),
        own=fields.own(),
    )


def _kmeans(fields: _Fields) -> KMeansFile:
    centroids = fields.matrix("centroids")
    n_clusters = fields.integer("num_clusters", least=1)
    if n_clusters != len(centroids):
        raise fields.error("num_clusters", f"{len(centroids)}, the number of centroids", str(n_clusters))
    return KMeansFile(centroids, fields.strings("cluster_models", len(centroids), "centroids"), own=fields.own())


def _svm(fields: _Fields) -> SVMFile:
    kernel_type = fields.string("kernel_type")
    if kernel_type not in ("Rbf", "Linear"):
        raise fields.error("kernel_type", "'Rbf' or 'Linear'", brief(kernel_type))
    linear = [
        LinearClassifier(part.model_name(), part.numbers("weights"), part.number("rho"))
        for part in fields.objects("linear_classifiers")
    ]
    rbf = [_rbf(part) for part in fields.objects("rbf_classifiers")]
    widths = {f"linear_classifiers[{i}].weights": len(part.weights_D) for i, part in enumerate(linear)}
    widths |= {f"rbf_classifiers[{i}].support_vectors": part.support_vectors_SD.shape[1] for i, part in enumerate(rbf)}
    if not widths:
        raise fields.error("rbf_classifiers", "at least one classifier in one of the two lists", "none")
    first, width = next(iter(widths.items()))
    for name, other in widths.items():
        if other != width or not other:
            raise fields.error(name, f"{width or 'at least 1'} dimensions, as many as {first}", str(other))
    return SVMFile(
        model_names=fields.strings("model_names"),
        kernel_type=kernel_type,
        gamma=fields.number("gamma"),
        linear_classifiers=linear,
        rbf_classifiers=rbf,
        own=fields.own(),
    )


def _rbf(part: _Fields) -> RBFClassifier:
    vectors = part.matrix("support_vectors")
    alpha = part.numbers("alpha", len(vectors), "support_vectors")
    gamma = part.number("gamma")
    if gamma < 0:
        raise part.error("gamma", "a number >= 0", f"{gamma:g}")
    return RBFClassifier(part.model_name(), alpha, vectors, part.number("rho"), gamma)


_MAX_OUTPUT = 1e30
"""Outputs of a layer stay below this for features of at most 1 in magnitude, far from float32's infinity."""


def _mlp(fields: _Fields) -> MLPFile:
    names = fields.strings("model_names")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise fields.error(f"model_names[{i}]", "each model once", brief(name))
    if not names:
        raise fields.error("model_names", "at least one model name", "none")
    n_classes = fields.integer("n_classes", least=1)
    if n_classes != len(names):
        raise fields.error("n_classes", f"{len(names)}, the number of model_names", str(n_classes))
    width, width_of = fields.integer("feature_dim", least=1), "feature_dim"
    parts = fields.objects(_LAYERS, of="layers")
    layers: list[MLPLayer] = []
    largest = 1.0
    for part in parts:
        kind = part.string("type")
        if kind not in _LAYER_READERS:
            raise part.error("type", " or ".join(map(repr, _LAYER_READERS)), brief(kind))
        layer = _LAYER_READERS[kind](part, width, width_of)
        layers.append(layer)
        largest = _largest_output(layer, largest)
        if not largest <= _MAX_OUTPUT:
            expected = f"outputs of at most {_MAX_OUTPUT:g} for features of at most 1, as float32 ends near there"
            raise part.error("weight", expected, f"up to {largest:.2g}")
        if isinstance(layer, LinearLayer):
            width, width_of = len(layer.weight_OI), f"{part.prefix}out_features"
    linear = [layer for layer in layers if isinstance(layer, LinearLayer)]
    if not linear:
        raise fields.error(_LAYERS, "at least one linear layer", f"{len(layers)} layers, none of them linear")
    if width != n_classes:
        raise fields.error(width_of.removeprefix(fields.prefix), f"{n_classes}, as n_classes for the last", str(width))
    document = MLPFile(names, layers, fields.share("dropout"), own=fields.own())
    hidden_sizes = fields.sizes("hidden_sizes")
    if hidden_sizes != document.hidden_sizes:
        expected = f"{document.hidden_sizes}, the outputs of the linear layers but the last"
        raise fields.error("hidden_sizes", expected, brief(hidden_sizes))
    return document


def _linear(part: _Fields, width: int, width_of: str) -> LinearLayer:
    _as_wide(part, "in_features", width, width_of)
    n_out = part.integer("out_features", least=1)
    weight_OI = part.matrix("weight")
    if weight_OI.shape != (n_out, width):
        raise part.error("weight", f"{n_out} x {width} numbers, out_features x in_features", _by(weight_OI.shape))
    bias_O = None if part.values.get("bias") is None else part.numbers("bias", n_out, "out_features")
    return LinearLayer(weight_OI, bias_O)


def _batch_norm(part: _Fields, width: int, width_of: str) -> BatchNormLayer:
    _as_wide(part, "num_features", width, width_of)
    names = "weight", "bias", "running_mean", "running_var"
    weight_W, bias_W, mean_W, var_W = (part.numbers(name, width, "num_features") for name in names)
    negative = np.flatnonzero(var_W < 0)
    if len(negative):
        raise part.error(f"running_var[{negative[0]}]", "a number >= 0", f"{var_W[negative[0]]:g}")
    eps = part.number("eps")
    if eps <= 0:
        raise part.error("eps", "a number > 0", f"{eps:g}")
    return BatchNormLayer(weight_W, bias_W, mean_W, var_W, eps)


def _as_wide(part: _Fields, name: str, width: int, width_of: str) -> None:
    got = part.integer(name, least=1)
    if got != width:
        raise part.error(name, f"{width}, as many as {width_of}", str(got))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


_LAYER_READERS: dict[str, Callable[[_Fields, int, str], MLPLayer]] = {
    "linear": _linear,
    "relu": lambda part, width, width_of: ReLULayer(),
    "batch_norm": _batch_norm,
    "dropout": lambda part, width, width_of: DropoutLayer(part.share("p")),
}


def _largest_output(layer: MLPLayer, largest: float) -> float:
    """Bound of a layer's outputs where its inputs are at most `largest` in magnitude."""
    if isinstance(layer, LinearLayer):
        bias = 0.0 if layer.bias_O is None else float(np.abs(layer.bias_O).max())
        return float(np.abs(layer.weight_OI).sum(axis=1, dtype=np.float64).max()) * largest + bias
    if isinstance(layer, BatchNormLayer):
        scale_W = np.abs(layer.weight_W) / np.sqrt(layer.running_var_W + layer.eps)
        return float((scale_W * (largest + np.abs(layer.running_mean_W)) + np.abs(layer.bias_W)).max())
    return largest


# ---------------------------------------------------------------- documents -> bytes


def write_selector_file(path: str | Path, document: SelectorFile) -> None:
    """Write a selector as the standard JSON file: whole or not at all, the same bytes for the same arrays.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as stream:
        _write_object(stream, _fields_of(document))
        stream.write(b"\n")


def _fields_of(document: SelectorFile) -> dict[str, Any]:
    out: dict[str, Any]
    if isinstance(document, KNNFile):
        out = {"algorithm": "knn", "trained": True, "k": document.k}
        out |= {"embeddings": document.embeddings_ND, "labels": document.labels}
        if document.qualities_N is not None:
            out["qualities"] = document.qualities_N.tolist()
        if document.latencies_ns_N is not None:
            out["latencies"] = document.latencies_ns_N.tolist()
    elif isinstance(document, KMeansFile):
        out = {"algorithm": "kmeans", "trained": True, "num_clusters": len(document.centroids_KD)}
        out |= {"centroids": document.centroids_KD, "cluster_models": document.cluster_models}
    elif isinstance(document, MLPFile):
        out = {"algorithm": "mlp", "trained": True, "model_names": document.model_names}
        out |= {"feature_dim": document.feature_dim, "n_classes": len(document.model_names)}
        out |= {"hidden_sizes": document.hidden_sizes, "dropout": document.dropout}
        out[_LAYERS] = [_layer_fields(layer) for layer in document.layers]
    else:
        out = {"algorithm": "svm", "trained": True, "model_names": document.model_names}
        out |= {"kernel_type": document.kernel_type, "gamma": document.gamma}
        out["linear_classifiers"] = [
            {"model_name": part.model_name, "weights": part.weights_D.tolist(), "rho": part.rho}
            for part in document.linear_classifiers
        ]
        out["rbf_classifiers"] = [
            {
                "model_name": part.model_name,
                "alpha": part.alpha_S.tolist(),
                "support_vectors": part.support_vectors_SD,
                "rho": part.rho,
                "gamma": part.gamma,
            }
            for part in document.rbf_classifiers
        ]
    if document.own:
        out[OWN_KEY] = document.own
    return out


def _layer_fields(layer: MLPLayer) -> dict[str, Any]:
    if isinstance(layer, LinearLayer):
        n_out, n_in = layer.weight_OI.shape
        bias = None if layer.bias_O is None else layer.bias_O.tolist()
        sizes = {"in_features": n_in, "out_features": n_out}
        return {"type": "linear", **sizes, "weight": layer.weight_OI, "bias": bias}
    if isinstance(layer, BatchNormLayer):
        return {
            "type": "batch_norm",
            "num_features": len(layer.weight_W),
            "weight": layer.weight_W.tolist(),
            "bias": layer.bias_W.tolist(),
            "running_mean": layer.running_mean_W.tolist(),
            "running_var": layer.running_var_W.tolist(),
            "eps": layer.eps,
        }
    return {"type": "dropout", "p": layer.p} if isinstance(layer, DropoutLayer) else {"type": "relu"}


def _write_object(stream: IO[bytes], fields: dict[str, Any]) -> None:
    stream.write(b"{")
    for i, (key, value) in enumerate(fields.items()):
        stream.write((b", " if i else b"") + jsonio.dumps(key) + b": ")
        if isinstance(value, np.ndarray):
            _write_list(stream, value, lambda row: stream.write(jsonio.dumps_float32(row)))
        elif key in _OBJECT_LISTS or key == _LAYERS:
            _write_list(stream, value, lambda part: _write_object(stream, part))
        else:
            stream.write(jsonio.dumps(value))
    stream.write(b"}")


def _write_list(stream: IO[bytes], items: Any, write: Callable[[Any], object]) -> None:
    stream.write(b"[")
    for i, item in enumerate(items):
        if i:
            stream.write(b",\n")
        write(item)
    stream.write(b"]")
