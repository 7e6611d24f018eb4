"""Turns answers and failures into records on disk, an answer with its score as soon as there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from gpu_select.benchmark.answer import Answer
from gpu_select.benchmark.answer_file import AnswerFile, Span
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.record import OUTCOME_FIELDS, answer_record, failed_record, needs_score, scored
from gpu_select.benchmark.targets import Target
from gpu_select.benchmark.thread_scorer import ThreadScorer

__all__ = ["Pair", "Recorder"]

Pair = tuple[str, str]
"""Text of a query, name of a model."""

_PATIENCE_S = 0.02
"""An answer whose score takes longer is written without it first: it has been paid for, and its call keeps a place."""
_NOT_YET = "not scored yet"


class Recorder:
    """Writes records.

    Args:
        file: where they go.
        scorer: scores answers.
        replaced: where the record of an earlier failure of a pair stands, which a new one takes the place of.
        form: how prompts are made, for a later run to compare with.
    """

    def __init__(self, file: AnswerFile, scorer: ThreadScorer, replaced: Mapping[Pair, Span], form: str) -> None:
        self._file = file
        self._scorer = scorer
        self._replaced = dict(replaced)
        self._form = form
        self.n_unscored = 0
        """Answers that wait for their score."""

    def failed(self, question: Question, target: Target, error: str, attempts: int) -> None:
        """Write that a call failed for good.

        Raises:
            OutputError: it cannot be written.
        """
        record = failed_record(question.fields, target, error, attempts)
        self._file.append(record, replaces=self._replaced.pop((question.query, target.name), None))

    async def answered(
        self,
        question: Question,
        target: Target,
        answer: Answer,
        attempts: int,
        on_written: Callable[[], object],
    ) -> None:
        """Score an answer and write it; where the score takes its time, or never comes, write it without.

        Args:
            question, target, answer: who answered what.
            attempts: tries until then.
            on_written: called as soon as the answer is in the file, be it without its score.

        Raises:
            OutputError: it cannot be written.
        """
        request = {"prompt": self._form, "max_tokens": target.max_tokens}
        if answer.with_temperature:
            request["temperature"] = target.temperature
        record = answer_record(question.fields, target, answer, attempts, request)
        before = self._replaced.pop((question.query, target.name), None)
        self.n_unscored += 1
        try:
            await self._score(record, before, on_written)
        finally:
            self.n_unscored -= 1

    async def _score(self, record: Mapping[str, Any], before: Span | None, on_written: Callable[[], object]) -> None:
        scoring = self._scorer.start(record)
        try:
            await asyncio.wait({scoring}, timeout=_PATIENCE_S)
        finally:  # even when cancelled
            is_scored = scoring.done()
            score = scoring.result() if is_scored else (None, _NOT_YET)
            span = self._file.append(scored(record, *score), replaces=before)
            on_written()
        if not is_scored:
            await asyncio.wait({scoring})
            self._file.append(scored(record, *scoring.result()), replaces=span)

    async def again(self, span: Span, question: Question) -> None:
        """Bring the record of an earlier answer up to its question's fields, and score it if it has to be.

        Raises:
            OutputError: it cannot be written.
        """
        old = self._file.read(span)
        record = {**question.fields, **{name: value for name, value in old.items() if name in OUTCOME_FIELDS}}
        if needs_score(old, question.fields):
            record = scored(record, *await self._scorer.start(record))
        if record != old:
            self._file.append(record, replaces=span)
