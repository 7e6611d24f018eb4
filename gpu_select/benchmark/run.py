"""A whole benchmark: what the file lacks is asked for, scored and written, until it is complete or stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpu_select.benchmark.answer_file import AnswerFile, Span
from gpu_select.benchmark.client import Client, open_session
from gpu_select.benchmark.lanes import Lane, Lanes
from gpu_select.benchmark.plan import Plan, make_plan
from gpu_select.benchmark.progress import Observer, Progress
from gpu_select.benchmark.prompts import PromptForm, prompt
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.recorder import Recorder
from gpu_select.benchmark.runner import Runner
from gpu_select.benchmark.scoring import metric_of
from gpu_select.benchmark.summary import ModelSummary, summarise
from gpu_select.benchmark.targets import Target
from gpu_select.benchmark.thread_scorer import Scorer, ThreadScorer
from gpu_select.signals import signal_handlers

__all__ = ["BenchmarkResult", "RunSettings", "run_benchmark"]

_SYNC_S = 5.0


@dataclass(frozen=True)
class RunSettings:
    """How calls are made."""

    concurrency: int = 4
    """Calls at once, of all models."""
    retries: int = 5
    """Tries beyond the first."""
    interleave: bool = False
    """Models take turns, instead of one after the other."""
    stream: bool = True
    """Answers are streamed, which tells the time to the first token."""
    form: PromptForm = "plain"


@dataclass(frozen=True)
class BenchmarkResult:
    """What stands in the file at the end, and what came of this run."""

    models: list[ModelSummary]
    calls: int
    """Calls of this run that were answered or failed."""
    is_interrupted: bool

    @property
    def is_complete(self) -> bool:
        """Whether every query has its answer from every model."""
        return all(model.answered == model.queries for model in self.models)


def run_benchmark(
    questions: Sequence[Question],
    targets: Sequence[Target],
    output: str,
    settings: RunSettings,
    scorer: Scorer,
    observer: Observer,
) -> BenchmarkResult:
    """Ask every model every question that the file has no answer to yet.

    A first SIGINT or SIGTERM lets the calls under way end, as they are paid for; a second one drops them.

    Args:
        questions, targets: every pair of them is wanted.
        output: where records go, and may be from earlier runs.
        settings: how calls are made.
        scorer: scores answers.
        observer: is told what happens.

    Raises:
        OutputError: the file cannot be written, or another benchmark is writing it.
        DataError: the file holds something else, or answers that were asked for otherwise.
    """
    with AnswerFile(output) as file:
        plan = make_plan(file, questions, targets, settings.form, metric_of)
        for warning in file.warnings:
            observer.say(warning)
        lanes, is_interrupted = asyncio.run(_run(file, plan, targets, settings, scorer, observer))
        file.compact()
        models = summarise(
            (record for _, _, record in file.records()),
            [target.name for target in targets],
            {question.query for question in questions},
            {lane.target.name: lane.stopped for lane in lanes if lane.stopped is not None},
        )
    calls = sum(lane.progress.made for lane in lanes)
    return BenchmarkResult(models, calls, is_interrupted)


async def _run(
    file: AnswerFile,
    plan: Plan,
    targets: Sequence[Target],
    settings: RunSettings,
    scorer: Scorer,
    observer: Observer,
) -> tuple[Sequence[Lane], bool]:
    async with open_session() as session:
        lanes = [
            Lane(target, Client(session, target, stream=settings.stream), plan.calls[target.name]) for target in targets
        ]
        scores = ThreadScorer(scorer)
        recorder = Recorder(file, scores, plan.failed, settings.form)
        runner = Runner(
            Lanes(lanes, interleave=settings.interleave),
            recorder,
            lambda question: _prompt(question, settings.form),
            concurrency=settings.concurrency,
            retries=settings.retries,
            observer=observer,
        )
        observer.begin(Progress(lane.progress for lane in lanes), plan.answered)
        work = asyncio.ensure_future(_work(runner, recorder, plan, file, scores.n_threads))

        def interrupt() -> None:
            if runner.is_stopping:
                work.cancel()
                return
            runner.stop()
            if runner.n_calling:
                observer.say(f"stopping; {runner.n_calling} calls are under way (Ctrl-C once more drops them)")

        try:
            with (
                signal_handlers({"SIGINT": interrupt, "SIGTERM": interrupt}),
                contextlib.suppress(asyncio.CancelledError),
            ):
                await work
        finally:
            scores.close()
    return lanes, runner.is_stopping


async def _work(runner: Runner, recorder: Recorder, plan: Plan, file: AnswerFile, n_scoring: int) -> None:
    answers = iter(plan.again)
    try:
        async with asyncio.TaskGroup() as group:
            syncing = group.create_task(_sync(file))
            async with asyncio.TaskGroup() as inner:
                inner.create_task(runner.run())
                for _ in range(n_scoring):
                    inner.create_task(_score_again(runner, recorder, answers))
            syncing.cancel()
    except BaseExceptionGroup as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _score_again(runner: Runner, recorder: Recorder, answers: Iterator[tuple[Span, Question]]) -> None:
    for span, question in answers:
        if runner.is_stopping:
            return
        await recorder.again(span, question)


async def _sync(file: AnswerFile) -> None:
    while True:
        await asyncio.sleep(_SYNC_S)
        await asyncio.to_thread(file.sync)


def _prompt(question: Question, form: PromptForm) -> str:
    metric = metric_of(question.fields.get("metric"), question.fields.get("choices"))
    return prompt(question.fields, metric, form)
