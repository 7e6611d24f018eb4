from __future__ import annotations

import pytest

from gpu_select.benchmark.sandbox.assertions import BEGIN, CANDIDATE, END, FAIL, parse_tests


def outcome(tests, **names):
    """What the programs of some tests say, when run here."""
    said: list[tuple[str, object]] = []
    parsed = parse_tests(tests)
    namespace = {
        BEGIN: lambda i: True,
        END: lambda i, value: said.append((i, bool(value))),
        FAIL: lambda i: said.append((i, False)),
        **names,
    }
    for program in parsed.programs:
        exec(program, namespace)  # noqa: S102 - the test's own text
    return said


MBPP = "['assert f(1) == 2', 'assert f(2) == 0']"
HUMAN_EVAL = """
METADATA = {'author': 'jt'}

def check(candidate):
    import math
    assert candidate(1) == 2, "message"
    assert True, "of no use"
    for x in range(3):
        assert math.fabs(candidate(x)) == x + 1
"""


@pytest.mark.parametrize(
    "tests", [MBPP, ["assert f(1) == 2", "assert f(2) == 0"], "assert f(1) == 2\nassert f(2) == 0"]
)
def test_lists_texts_of_lists_and_programs(tests):
    assert outcome(tests, f=lambda x: x + 1) == [(0, True), (1, False)]
    parsed = parse_tests(tests)
    assert parsed.n_assertions == 2
    assert parsed.names == ["f"]


def test_check_is_called_with_the_candidate():
    parsed = parse_tests(HUMAN_EVAL)
    assert parsed.n_assertions == 2
    assert parsed.names == [CANDIDATE]
    assert outcome(HUMAN_EVAL, **{CANDIDATE: lambda x: x + 1}) == [(0, True)] + [(1, True)] * 3


def test_check_that_is_called_already_is_not_called_again():
    tests = "def check(candidate):\n    assert candidate(1)\ncheck(f)"
    assert parse_tests(tests).names == ["f"]
    assert outcome(tests, f=lambda x: x) == [(0, True)]


def test_what_fails_does_not_end_the_program():
    tests = "assert f(1)\nassert 1 / 0\nassert f(2)"
    assert outcome(tests, f=lambda x: x) == [(0, True), (1, False), (2, True)]


def test_what_nobody_should_come_to():
    tests = "try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass"
    assert parse_tests(tests).never == [[0]]
    assert outcome(tests, f=lambda x: x) == [(0, False)]
    assert outcome(tests, f=int) == [(0, False)]
    assert outcome(tests, f=lambda x: int("x")) == []


@pytest.mark.parametrize(
    "tests",
    [
        "",
        "x = 1",
        "assert True",
        "assert 'text'",
        "[]",
        "no python",
        "[" * 10_000,
        "['x +']",
        "return 1\nassert x",
        "-" * 100_000,
    ],
)
def test_texts_without_assertions(tests):
    assert parse_tests(tests).n_assertions == 0


def test_names_of_the_tests_python_and_the_answer():
    parsed = parse_tests(
        "import math\nfrom re import match as found\nx = 1\n"
        "assert f(x, math.pi) == sys.getsizeof(len(calendar(2020))) and found and g.h(lambda y: y)"
    )
    assert parsed.names == ["calendar", "f", "g"]
    assert parsed.module_names == ["sys"]
    assert parsed.builtin_names == ["len"]


def test_the_real_data_has_only_assertions_that_can_be_run(shared_dir):
    import gzip
    import json

    truths = set()
    with gzip.open(shared_dir / "data" / "llmrouter_train.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            if record["metric"] == "code_eval":
                truths.add((record["task_name"], record["ground_truth"]))
    assert len(truths) > 600
    for task, truth in truths:
        parsed = parse_tests(truth)
        assert parsed.n_assertions > 0
        if task == "human_eval":
            assert CANDIDATE in parsed.names
        else:
            assert len(parsed.names) == 1 or parsed.builtin_names == ["sum"]
