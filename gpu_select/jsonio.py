"""JSON in and out: orjson where it is installed, the standard library elsewhere, with the same values and errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import orjson
except ImportError:  # pragma: no cover - covered by the run without optional packages
    orjson = None  # type: ignore[assignment]
else:
    if tuple(int(part) for part in orjson.__version__.split(".")[:2]) < (3, 10):  # pragma: no cover
        orjson = None  # type: ignore[assignment]  # older ones crash on deep nesting (CVE-2024-27454)

__all__ = ["MAX_DEPTH", "STRICT_DECODER", "dumps", "dumps_float32", "loads"]

MAX_DEPTH = 200
"""Objects and arrays may be nested this deep: less than any writer's limit, so that what was read can be written."""


def loads(data: bytes) -> Any:
    """Parse one JSON value. NaN and Infinity are refused, as JSON has no such numbers; integers keep every digit.

    Raises:
        json.JSONDecodeError (a ValueError): not JSON; it knows the line and the column.
        UnicodeDecodeError (a ValueError): not UTF-8.
        ValueError: a number beyond all bounds, a lone surrogate, or nested deeper than `MAX_DEPTH`.
    """
    if orjson is not None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # the standard library says why, in the same words as without orjson
        else:
            if not _has_huge_float((value,), 0):
                return value
    return _strict_loads(data)


def _has_huge_float(items: Iterable[Any], depth: int) -> bool:
    """Whether a float may have been an integer, as orjson rounds those beyond 64 bits. Refuses what is too deep."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    found = False
    for item in items:
        kind = type(item)
        if kind is float:
            if item >= 1.8e19 or item <= -9.2e18:
                found = True
        elif kind is dict:
            found |= _has_huge_float(item.values(), depth + 1)
        elif kind is list:
            found |= _has_huge_float(item, depth + 1)
    return found


def _strict_loads(data: bytes) -> Any:
    text = data.decode("utf-8")
    try:
        value = STRICT_DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    _has_huge_float((value,), 0)
    if "\\u" in text:
        _refuse_lone_surrogates(value)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number beyond the range of a double")
    return value


STRICT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
"""The standard library's, without NaN, infinities and numbers beyond a double; raises ValueError."""


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair in a text") from error


def dumps(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """One line of UTF-8 JSON without a line end. NaN and infinities become null.

    Args:
        value: dicts with text keys, lists, tuples, texts, numbers, booleans, None.
        default: gives such a value for anything else.
    Raises:
        TypeError: another type, and no `default`.
    """
    if orjson is not None:
        try:
            return orjson.dumps(value, default, orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS)
        except TypeError:
            pass  # an integer beyond 64 bits or a lone surrogate: only the standard library writes those
    plain = _plain(value, default)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _plain(value: Any, default: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item, default) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, default) for item in value]
    if default is not None and value is not None and not isinstance(value, (str, int)):
        return _plain(default(value), default)
    return value


def dumps_float32(row_D: NDArray[np.float32]) -> bytes:
    """A JSON list of the shortest decimals that read back as the same finite float32 numbers."""
    if orjson is not None:
        return orjson.dumps(row_D, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps([float(str(value)) for value in row_D], separators=(",", ":"), allow_nan=False).encode()
