from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from gpu_select.benchmark import recorder as module
from gpu_select.benchmark.answer import Answer
from gpu_select.benchmark.answer_file import AnswerFile
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.recorder import Recorder
from gpu_select.benchmark.targets import Target
from gpu_select.benchmark.thread_scorer import ThreadScorer

TARGET = Target("m", "http://h/v1", {}, 64, 0.5, 1.0, None, 1.0, 4.0)
QUESTION = Question({"query": "q", "category": "math", "ground_truth": "t", "metric": "MATH", "own": [1]})
ANSWER = Answer("r", "stop", 1000, 500, 1.23456789, 0.5)


class Stub:
    """Scores 0.75 once it may."""

    def __init__(self):
        self.may_score = threading.Event()

    def score(self, response, **truth):
        self.may_score.wait(20)
        return 0.75


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.may_score.set()


@pytest.fixture
def file(tmp_path):
    with AnswerFile(tmp_path / "out.jsonl") as file:
        assert list(file.records()) == []
        yield file


def load(file):
    return [record for _, _, record in file.records()]


def with_recorder(file, stub, work, replaced=None):
    """Run work(recorder) in an event loop."""

    async def main():
        scores = ThreadScorer(stub)
        try:
            return await work(Recorder(file, scores, replaced or {}, "plain"))
        finally:
            scores.close()

    return asyncio.run(main())


FULL = {
    "query": "q",
    "category": "math",
    "ground_truth": "t",
    "metric": "MATH",
    "own": [1],
    "model_name": "m",
    "response": "r",
    "performance": 0.75,
    "response_time": 1.234568,
    "time_to_first_token": 0.5,
    "input_tokens": 1000,
    "output_tokens": 500,
    "cost": 0.003,
    "finish_reason": "stop",
    "attempts": 2,
    "request": {"prompt": "plain", "max_tokens": 64, "temperature": 0.5},
}


def test_the_record_of_an_answer(file, stub):
    stub.may_score.set()
    with_recorder(file, stub, lambda recorder: recorder.answered(QUESTION, TARGET, ANSWER, 2, lambda: None))
    (found,) = load(file)
    assert found == FULL
    assert list(found) == list(FULL)


def test_whoever_waits_is_told_when_it_is_written(file, stub):
    stub.may_score.set()
    written = []
    with_recorder(
        file,
        stub,
        lambda recorder: recorder.answered(QUESTION, TARGET, ANSWER, 2, lambda: written.append(load(file))),
    )
    assert written == [[FULL]]


def test_what_the_server_does_not_say_is_left_out(file, stub):
    stub.may_score.set()
    answer = Answer("", None, None, 5, 1.0, None, with_temperature=False)
    with_recorder(
        file, stub, lambda recorder: recorder.answered(Question({"query": "q"}), TARGET, answer, 1, lambda: None)
    )
    assert load(file) == [
        {
            "query": "q",
            "model_name": "m",
            "response": "",
            "unscored": "no ground_truth",
            "response_time": 1.0,
            "output_tokens": 5,
            "attempts": 1,
            "request": {"prompt": "plain", "max_tokens": 64},
        }
    ]


def test_a_failure_has_neither_performance_nor_time(file, stub):
    async def work(recorder):
        recorder.failed(QUESTION, TARGET, "HTTP 500", 6)

    with_recorder(file, stub, work)
    assert load(file) == [{**QUESTION.fields, "model_name": "m", "error": "HTTP 500", "attempts": 6}]


def test_a_new_record_takes_the_place_of_an_earlier_failure(file, stub):
    stub.may_score.set()
    other = file.append({"query": "p", "model_name": "m", "error": "x"})
    old = file.append({"query": "q", "model_name": "m", "error": "x"})
    replaced = {("q", "m"): old, ("p", "m"): other}
    with_recorder(file, stub, lambda recorder: recorder.answered(QUESTION, TARGET, ANSWER, 2, lambda: None), replaced)
    assert len(load(file)) == 3
    file.compact()
    assert [record.get("error") for record in load(file)] == ["x", None]


def unscored(reason):
    return {k: v for k, v in FULL.items() if k != "performance"} | {"unscored": reason}


def test_an_answer_whose_score_takes_its_time_is_on_disk_before(file, stub, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)

    written = []

    async def work(recorder):
        answered = recorder.answered(QUESTION, TARGET, ANSWER, 2, lambda: written.append(load(file)))
        task = asyncio.ensure_future(answered)
        while not written:
            await asyncio.sleep(0.01)
        seen = *written, recorder.n_unscored
        stub.may_score.set()
        await task
        return seen, recorder.n_unscored

    (before, n_then), n_after = with_recorder(file, stub, work)
    assert (before, n_then, n_after) == ([unscored("not scored yet")], 1, 0)
    assert load(file) == [unscored("not scored yet"), FULL]
    assert len(written) == 1
    file.compact()
    assert load(file) == [FULL]


@pytest.mark.parametrize("patience_s", [0.01, 10.0])
def test_an_interrupt_loses_no_answer(file, stub, monkeypatch, patience_s):
    monkeypatch.setattr(module, "_PATIENCE_S", patience_s)

    async def work(recorder):
        task = asyncio.ensure_future(recorder.answered(QUESTION, TARGET, ANSWER, 2, lambda: None))
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        stub.may_score.set()

    with_recorder(file, stub, work)
    assert load(file) == [unscored("not scored yet")]


@pytest.mark.parametrize(
    ("fields", "performance"),
    [
        (QUESTION.fields, 0.75),
        ({**QUESTION.fields, "ground_truth": "other"}, 0.75),
        ({"query": "q", "ground_truth": "t", "metric": "MATH", "category": "law"}, 0.1),
        ({"query": "q"}, None),
    ],
)
def test_an_earlier_answer_is_brought_up_to_its_question(file, stub, fields, performance):
    stub.may_score.set()
    old = FULL | ({"performance": None} if fields is QUESTION.fields else {"performance": 0.1})
    span = file.append(old)
    with_recorder(file, stub, lambda recorder: recorder.again(span, Question(fields)))
    file.compact()
    (found,) = load(file)
    assert found.get("performance") == performance
    assert {name: found[name] for name in fields} == fields
    assert {name: found[name] for name in ("response", "response_time", "request")} == {
        name: FULL[name] for name in ("response", "response_time", "request")
    }
    assert ("own" in found, found.get("unscored")) == (
        "own" in fields,
        "no ground_truth" if performance is None else None,
    )


def test_nothing_is_written_where_nothing_has_changed(file, stub):
    stub.may_score.set()
    stub.score = lambda *args, **truth: None
    record = unscored("no score; the ground_truth names nothing to look for")
    span = file.append(record)
    with_recorder(file, stub, lambda recorder: recorder.again(span, QUESTION))
    assert load(file) == [record]
