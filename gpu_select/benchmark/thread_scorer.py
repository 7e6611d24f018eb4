"""Scores answers in threads, so that neither calls nor the event loop wait for what may take its time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from gpu_select.benchmark.failure import one_line
from gpu_select.benchmark.metrics.truths import accepted_answers
from gpu_select.benchmark.scoring import metric_of

__all__ = ["Scorer", "ThreadScorer"]

_MOST_THREADS = 4
_AT_ONCE = ("CEM", "em_mc", "GSM8K", "f1_score", "commongen_coverage")
_AT_ONCE_CHARACTERS = 4000
"""So long an answer takes these metrics less than a millisecond; a thread may take longer to wake."""
_NO_TRUTH = "no ground_truth"
_NO_CODE = "no score; code_eval needs --allow-code-execution, and assertions in ground_truth"
_NOTHING_ASKED = "no score; the ground_truth names nothing to look for"

_logger = logging.getLogger(__name__)


class Scorer(Protocol):
    """Scores answers, from any thread and in bounded time."""

    def score(
        self, response: str, *, metric: str | None, ground_truth: object | None, choices: object | None, query: str
    ) -> float | None:
        """In [0, 1]; None for an answer that cannot be scored."""


class ThreadScorer:
    """Hands records to a scorer.

    Args:
        scorer: does the work.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.n_threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="score")
        self._has_crashed = False

    def start(self, record: Mapping[str, Any]) -> asyncio.Future[tuple[float | None, str]]:
        """Score an answer: a future of the score, and of the reason where there is none."""
        loop = asyncio.get_running_loop()
        if not self._is_quick(record):
            return loop.run_in_executor(self._pool, self._score, record)
        scored: asyncio.Future[tuple[float | None, str]] = loop.create_future()
        scored.set_result(self._score(record))
        return scored

    def close(self) -> None:
        """Score nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_quick(self, record: Mapping[str, Any]) -> bool:
        if record.get("ground_truth") is None:
            return True
        metric = metric_of(record.get("metric"), record.get("choices"))
        return metric in _AT_ONCE and len(record["response"]) <= _AT_ONCE_CHARACTERS

    def _score(self, record: Mapping[str, Any]) -> tuple[float | None, str]:
        truth = record.get("ground_truth")
        if not accepted_answers(truth):
            return None, _NO_TRUTH
        try:
            score = self._scorer.score(
                record["response"],
                metric=record.get("metric"),
                ground_truth=truth,
                choices=record.get("choices"),
                query=record["query"],
            )
        except Exception as error:
            # a fault of ours: the answer has been paid for, and a later run can still score it
            if not self._has_crashed:
                self._has_crashed = True
                _logger.warning("an answer could not be scored: %s: %s", type(error).__name__, one_line(str(error)))
            return None, f"scoring failed: {type(error).__name__}: {one_line(str(error))}"
        if score is not None:
            return score, ""
        is_code = metric_of(record.get("metric"), record.get("choices")) == "code_eval"
        return None, _NO_CODE if is_code else _NOTHING_ASKED
