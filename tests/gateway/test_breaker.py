"""The three states, and what leads from one to the other."""

from __future__ import annotations

import pytest

from gpu_select.config.gateway import BreakerConfig
from gpu_select.gateway.breaker import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def breaker_of(clock, **settings):
    return CircuitBreaker(BreakerConfig(**{"failures": 3, "open_s": 10, "max_open_s": 35, **settings}), clock)


def attempt(breaker, worked):
    assert breaker.allows()
    with breaker.attempt() as one:
        if worked is not None:
            (one.succeed if worked else one.fail)()


def open_up(breaker):
    while breaker.state == "closed":
        attempt(breaker, False)


def test_failures_in_a_row_open_it(clock):
    breaker = breaker_of(clock)
    for worked in (False, False, True, False, False):
        attempt(breaker, worked)
    assert breaker.state == "closed"
    attempt(breaker, False)
    assert (breaker.state, breaker.allows(), breaker.retry_after_s) == ("open", False, 10)


def test_a_client_that_leaves_counts_for_nothing(clock):
    breaker = breaker_of(clock)
    for worked in (False, False, None):
        attempt(breaker, worked)
    with pytest.raises(KeyboardInterrupt), breaker.attempt():
        raise KeyboardInterrupt
    assert breaker.state == "closed"
    attempt(breaker, False)
    assert breaker.state == "open"


def test_after_its_rest_one_probe_at_a_time_passes(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    clock.now += 10
    assert (breaker.state, breaker.retry_after_s) == ("half-open", 0)
    with breaker.attempt():
        assert not breaker.allows()
    assert breaker.allows()


def test_a_probe_that_works_closes_it(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    clock.now += 10
    attempt(breaker, True)
    assert breaker.state == "closed"
    attempt(breaker, False)
    assert breaker.state == "closed"


def test_as_many_probes_have_to_work_as_may_pass(clock):
    breaker = breaker_of(clock, probes=2)
    open_up(breaker)
    clock.now += 10
    attempt(breaker, True)
    assert breaker.state == "half-open"
    attempt(breaker, True)
    assert breaker.state == "closed"


def test_each_probe_that_fails_doubles_the_rest_up_to_the_longest(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    for rest in (10, 20, 35, 35):
        assert breaker.retry_after_s == rest
        clock.now += rest
        attempt(breaker, False)
    clock.now += 35
    attempt(breaker, True)
    open_up(breaker)
    assert breaker.retry_after_s == 10


def test_what_was_under_way_when_it_opened_does_not_lengthen_its_rest(clock):
    breaker = breaker_of(clock)
    with breaker.attempt() as late:
        open_up(breaker)
        late.fail()
    assert (breaker.state, breaker.retry_after_s) == ("open", 10)


def test_one_try_in_spite_of_it_says_nothing(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    with breaker.attempt() as one:
        one.succeed()
    assert breaker.state == "open"


def test_what_is_said_first_counts(clock):
    breaker = breaker_of(clock, failures=1)
    with breaker.attempt() as one:
        one.succeed()
        one.fail()
    assert breaker.state == "closed"


def test_an_attempt_is_open_until_it_says_how_it_went(clock):
    breaker = breaker_of(clock)
    for _ in range(2):
        attempt(breaker, False)
    streamed = breaker.attempt()
    with streamed:
        streamed.fail()
    assert breaker.state == "open"


def test_a_probe_that_takes_long_keeps_others_out_for_a_while_only(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    clock.now += 10
    slow = [breaker.attempt()]
    for place in (10, 20, 35, 35):
        assert not breaker.allows()
        assert breaker.retry_after_s == place
        clock.now += place
        assert (breaker.allows(), breaker.retry_after_s) == (True, 0)
        slow.append(breaker.attempt())
    slow[0].succeed()
    assert breaker.state == "closed"
    for one in slow[1:]:  # were no probes of what is in use now
        one.drop()
    assert breaker.allows()


def test_probes_that_fail_together_lengthen_the_rest_once(clock):
    breaker = breaker_of(clock, probes=2)
    open_up(breaker)
    clock.now += 10
    first, second = breaker.attempt(), breaker.attempt()
    first.fail()
    second.fail()
    assert (breaker.state, breaker.retry_after_s) == ("open", 20)
    clock.now += 20
    assert breaker.allows()


def test_a_probe_that_works_after_another_one_failed_says_nothing(clock):
    breaker = breaker_of(clock, probes=2)
    open_up(breaker)
    clock.now += 10
    first, second = breaker.attempt(), breaker.attempt()
    first.fail()
    second.succeed()
    assert breaker.state == "open"
