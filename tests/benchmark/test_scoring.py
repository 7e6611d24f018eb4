from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_select.benchmark import scoring
from gpu_select.benchmark.scoring import METRICS, Scorer, metric_of
from gpu_select.errors import DataError, IsolationError, MissingDependencyError

RIGHT = {
    "em_mc": ("The answer is (B).", "B"),
    "GSM8K": ("So it is 18.00.", "#### 18"),
    "MATH": (r"\boxed{\frac{1}{2}}", "0.5"),
    "f1_score": ("Karyn Parsons", "karyn parsons"),
    "code_eval": ("def f(x):\n    return x", "['assert f(1) == 1']"),
    "commongen_coverage": ("A dog ran.", "dog, run"),
    "CEM": ("It is 1,000.", "1000"),
}


@pytest.fixture
def scorer():
    with Scorer() as found:
        yield found


def test_the_metrics_are_these():
    assert METRICS == ("em_mc", "GSM8K", "MATH", "f1_score", "code_eval", "commongen_coverage", "CEM")
    assert set(RIGHT) == set(METRICS)


@pytest.mark.parametrize(
    ("metric", "choices", "expected"),
    [
        (None, None, "CEM"),
        ("", None, "CEM"),
        (None, ["a", "b"], "em_mc"),
        (None, "a,b", "em_mc"),
        (None, [], "CEM"),
        ("GSM8K", ["a"], "GSM8K"),
        ("gsm8k", None, "GSM8K"),
        ("choices", None, "em_mc"),
        ("cem", None, "CEM"),
        ("f1", None, "f1_score"),
        *((name, None, name) for name in METRICS),
    ],
)
def test_the_metric_of_a_record(metric, choices, expected):
    if expected == "MATH" and importlib.util.find_spec("math_verify") is None:
        pytest.skip("needs math-verify")
    assert metric_of(metric, choices) == expected


@pytest.mark.parametrize("metric", ["bleu", "em", 5, ["CEM"]])
def test_an_unknown_metric_is_an_error_that_names_the_known_ones(metric):
    with pytest.raises(DataError) as caught:
        metric_of(metric, None)
    assert str(caught.value) == (
        f"metric: expected one of em_mc, GSM8K, MATH, f1_score, code_eval, commongen_coverage, CEM, got {metric!r}"
    )


def test_math_without_its_library_is_an_error_up_front(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="the metric MATH needs the package math-verify"):
        metric_of("MATH", None)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "code_eval"])
def test_each_metric_scores(metric, scorer):
    if metric == "MATH" and importlib.util.find_spec("math_verify") is None:
        pytest.skip("needs math-verify")
    response, truth = RIGHT[metric]
    assert scorer.score(response, metric=metric, ground_truth=truth, choices=None) == 1.0
    assert scorer.score("nothing of it", metric=metric, ground_truth=truth, choices=None) == 0.0


def test_choices_make_it_multiple_choice(scorer):
    assert scorer.score("It is Paris.", metric=None, ground_truth="B", choices=["Rome", "Paris"]) == 1.0
    assert scorer.score("B", metric=None, ground_truth=1, choices=["Rome", "Paris"]) == 1.0
    assert scorer.score("A", metric=None, ground_truth=1, choices=["Rome", "Paris"]) == 0.0


@pytest.mark.parametrize("truth", [None, "", "  ", [], [None]])
@pytest.mark.parametrize("metric", [name for name in METRICS if name != "MATH"])
def test_no_ground_truth_means_no_score(truth, metric, scorer):
    assert scorer.score("18", metric=metric, ground_truth=truth, choices=None) is None


def test_zero_and_false_are_ground_truths(scorer):
    assert scorer.score("0", metric=None, ground_truth=0, choices=None) == 1.0
    assert scorer.score("It is false.", metric=None, ground_truth=False, choices=None) == 1.0


def test_several_accepted_answers(scorer):
    for metric in ("CEM", "f1_score", "GSM8K"):
        assert scorer.score("7", metric=metric, ground_truth=["8", "7"], choices=None) == 1.0


def test_code_is_not_run_unless_that_is_allowed(scorer, tmp_path):
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w')\ndef f(x):\n    return x"
    assert scorer.score(code, metric="code_eval", ground_truth=["assert f(1)"], choices=None) is None
    assert not mark.exists()


def test_code_is_run_where_it_is_allowed(isolation):
    with Scorer(allow_code_execution=True) as scorer:
        response, truth = RIGHT["code_eval"]
        assert scorer.score(response, metric="code_eval", ground_truth=truth, choices=None) == 1.0
        continued = "def f(x):\n    '''Itself.'''\n"
        assert (
            scorer.score("    return x", metric="code_eval", ground_truth=truth, choices=None, query=continued) == 1.0
        )
        assert scorer.score(response, metric="code_eval", ground_truth="no assertion", choices=None) is None


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_where_code_cannot_be_isolated_it_is_refused(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(
        IsolationError,
        match=f"^code_eval: expected Linux, whose kernel isolates code, got {platform}; leave code execution out$",
    ):
        Scorer(allow_code_execution=True)
    with Scorer() as scorer:
        assert scorer.score("18", metric=None, ground_truth="18", choices=None) == 1.0


def test_many_threads_may_score(isolation):
    with Scorer(allow_code_execution=True) as scorer, ThreadPoolExecutor(8) as pool:

        def score(i: int) -> float | None:
            metric = METRICS[i % len(METRICS)]
            response, truth = RIGHT[metric]
            return scorer.score(response, metric=metric, ground_truth=truth, choices=None)

        assert list(pool.map(score, range(3 * len(METRICS)))) == [1.0] * 3 * len(METRICS)


def test_the_real_data_s_truths_are_right_answers(scorer, shared_dir):
    import gzip
    import json

    truths = set()
    with gzip.open(shared_dir / "data" / "llmrouter_train.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            truths.add((record["metric"], record["ground_truth"]))
    wrong = [
        (metric, truth)
        for metric, truth in truths
        if metric not in ("MATH", "code_eval")  # which have this test of their own
        and scorer.score(truth, metric=metric, ground_truth=truth, choices=None) != 1.0
    ]
    assert len(truths) > 2000
    assert wrong == []


def test_a_huge_answer_is_scored_by_its_end(scorer, monkeypatch):
    monkeypatch.setattr(scoring, "_MAX_RESPONSE", 100)
    assert scorer.score("x " * 10_000 + "so 18", metric="GSM8K", ground_truth="18", choices=None) == 1.0


def test_scoring_imports_on_every_system_and_quickly():
    import subprocess

    code = (
        "import sys\nsys.modules['resource'] = sys.modules['math_verify'] = sys.modules['sympy'] = None\n"
        "import gpu_select.benchmark.scoring\n"
        "assert not {'torch', 'numpy', 'ctypes'} & sys.modules.keys(), sorted(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
