from __future__ import annotations

import importlib.util
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpu_select.benchmark.metrics import math_equality
from gpu_select.benchmark.metrics.math_equality import MathEquality, require_math_verify
from gpu_select.errors import GpuSelectError, MissingDependencyError

needs_math_verify = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="needs math-verify")


@pytest.fixture
def equality():
    found = MathEquality()
    yield found
    found.close()


@needs_math_verify
def test_what_takes_for_ever_ends_and_the_next_comparison_works(equality, monkeypatch):
    assert equality(r"\sqrt{8}", r"2\sqrt{2}")
    monkeypatch.setattr(math_equality, "_COMPARE_S", 0.5)
    start = time.monotonic()
    assert not equality("7", "9^{9^{9^9}}")
    assert time.monotonic() - start < 3
    monkeypatch.setattr(math_equality, "_COMPARE_S", 10.0)
    assert equality(r"\sqrt{8}", r"2\sqrt{2}")


@needs_math_verify
@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "1000000000!",
        r"\prod_{n=1}^{10^9} n",
        r"\binom{10^9}{10^8}",
        "(x+1)^{100000}",
        "(" * 900,
        r"\frac{" * 400,
        "x^" * 300 + "2",
        "9" * 990,
        "x_{1}" * 180,
        r"\begin{pmatrix}" + "1&" * 300 + r"1\end{pmatrix}",
    ],
)
def test_hostile_formulas_are_unequal_in_bounded_time(answer, equality):
    start = time.monotonic()
    assert not equality("7", answer)
    assert time.monotonic() - start < 20  # with the start of the process
    assert equality("x+1", "1+x")


@needs_math_verify
def test_a_text_is_never_run(equality, tmp_path):
    mark = tmp_path / "mark"
    for answer in (f"__import__('os').system('touch {mark}')", f"\\text{{exec(\"open('{mark}', 'w')\")}}"):
        assert not equality("7", answer)
        assert not equality(answer, "7")
    assert not mark.exists()


@needs_math_verify
def test_many_threads_may_ask(equality):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: equality(f"x+{i % 3}", "1+x"), range(24)))
    assert found == [i % 3 == 1 for i in range(24)]


@needs_math_verify
def test_nothing_is_left_when_closed():
    before = set(threading.enumerate())
    found = MathEquality()
    assert found("x+1", "1+x")
    assert found._process is not None
    pid = found._process.pid
    found.close()
    found.close()
    assert not Path(f"/proc/{pid}").exists() or os.name != "posix"
    deadline = time.monotonic() + 5
    while not before.issuperset(threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert before.issuperset(threading.enumerate())


@needs_math_verify
def test_the_process_ends_with_its_caller():
    found = MathEquality()
    assert found("x+1", "1+x")
    process = found._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does for a caller that was killed
    assert process.wait(5) == 0
    found.close()


def test_a_process_that_does_not_start_is_an_error(equality, monkeypatch):
    monkeypatch.setattr(math_equality, "require_math_verify", lambda: None)
    monkeypatch.setattr(math_equality, "_WORKER", Path(os.devnull))
    with pytest.raises(GpuSelectError, match=r"^MATH: the process that compares formulas did not start; see what `"):
        equality("1", "2")


def test_without_the_library_the_error_says_how_to_get_it(equality, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = r"^the metric MATH needs the package math-verify, .*: pip install 'gpu-select\[benchmark\]'$"
    with pytest.raises(MissingDependencyError, match=expected):
        require_math_verify()
    with pytest.raises(MissingDependencyError, match=expected):
        equality("1", "2")
