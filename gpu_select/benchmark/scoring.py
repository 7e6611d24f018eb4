"""Scores answers by the metric of their record."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpu_select.benchmark.metrics.cem import cem
from gpu_select.benchmark.metrics.code_eval import code_eval
from gpu_select.benchmark.metrics.commongen_coverage import commongen_coverage, concepts_of
from gpu_select.benchmark.metrics.em_mc import em_mc
from gpu_select.benchmark.metrics.f1_score import f1_score
from gpu_select.benchmark.metrics.gsm8k import gsm8k
from gpu_select.benchmark.metrics.math import math
from gpu_select.benchmark.metrics.math_equality import MathEquality, require_math_verify
from gpu_select.benchmark.metrics.truths import accepted_answers
from gpu_select.errors import DataError, IsolationError, brief

if TYPE_CHECKING:
    from gpu_select.benchmark.sandbox.isolation import Isolation

__all__ = ["METRICS", "Scorer", "metric_of"]

METRICS: tuple[str, ...] = ("em_mc", "GSM8K", "MATH", "f1_score", "code_eval", "commongen_coverage", "CEM")
"""As records name them."""

_BY_NAME = {name.lower(): name for name in METRICS} | {"choices": "em_mc", "f1": "f1_score"}
_MAX_RESPONSE = 200_000


def metric_of(metric: str | None, choices: object | None) -> str:
    """The metric's name as in `METRICS`; without one, em_mc where there are choices, else CEM.

    Raises:
        DataError: no such metric.
        MissingDependencyError: MATH without Math-Verify.
    """
    if metric is None or metric == "":
        return "em_mc" if choices else "CEM"
    name = _BY_NAME.get(metric.lower()) if isinstance(metric, str) else None
    if name is None:
        raise DataError(f"metric: expected one of {', '.join(METRICS)}, got {brief(metric)}")
    if name == "MATH":
        require_math_verify()
    return name


class Scorer:
    """Scores answers; a context manager, and thread-safe.

    Raises:
        IsolationError: code execution is asked for and this system has no way to isolate it.
    """

    def __init__(self, *, allow_code_execution: bool = False) -> None:
        self._isolation = _isolation() if allow_code_execution else None
        # more at once would slow each other down, and time is limited
        self._places = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._math_equality = MathEquality()

    def score(
        self, response: str, *, metric: str | None, ground_truth: Any, choices: Any = None, query: str = ""
    ) -> float | None:
        """The answer's score in [0, 1]. Blocks, for some seconds at most.

        None without a ground truth, and for code_eval where code may not be executed.

        Args:
            response: what the model answered.
            metric: see `metric_of`.
            ground_truth: a text, a number, or a list of accepted ones.
            choices: of a multiple-choice question.
            query: what was asked; code_eval runs answers that go on where a program in it stops.
        Raises:
            DataError: no such metric.
            IsolationError: code could not be run.
        """
        name = metric_of(metric, choices)
        truths = accepted_answers(ground_truth)
        if not truths:
            return None
        response = response[-_MAX_RESPONSE:]
        match name:
            case "em_mc":
                return em_mc(response, ground_truth, choices)
            case "GSM8K":
                return gsm8k(response, truths)
            case "MATH":
                return math(response, truths, self._math_equality)
            case "f1_score":
                return f1_score(response, truths)
            case "commongen_coverage":
                return commongen_coverage(response, truths) if concepts_of(truths) else None
            case "code_eval":
                return self._code_eval(response, ground_truth if isinstance(ground_truth, str) else truths, query)
        return cem(response, truths)

    def _code_eval(self, response: str, tests: str | list[str], query: str) -> float | None:
        if self._isolation is None:
            return None
        with self._places:
            return code_eval(response, tests, query, self._isolation)

    def close(self) -> None:
        """End the processes that scoring has started."""
        self._math_equality.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _isolation() -> Isolation:
    if sys.platform != "linux":
        raise IsolationError(
            f"code_eval: expected Linux, whose kernel isolates code, got {sys.platform}; leave code execution out"
        )
    from gpu_select.benchmark.sandbox.finding import find_isolation  # its modules exist on Linux alone

    return find_isolation()
