"""What Parquet columns can hold and JSON cannot: as texts."""

from __future__ import annotations

import decimal
import math
from typing import Any

from gpu_select.jsonio import dumps

__all__ = ["cell", "plain_value"]


def plain_value(value: Any) -> Any:
    r"""A value that JSON has, for one that came from a Parquet column.

    Bytes become UTF-8 text, those that are none `\xNN`; decimals their digits; points in time ISO 8601 (in UTC where
    the column has a time zone); durations a count and its unit.

    Raises:
        TypeError: a value that no reader gives.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, decimal.Decimal):
        return str(value)
    if hasattr(value, "as_py"):
        return _plain_scalar(value)
    raise TypeError(f"a row holds a {type(value).__name__}")


def _plain_scalar(scalar: Any) -> Any:
    import pyarrow as pa  # a scalar comes from nowhere else

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_map(kind):
        return [[_plain_scalar(item["key"]), _plain_scalar(item["value"])] for item in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _plain_scalar(scalar[i]) for i in range(kind.num_fields)}
    if pa.types.is_nested(kind):
        return [_plain_scalar(item) for item in scalar.values]
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            scalar = scalar.cast(pa.timestamp(kind.unit, "UTC"))
        return scalar.cast(pa.string()).as_py().replace(" ", "T")
    if pa.types.is_duration(kind):
        return f"{scalar.value} {kind.unit}"
    if pa.types.is_temporal(kind):
        return scalar.cast(pa.string()).as_py()
    return scalar.as_py()


def cell(value: Any) -> str:
    """A value as the text of a CSV cell: empty for None, JSON for numbers, booleans and nested values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    if isinstance(value, (int, list, tuple, dict)):
        return dumps(value, plain_value).decode("utf-8")
    return cell(plain_value(value))
