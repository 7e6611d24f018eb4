from __future__ import annotations

import asyncio
import itertools

import pytest

pytest.importorskip("aiohttp")

from gpu_select.benchmark.failure import Refusal
from gpu_select.benchmark.lanes import Lane, Lanes, resolve
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.targets import Target


def lane(name, n, concurrency=None):
    target = Target(name, "http://h/v1", {}, 1, 0.0, 1.0, concurrency, None, None)
    return Lane(target, None, [Question({"query": f"{name}{i}"}) for i in range(n)])


def taken(lanes, most, n=100):
    found = itertools.takewhile(lambda chosen: chosen is not None, (lanes.next(most) for _ in range(n)))
    return [question.query for _, question in found]


def test_one_model_after_the_other_without_a_gap():
    lanes = Lanes([lane("a", 3), lane("b", 3)], interleave=False)
    assert taken(lanes, 10) == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_models_take_turns():
    lanes = Lanes([lane("a", 3), lane("b", 1), lane("c", 2)], interleave=True)
    assert taken(lanes, 10) == ["a0", "b0", "c0", "a1", "c1", "a2"]


@pytest.mark.parametrize("interleave", [True, False])
def test_a_model_has_a_limit_of_its_own(interleave):
    a, b = lane("a", 5, concurrency=2), lane("b", 5)
    lanes = Lanes([a, b], interleave=interleave)
    assert sorted(taken(lanes, 4)) == ["a0", "a1", "b0", "b1", "b2", "b3"]
    assert (a.n_open, b.n_open) == (2, 4)
    a.n_open -= 1
    assert taken(lanes, 4) == ["a2"]
    assert taken(lanes, 4) == []


def test_a_limit_beyond_all_calls_is_none():
    a = lane("a", 5, concurrency=100)
    assert taken(Lanes([a], interleave=False), 3) == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    ("refusal", "n", "what"),
    [
        (Refusal.FOR_ALL, 3, "3 refusals; check its name, endpoint and key"),
        (Refusal.NO, 10, "10 calls that failed"),
    ],
)
def test_a_model_is_given_up_after_some_failures_in_a_row(refusal, n, what):
    a = lane("a", 50)
    for _ in range(n - 1):
        assert not a.note_failure(refusal, "HTTP 500")
    a.note_answer()
    for _ in range(n - 1):
        assert not a.note_failure(refusal, "HTTP 500")
    assert a.note_failure(refusal, "HTTP 503")
    assert (a.stopped, list(a.waiting)) == ("HTTP 503", [])
    assert a.why_stopped() == f"a: given up after {what} (HTTP 503); 50 calls are not made"
    assert not a.note_failure(refusal, "another that was under way")
    assert (a.progress.failed, a.progress.answered, a.progress.skipped) == (2 * n, 1, 50)


def test_requests_that_will_not_do_say_nothing_of_the_model():
    a = lane("a", 5)
    for _ in range(100):
        assert not a.note_failure(Refusal.THIS, "HTTP 400")
    for _ in range(2):
        a.note_failure(Refusal.FOR_ALL, "HTTP 401")
    a.note_failure(Refusal.THIS, "HTTP 400")
    assert not a.note_failure(Refusal.FOR_ALL, "HTTP 401")


def test_giving_up_ends_the_waits():
    async def main():
        a = lane("a", 1)
        pause = asyncio.get_running_loop().create_future()
        a.pauses.add(pause)
        a.give_up_waiting()
        resolve(pause)
        await asyncio.wait_for(pause, 1)

    asyncio.run(main())
