"""JSON in and out: orjson where it is installed, the standard library elsewhere, with the same strictness."""

from __future__ import annotations

import json
from typing import Any

try:
    import orjson
except ImportError:  # pragma: no cover - covered by the run without optional packages
    orjson = None  # type: ignore[assignment]

__all__ = ["dumps", "loads"]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def loads(data: bytes) -> Any:
    """Parse one JSON value. NaN and Infinity are refused, as JSON has no such numbers.

    Raises:
        ValueError: not JSON, not UTF-8, or nested too deeply.
    """
    if orjson is not None:
        return orjson.loads(data)
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def dumps(value: Any) -> bytes:
    """One line of UTF-8 JSON without a line end. NaN and infinities become null."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:
            pass  # an integer beyond 64 bits: only the standard library writes those
    return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "replace"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
