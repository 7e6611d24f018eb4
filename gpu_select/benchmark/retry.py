"""How long to wait before a call is made again."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["MAX_ASKED_S", "backoff_s", "retry_after_s", "wait_s"]

MAX_ASKED_S = 300.0
"""A server that asks for a longer wait has no use for another try in this run."""

_FIRST_S = 1.0
_MOST_S = 60.0
_SPREAD_S = 1.0
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")


def backoff_s(n_failed: int, rng: random.Random) -> float:
    """Seconds before another try, at random up to a bound that doubles from 1 s to 60 s.

    Full jitter: Brooker (2015), Exponential Backoff and Jitter, AWS Architecture Blog.

    Args:
        n_failed: tries that have failed, from 1.
        rng: the chance.
    """
    return rng.uniform(0.0, min(_MOST_S, _FIRST_S * 2.0 ** min(n_failed - 1, 30)))


def wait_s(n_failed: int, asked_s: float | None, rng: random.Random) -> float:
    """Seconds before another try: at least what the server asks for, and not all calls at the same time."""
    return backoff_s(n_failed, rng) if asked_s is None else asked_s + rng.uniform(0.0, _SPREAD_S)


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """What a header Retry-After asks for in seconds, be it a number of seconds or an HTTP date (RFC 9110, 10.2.3).

    Args:
        value: of the header; None where there is none.
        now: by default the system's time.

    Returns:
        Seconds >= 0; None for no header, or another value.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.match(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
