from __future__ import annotations

import pytest

from gpu_select.benchmark.progress import ModelProgress, Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_counts_rate_and_time_left():
    clock, a, b = Clock(), ModelProgress("a", 60), ModelProgress("b", 40)
    progress = Progress([a, b], clock)
    assert progress.line() == "0 of 100 calls (0.0%), 0.0/s"
    for _ in range(10):
        clock.now += 1
        a.answered += 2
        progress.rate()
    assert progress.line() == "20 of 100 calls (20.0%), 2.0/s, 40s left"
    b.failed, b.retries, a.retries = 1, 7, 2
    assert progress.line() == "21 of 100 calls (21.0%), 2.1/s, 38s left; a 2 retried, b 1 failed and 7 retried"
    b.skipped = 39
    assert progress.line().startswith("21 of 100 calls (21.0%), 2.1/s, 19s left; ")


def test_the_rate_is_that_of_the_last_minute():
    clock, a = Clock(), ModelProgress("a", 10_000)
    progress = Progress([a], clock)
    for seconds, per_s in ((300, 1), (120, 5)):
        for _ in range(seconds):
            clock.now += 1
            a.answered += per_s
            progress.rate()
    assert progress.rate() == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("left", "text"), [(59, "59s"), (61, "1m 01s"), (3599, "59m 59s"), (3661, "1h 01m"), (360_000, "100h 00m")]
)
def test_the_time_left_in_words(left, text):
    clock, a = Clock(), ModelProgress("a", left + 1)
    progress = Progress([a], clock)
    clock.now += 1
    a.answered = 1
    assert f", {text} left" in progress.line()


def test_nothing_to_do():
    assert Progress([], Clock()).line() == "0 of 0 calls (100.0%), 0.0/s"
