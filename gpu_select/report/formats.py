"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["NONE", "count", "interval_points", "margin", "percent", "points", "quality", "seconds", "signed", "usd"]

_MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""Stands for what is not known."""


def signed(text: str) -> str:
    """With a real minus sign in place of a hyphen."""
    return text.replace("-", _MINUS)


def count(value: int) -> str:
    """1,234."""
    return f"{value:,}"


def quality(value: float | None) -> str:
    """0.456."""
    return NONE if value is None else signed(f"{value:.3f}")


def points(value: float | None) -> str:
    """A difference of qualities in points, hundredths of the scale: +1.7."""
    return NONE if value is None else signed(f"{_no_minus_zero(100 * value, 1):+.1f}")


def interval_points(value: tuple[float, float] | None) -> str:
    """0.2 to 3.1."""
    return NONE if value is None else signed(" to ".join(f"{_no_minus_zero(100 * end, 1):.1f}" for end in value))


def percent(value: float | None, digits: int = 1) -> str:
    """5.4 %."""
    return NONE if value is None else signed(f"{_no_minus_zero(100 * value, digits):.{digits}f}\N{NO-BREAK SPACE}%")


def seconds(value: float | None) -> str:
    """1.23 s."""
    if value is None:
        return NONE
    return f"{value:.3g}\N{NO-BREAK SPACE}s" if value < 1 else f"{value:.2f}\N{NO-BREAK SPACE}s"


def usd(value: float | None) -> str:
    """Dollars, with three digits that say something: 0.0123, 4.56, 789."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:#.3g}" if value else "0"


def margin(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return NONE
    return signed(f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}")


def _no_minus_zero(value: float, digits: int) -> float:
    return round(value, digits) + 0.0
