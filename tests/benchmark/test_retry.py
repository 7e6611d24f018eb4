from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.retry import backoff_s, retry_after_s, wait_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("n_failed", "most"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (100, 60), (5000, 60)])
def test_waits_are_spread_up_to_a_bound_that_doubles(n_failed, most):
    rng = random.Random(0)
    waits = [backoff_s(n_failed, rng) for _ in range(2000)]
    assert min(waits) < 0.01 * most
    assert 0.99 * most < max(waits) <= most
    assert abs(sum(waits) / len(waits) - most / 2) < 0.03 * most


def test_what_the_server_asks_for_is_the_least():
    waits = [wait_s(1, 7.0, random.Random(i)) for i in range(200)]
    assert 7.0 <= min(waits) < 7.05
    assert 7.9 < max(waits) <= 8.0
    assert wait_s(1, None, random.Random(0)) <= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        ("999999999", 999999999.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60.0),
        ("Sun Mar  1 12:01:00 2026", 60.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("9999999999", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after_s(value, NOW) == seconds


@given(st.text(max_size=40))
def test_any_header_gives_seconds_or_nothing(value):
    seconds = retry_after_s(value, NOW)
    assert seconds is None or seconds >= 0
