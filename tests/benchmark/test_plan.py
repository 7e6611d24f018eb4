from __future__ import annotations

import json

import pytest

from gpu_select.benchmark.answer_file import AnswerFile
from gpu_select.benchmark.plan import make_plan
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.scoring import metric_of
from gpu_select.benchmark.targets import Target
from gpu_select.errors import DataError


def target(name="m", max_tokens=64, temperature=0.0):
    return Target(name, "http://h/v1", {}, max_tokens, temperature, 1.0, None, None, None)


REQUEST = {"prompt": "plain", "max_tokens": 64, "temperature": 0.0}


def answer(query="q", model="m", performance=1.0, **more):
    fields = {"query": query, "ground_truth": "t", "model_name": model, "response": "r", "request": REQUEST}
    return fields | {"performance": performance, "response_time": 1.0} | more


def failed(query="q", model="m"):
    return {"query": query, "model_name": model, "error": "HTTP 500"}


Q = {"query": "q", "ground_truth": "t"}


@pytest.fixture
def plan(tmp_path):
    """Call with rows of a file, and perhaps questions=, targets=, form=: the plan, and what is left of the file."""

    def make(*rows, questions=(Q,), targets=None, form="plain"):
        path = tmp_path / "out.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with AnswerFile(path) as file:
            made = make_plan(file, [Question(q) for q in questions], targets or [target()], form, metric_of)
            again = [(file.read(span), question.query) for span, question in made.again]
            replaced = {pair: file.read(span) for pair, span in made.failed.items()}
            file.compact()
            kept = [record for _, _, record in file.records()]
        calls = {name: [question.query for question in calls] for name, calls in made.calls.items()}
        return calls, replaced, again, kept, made.answered

    return make


def test_an_empty_file_lacks_everything(plan):
    calls, _, _, kept, answered = plan(questions=[Q, {"query": "p"}], targets=[target("m"), target("n")])
    assert calls == {"m": ["q", "p"], "n": ["q", "p"]}
    assert (kept, answered) == ([], 0)


def test_answers_are_not_asked_for_again_and_failures_are(plan):
    rows = [answer("q"), failed("p"), answer("p", "n")]
    calls, replaced, again, kept, answered = plan(
        *rows, questions=[Q, Q | {"query": "p"}], targets=[target(), target("n")]
    )
    assert calls == {"m": ["p"], "n": ["q"]}
    assert replaced == {("p", "m"): failed("p")}
    assert (again, kept, answered) == ([], rows, 2)


def test_records_of_other_queries_and_models_stay(plan):
    rows = [answer("old"), answer("q", "old"), failed("old", "older"), answer("q")]
    calls, _, _, kept, _ = plan(*rows)
    assert (calls, kept) == ({"m": []}, rows)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([failed(), failed()], [1]),
        ([failed(), answer()], [1]),
        ([answer(), failed()], [0]),
        ([answer(performance=None, unscored="not yet"), answer()], [1]),
        ([answer(performance=0.5), answer(performance=None, unscored="x"), answer(performance=1.0)], [2]),
        ([answer(response="a"), answer(response="b")], [0, 1]),
        ([failed("old"), answer("old", "m")], [1]),
        ([failed(), answer("q", "n"), failed(), answer()], [1, 3]),
    ],
)
def test_what_a_kill_left_twice_is_kept_once_and_no_answer_is_lost(plan, rows, kept):
    assert plan(*rows)[3] == [rows[i] for i in kept]


def test_answers_without_a_score_are_scored_where_there_is_a_truth(plan):
    unscored = answer(performance=None, unscored="not scored yet")
    _, _, again, kept, answered = plan(unscored)
    assert (again, kept, answered) == ([(unscored, "q")], [unscored], 1)
    without = {"query": "q"}
    truthless = {k: v for k, v in unscored.items() if k != "ground_truth"}
    assert plan(truthless, questions=[without])[2] == []


@pytest.mark.parametrize(
    "now",
    [
        Q | {"ground_truth": "other"},
        Q | {"metric": "f1_score"},
        Q | {"category": "law"},
        Q | {"own": 1},
        {"query": "q"},
    ],
)
def test_answers_follow_their_questions(plan, now):
    _, _, again, _, answered = plan(answer(), questions=[now])
    assert ([query for _, query in again], answered) == (["q"], 1)


def test_records_of_another_tool_stay_as_they_are(plan):
    other = {"query": "q", "model_name": "m", "performance": 0.5, "response_time": 1.0, "category": "law"}
    calls, _, again, kept, answered = plan(other)
    assert (calls, again, kept, answered) == ({"m": []}, [], [other], 1)


END = ": answers of one file have to be comparable; ask as before, give another --output, or remove these lines"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"targets": [target(max_tokens=128)]}, "line 2: 'm' was asked with max_tokens 64, and now would be with 128"),
        (
            {"targets": [target(temperature=0.7)]},
            "line 2: 'm' was asked with temperature 0.0, and now would be with 0.7",
        ),
        (
            {"form": "concise"},
            "line 2: 'm' was asked with a prompt that is 'plain', and now would be with one that is 'concise'",
        ),
        (
            {"questions": [Q | {"choices": ["x", "y"]}]},
            "line 2: 'm' was asked for other choices, or another metric, which are part of the prompt",
        ),
    ],
)
def test_answers_that_were_asked_for_otherwise_are_refused(plan, tmp_path, settings, text):
    with pytest.raises(DataError) as caught:
        plan(answer("old"), answer(), **settings)
    assert str(caught.value) == f"{tmp_path / 'out.jsonl'}: {text}{END}"


def test_all_of_them_are_counted(plan):
    questions = [Q | {"query": f"q{i}"} for i in range(4)]
    with pytest.raises(DataError, match=r"line 1: .*, as were 3 more: answers of one file"):
        plan(*[answer(q["query"]) for q in questions], questions=questions, targets=[target(max_tokens=1)])


def test_another_metric_is_part_of_a_concise_prompt_only(plan):
    now = {"questions": [Q | {"metric": "GSM8K"}]}
    assert len(plan(answer(), **now)[2]) == 1
    concise = answer(request=REQUEST | {"prompt": "concise"})
    with pytest.raises(DataError, match="another metric"):
        plan(concise, form="concise", **now)
    assert len(plan(concise, form="concise", questions=[Q | {"metric": "f1_score"}])[2]) == 1  # the same words


def test_an_answer_that_was_given_with_the_models_own_temperature_is_no_other(plan):
    request = {"prompt": "plain", "max_tokens": 64}
    assert plan(answer(request=request), targets=[target(temperature=0.3)])[0] == {"m": []}


def test_other_models_may_have_been_asked_otherwise(plan):
    assert plan(answer("q", "n", request=REQUEST | {"max_tokens": 1}))[0] == {"m": ["q"]}


def test_metrics_that_are_no_longer_known_are_no_crash(plan):
    with pytest.raises(DataError, match="another metric"):
        plan(answer(metric="bleu"))
