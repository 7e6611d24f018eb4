"""What a log tells of the models that answered it, and whether expectations agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import brief

__all__ = ["MODEL_FIELDS", "Agreement", "Logged", "agreement", "mean_interval", "read_logged"]

MODEL_FIELDS = ("model", "model_name")
"""Where the model that answered is looked for when nobody names a field."""

_FIGURES: dict[str, tuple[tuple[str, ...], float]] = {
    "quality": (("performance",), 1.0),
    "time_s": (("response_time",), 1e9),
    "cost_usd": (("cost",), 1e9),
    "input_tokens": (("input_tokens", "prompt_tokens"), 1e9),
    "output_tokens": (("output_tokens", "completion_tokens"), 1e9),
}
"""Names in a row or under its `usage`, as benchmark records have them, and the largest value."""

_MOST_DIGITS = 40


@dataclass(frozen=True)
class Logged:
    """What one row says."""

    model: str | None
    figures: dict[str, float]
    """quality, time_s, cost_usd, input_tokens and output_tokens, as far as they are known."""
    odd: str = ""
    """What is wrong with the first value that is none."""


def read_logged(fields: Mapping[str, Any], model_fields: Sequence[str]) -> Logged:
    """What a row says of the model that answered it. Numbers may be texts, as in CSV."""
    model = next((fields[name] for name in model_fields if fields.get(name) not in (None, "")), None)
    usage = fields.get("usage")
    sources = (fields, usage) if isinstance(usage, dict) else (fields,)
    figures, odd = {}, ""
    for figure, (names, most) in _FIGURES.items():
        found = next(((name, s[name]) for s in sources for name in names if s.get(name) not in (None, "")), None)
        if found is None:
            continue
        value = _number(found[1])
        if value is not None and 0 <= value <= most:
            figures[figure] = value
        else:
            odd = odd or f"{found[0]}: expected a number in [0, {most:g}], got {brief(found[1])}"
    return Logged(model if isinstance(model, str) else None, figures, odd)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str) and len(value) > _MOST_DIGITS:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):  # JSON has integers beyond all floats
        return None


@dataclass(frozen=True)
class Agreement:
    """Expected against logged means, on the rows that the policy gives to the very model that answered them."""

    figure: str
    """quality, time_s or cost_usd."""
    rows: int
    expected: float
    realised: float
    ci95: tuple[float, float]
    """Of realised - expected; rows with the same query are one draw."""


def agreement(
    figure: str, expected_R: NDArray[np.float64], realised_R: NDArray[np.float64], group_R: NDArray[np.int64]
) -> Agreement | None:
    """Compare (R,) expected with (R,) logged values, NaN where there is none.

    None where fewer than two queries have both: one alone says nothing of chance.

    Args:
        figure: its name.
        expected_R, realised_R: the values.
        group_R: (R,) alike for rows with the same query.
    """
    both = np.isfinite(expected_R) & np.isfinite(realised_R)
    if len(np.unique(group_R[both])) < 2:
        return None
    difference = realised_R[both] - expected_R[both]
    return Agreement(
        figure,
        int(both.sum()),
        float(expected_R[both].mean()),
        float(realised_R[both].mean()),
        mean_interval(difference, group_R[both]),
    )


def mean_interval(values_R: NDArray[np.float64], group_R: NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of a mean where rows of one group go together.

    Args:
        values_R: (R,) finite.
        group_R: (R,) integers, at least two different ones.

    Source:
        Liang and Zeger (1986), doi:10.1093/biomet/73.1.13, the variance of a mean over clusters, times G / (G - 1).
    """
    mean = float(values_R.mean())
    _, place_R = np.unique(group_R, return_inverse=True)
    sums_G = np.bincount(place_R.reshape(-1), values_R - mean)
    arm = 1.96 * float(np.sqrt((sums_G**2).sum() * len(sums_G) / (len(sums_G) - 1))) / len(values_R)
    return mean - arm, mean + arm
