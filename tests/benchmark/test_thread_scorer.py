from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from gpu_select.benchmark.thread_scorer import ThreadScorer


class Stub:
    def __init__(self, result=0.5):
        self.result = result
        self.seen = []

    def score(self, response, **truth):
        self.seen.append((response, truth, threading.current_thread().name))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def score(stub, *records):
    async def main():
        scores = ThreadScorer(stub)
        try:
            return await asyncio.gather(*map(scores.start, records))
        finally:
            scores.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("metric", "n_characters", "in_thread"),
    [
        ("CEM", 1, False),
        ("cem", 4000, False),
        ("CEM", 4001, True),
        (None, 1, False),
        ("GSM8K", 1, False),
        ("MATH", 1, True),
        ("code_eval", 1, True),
    ],
)
def test_what_may_take_its_time_is_scored_in_another_thread(metric, n_characters, in_thread):
    stub = Stub(0.25)
    response = "r" * n_characters
    record = {"query": "q", "response": response, "metric": metric, "ground_truth": "t", "choices": ["a"], "x": 1}
    assert score(stub, record) == [(0.25, "")]
    (seen,) = stub.seen
    assert seen[:2] == (response, {"metric": metric, "ground_truth": "t", "choices": ["a"], "query": "q"})
    assert seen[2].startswith("score") == in_thread


def test_without_a_truth_nothing_is_scored():
    stub = Stub()
    assert (
        score(stub, {"query": "q", "response": "r"}, *({"response": "r", "ground_truth": t} for t in (None, "", [[]])))
        == [(None, "no ground_truth")] * 4
    )
    assert stub.seen == []


def test_an_answer_that_cannot_be_scored_says_why():
    records = [{"query": "q", "response": "r", "ground_truth": "t", "metric": m} for m in ("code_eval", "CEM")]
    assert score(Stub(None), *records) == [
        (None, "no score; code_eval needs --allow-code-execution, and assertions in ground_truth"),
        (None, "no score; the ground_truth names nothing to look for"),
    ]


def test_a_fault_of_the_scorer_loses_no_answer_and_is_said_once(caplog):
    with caplog.at_level(logging.WARNING, "gpu_select"):
        found = score(Stub(ZeroDivisionError("a\nb")), *[{"query": "q", "response": "r", "ground_truth": "t"}] * 3)
    assert found == [(None, "scoring failed: ZeroDivisionError: a b")] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "an answer could not be scored: ZeroDivisionError: a b"
    ]


def test_the_event_loop_goes_on_meanwhile():
    class Slow(Stub):
        def score(self, response, **truth):
            time.sleep(0.2)
            return 1.0

    async def main():
        scores = ThreadScorer(Slow())
        scoring = scores.start({"query": "q", "response": "r", "ground_truth": "t", "metric": "MATH"})
        ticks = 0
        while not scoring.done():
            await asyncio.sleep(0.01)
            ticks += 1
        scores.close()
        return ticks

    assert asyncio.run(main()) >= 5
