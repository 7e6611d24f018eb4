from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

pytest.importorskip("aiohttp")

from gpu_select.benchmark import runner as module
from gpu_select.benchmark.answer import Answer
from gpu_select.benchmark.failure import CallFailedError, Refusal
from gpu_select.benchmark.lanes import Lane, Lanes
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.runner import Runner
from gpu_select.benchmark.targets import Target
from gpu_select.errors import OutputError


class StubClient:
    """Answers after a while; `plan` says for a prompt which failures come before."""

    def __init__(self, world, name):
        self.world, self.name = world, name

    async def ask(self, prompt):
        world = self.world
        world.order.append((self.name, prompt))
        world.now[self.name] += 1
        world.most[self.name] = max(world.most[self.name], world.now[self.name])
        world.most_of_all = max(world.most_of_all, world.now.total())
        try:
            await asyncio.sleep(world.latency_s(self.name, prompt))
            failures = world.failures.get((self.name, prompt), world.failures.get(self.name, []))
            if failures:
                raise failures.pop(0) if isinstance(failures, list) else failures
        finally:
            world.now[self.name] -= 1
        return Answer(f"{self.name} {prompt}", "stop", None, None, 0.1, None)


class StubRecorder:
    def __init__(self):
        self.n_unscored = 0
        self.answers, self.errors = [], []
        self.score = None
        self.write = lambda: asyncio.sleep(0)

    def failed(self, question, target, error, attempts):
        self.errors.append((target.name, question.query, error, attempts))

    async def answered(self, question, target, answer, attempts, on_written):
        self.answers.append((target.name, question.query, answer.text, attempts))
        await self.write()
        on_written()
        if self.score is not None:
            self.n_unscored += 1
            await self.score()
            self.n_unscored -= 1


class World:
    """Models, questions and what happened."""

    def __init__(self):
        self.order, self.now, self.most, self.most_of_all = [], Counter(), Counter(), 0
        self.failures = {}
        self.latency_s = lambda name, prompt: 0.001
        self.said, self.changes = [], 0
        self.recorder = StubRecorder()

    def begin(self, progress, answered):
        raise AssertionError("whoever runs the runner says so")

    def change(self):
        self.changes += 1

    def say(self, text):
        self.said.append(text)

    def runner(self, models, n, *, concurrency=4, retries=2, interleave=False):
        self.lanes = [
            Lane(
                Target(name, "http://h/v1", {}, 1, 0.0, 1.0, limit, None, None),
                StubClient(self, name),
                [Question({"query": f"q{i}"}) for i in range(n)],
            )
            for name, limit in models.items()
        ]
        return Runner(
            Lanes(self.lanes, interleave=interleave),
            self.recorder,
            lambda question: question.query,
            concurrency=concurrency,
            retries=retries,
            observer=self,
            rng=random.Random(0),
        )

    def run(self, models, n, **options):
        asyncio.run(self.runner(models, n, **options).run())


@pytest.fixture
def world():
    return World()


@pytest.fixture
def no_waits(monkeypatch):
    """Waits in milliseconds instead of seconds; what was asked for is kept."""
    asked = []

    def wait_s(n_failed, asked_s, rng):
        asked.append((n_failed, asked_s))
        return rng.uniform(0, 0.002)

    monkeypatch.setattr(module, "wait_s", wait_s)
    return asked


def pairs(models, n):
    return sorted((name, f"q{i}") for name in models for i in range(n))


def test_every_pair_is_called_once_in_order(world):
    world.run({"a": None, "b": None}, 5, concurrency=1)
    assert world.order == pairs("ab", 5)
    assert world.recorder.answers == [(name, q, f"{name} {q}", 1) for name, q in pairs("ab", 5)]
    assert [lane.progress.answered for lane in world.lanes] == [5, 5]
    assert world.changes >= 10


def test_models_that_take_turns(world):
    world.run({"a": None, "b": None}, 3, concurrency=1, interleave=True)
    assert world.order == [(name, f"q{i}") for i in range(3) for name in "ab"]


@pytest.mark.parametrize("interleave", [True, False])
def test_limits_hold_and_places_are_filled(world, interleave):
    world.run({"a": 2, "b": None, "c": 3}, 40, concurrency=6, interleave=interleave)
    assert world.most_of_all == 6
    assert world.most["a"] == 2
    assert world.most["c"] <= 3
    assert sorted(world.order) == pairs("abc", 40)


def test_no_place_is_empty_while_a_slow_call_ends_a_model(world):
    world.latency_s = lambda name, prompt: 0.3 if (name, prompt) == ("a", "q3") else 0.01
    world.run({"a": None, "b": None}, 4, concurrency=2)
    answered = [name for name, *_ in world.recorder.answers]
    assert answered == ["a", "a", "a", "b", "b", "b", "b", "a"]


def test_what_fails_is_tried_again_until_it_works_or_retries_are_used_up(world, no_waits):
    world.failures["a", "q0"] = [CallFailedError("HTTP 500"), CallFailedError("HTTP 429", asked_s=3.0)]
    world.failures["a", "q1"] = [CallFailedError(f"HTTP 50{i}") for i in range(3)]
    world.failures["a", "q2"] = [CallFailedError("HTTP 400", refusal=Refusal.THIS)]
    world.run({"a": None}, 4, concurrency=1)
    assert sorted(world.recorder.answers) == [("a", "q0", "a q0", 3), ("a", "q3", "a q3", 1)]
    assert sorted(world.recorder.errors) == [("a", "q1", "HTTP 502", 3), ("a", "q2", "HTTP 400", 1)]
    assert no_waits == [(1, None), (2, 3.0), (1, None), (2, None)]
    progress = world.lanes[0].progress
    assert (progress.answered, progress.failed, progress.retries, progress.skipped) == (2, 2, 4, 0)
    assert world.said == ["a: HTTP 500; trying again"]


def test_what_no_other_try_helps_against_is_not_tried_again(world):
    world.failures["a", "q0"] = [CallFailedError("HTTP 429: tomorrow", may_retry=False)]
    world.run({"a": None}, 1)
    assert world.recorder.errors == [("a", "q0", "HTTP 429: tomorrow", 1)]


def test_a_call_that_waits_leaves_its_place_to_another_model_but_not_to_its_own(world, monkeypatch):
    monkeypatch.setattr(module, "wait_s", lambda *_: 0.2)
    world.failures["a"] = [CallFailedError("HTTP 503") for _ in range(2)]
    world.run({"a": None, "b": None}, 4, concurrency=2)
    assert world.order[:2] == [("a", "q0"), ("a", "q1")]
    assert [name for name, _ in world.order[2:6]] == ["b"] * 4
    assert sorted(world.order[6:]) == [("a", "q0"), ("a", "q1"), ("a", "q2"), ("a", "q3")]
    assert world.most_of_all == 2


def test_those_that_come_back_go_first(world, monkeypatch):
    monkeypatch.setattr(module, "wait_s", lambda *_: 0.005)
    world.latency_s = lambda name, prompt: 0.02
    world.failures["a", "q0"] = [CallFailedError("HTTP 503")]
    world.run({"a": 1, "b": None}, 3, concurrency=1)
    assert world.order[:4] == [("a", "q0"), ("b", "q0"), ("a", "q0"), ("a", "q1")]


def test_a_model_that_refuses_everything_is_given_up_and_others_go_on(world):
    world.failures["a"] = CallFailedError("HTTP 401: bad key", refusal=Refusal.FOR_ALL)
    world.run({"a": None, "b": None}, 100, concurrency=2)
    assert len(world.recorder.errors) in (3, 4)  # one more was under way
    assert len(world.recorder.answers) == 100
    (said,) = world.said
    assert said.startswith("a: given up after 3 refusals; check its name, endpoint and key (HTTP 401: bad key); 9")
    assert world.lanes[0].progress.made + world.lanes[0].progress.skipped == 100


def test_giving_a_model_up_ends_the_waits_of_its_calls(world, monkeypatch):
    monkeypatch.setattr(module, "wait_s", lambda *_: 60.0)
    world.failures["a", "q0"] = [CallFailedError("HTTP 503")]
    world.failures["a"] = CallFailedError("HTTP 401", refusal=Refusal.FOR_ALL)
    start = time.perf_counter()
    world.run({"a": None}, 10, concurrency=2)
    assert time.perf_counter() - start < 10
    assert {query for _, query, *_ in world.recorder.errors} == {"q1", "q2", "q3"}
    assert (world.lanes[0].progress.failed, world.lanes[0].progress.skipped) == (3, 7)


def test_a_server_that_is_gone_is_given_up(world, no_waits):
    world.failures["a"] = CallFailedError("cannot connect: Connection refused")
    world.run({"a": None}, 100, concurrency=1, retries=1)
    assert len(world.recorder.errors) == 10
    assert world.said == [
        "a: cannot connect: Connection refused; trying again",
        "a: given up after 10 calls that failed (cannot connect: Connection refused); 90 calls are not made",
    ]


def test_a_stop_lets_calls_end_that_are_under_way_and_begins_no_more(world, monkeypatch):
    monkeypatch.setattr(module, "wait_s", lambda *_: 60.0)
    world.failures["a", "q0"] = [CallFailedError("HTTP 503")]
    world.latency_s = lambda name, prompt: 0.001 if prompt == "q0" else 0.5
    runner = world.runner({"a": 3, "b": None}, 50, concurrency=4)

    async def main():
        running = asyncio.ensure_future(runner.run())
        await asyncio.sleep(0.2)
        assert runner.n_calling == 4
        runner.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(main())
    assert runner.n_calling == 0
    # b's first call was over before
    assert sorted(query for _, query, *_ in world.recorder.answers) == ["q0", "q1", "q1", "q2", "q2"]
    assert ("a", "q0") not in [(name, query) for name, query, *_ in world.recorder.answers]
    assert world.recorder.errors == []
    assert sum(lane.progress.made + lane.progress.skipped for lane in world.lanes) == 100


def test_a_stop_while_calls_come_back(world, monkeypatch):
    monkeypatch.setattr(module, "wait_s", lambda *_: 0.0)
    world.failures["a"] = CallFailedError("HTTP 503")
    world.latency_s = lambda name, prompt: 0.5 if name == "b" else 0.001
    runner = world.runner({"a": 1, "b": None}, 3, concurrency=1)

    async def main():
        running = asyncio.ensure_future(runner.run())
        await asyncio.sleep(0.2)  # a waits for its place, which b has
        runner.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(main())
    assert [name for name, *_ in world.recorder.answers] == ["b"]


def test_an_answer_keeps_its_place_until_it_is_on_disk(world):
    written = []

    async def write():
        await asyncio.sleep(0.01)
        written.append(len(world.order))

    world.recorder.write = write
    world.run({"a": None}, 5, concurrency=1)
    assert written == [1, 2, 3, 4, 5]


def test_scores_hold_no_place(world):
    world.recorder.score = lambda: asyncio.sleep(0.2)
    start = time.perf_counter()
    world.run({"a": None}, 20, concurrency=1)
    assert time.perf_counter() - start < 1.0
    assert len(world.recorder.answers) == 20


def test_answers_that_wait_for_their_score_have_a_bound(world, monkeypatch):
    monkeypatch.setattr(module, "_MOST_UNSCORED", 3)
    seen = []

    async def score():
        seen.append(world.recorder.n_unscored)
        await asyncio.sleep(0.02)

    world.recorder.score = score
    world.run({"a": None}, 12, concurrency=2)
    assert len(world.recorder.answers) == 12
    assert max(seen) <= 3 + 2  # two were under way


def test_a_record_that_cannot_be_written_ends_everything(world):
    async def full():
        raise OutputError("cannot write out.jsonl: No space left on device")

    world.recorder.score = full
    with pytest.raises(ExceptionGroup) as caught:
        world.run({"a": None}, 1000)
    assert isinstance(caught.value.exceptions[0], OutputError)
    assert len(world.order) < 20


@pytest.mark.parametrize("seed", range(5))
def test_with_failures_of_all_kinds_no_call_is_lost_or_doubled(world, no_waits, seed):
    rng = random.Random(seed)
    models = {"a": 3, "b": None, "c": 1}
    kinds = (lambda: CallFailedError("HTTP 500"), lambda: CallFailedError("HTTP 400", refusal=Refusal.THIS))
    for name in models:
        for i in range(60):
            world.failures[name, f"q{i}"] = [rng.choice(kinds)() for _ in range(rng.choice((0, 0, 0, 1, 2, 4)))]
    world.latency_s = lambda name, prompt: rng.uniform(0, 0.003)
    world.run(models, 60, concurrency=7, retries=3, interleave=seed % 2 == 0)
    done = [(name, query) for name, query, *_ in world.recorder.answers + world.recorder.errors]
    given_up = sum(lane.progress.skipped for lane in world.lanes)
    assert len(done) == len(set(done)) == 180 - given_up
    assert world.most_of_all <= 7
    assert all(lane.n_open == 0 for lane in world.lanes)
