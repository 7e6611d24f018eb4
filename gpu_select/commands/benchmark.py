"""`gpu-select benchmark`: queries and models -> benchmark records."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import click

from gpu_select.commands import options

__all__ = ["command"]

_KEYS = ("LLM_API_KEY", "OPENAI_API_KEY")
_INTERRUPTED = 130
_INCOMPLETE = 3


class _Range(click.FloatRange):
    """Without NaN, which no bound keeps out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


@click.command(name="benchmark")
@click.option("--queries", required=True, metavar="FILE", help="JSON lines with query, category, ground_truth, ...")
@click.option("--models", metavar="NAMES", callback=options.names, help="Names of models, with commas between.")
@click.option("--model-config", metavar="FILE", help="models.yaml, instead of --models.")
@click.option("--endpoint", default="http://localhost:8000/v1", show_default=True, metavar="URL", help="Of all models.")
@click.option("--api-key", metavar="KEY", help="Of all models.  [default with --models: LLM_API_KEY, OPENAI_API_KEY]")
@click.option("--output", default="benchmark_output.jsonl", show_default=True, metavar="FILE", help="Records go here.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=4, show_default=True, help="Calls at once.")
@click.option("--limit", type=click.IntRange(1), help="Take the first LIMIT distinct queries only.")
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Most tokens of an answer.")
@click.option("--temperature", type=_Range(0, 100), default=0.0, show_default=True)
@click.option("--timeout", type=_Range(0.001, 86_400), default=600.0, show_default=True, help="Seconds a try may take.")
@click.option("--retries", type=click.IntRange(0, 100), default=5, show_default=True, help="Tries beyond the first.")
@click.option("--concise", is_flag=True, help="Ask for short answers.")
@click.option("--interleave", is_flag=True, help="Let models take turns, instead of one after the other.")
@click.option("--no-stream", is_flag=True, help="Ask for answers in one piece; no time to the first token then.")
@click.option(
    "--allow-code-execution", is_flag=True, help="Let code_eval run the code that models write, in a sandbox."
)
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def command(ctx: click.Context, /, models: list[str] | None, model_config: str | None, **values: Any) -> None:
    """Ask models the queries of a file, score their answers, and write records that `gpu-select train` takes.

    Each record is on disk as soon as its call ends. The same command again asks only for what is missing or has
    failed. A value of models.yaml wins over a default here; an option that is given wins over both.

    Exit status 3: some calls failed, or were not made.
    """
    if (models is None) == (model_config is None):
        raise click.UsageError("expected either --models NAMES or --model-config FILE")
    given = {name for name in ("endpoint", "api_key", "max_tokens", "temperature") if options.is_given(ctx, name)}
    if options.is_given(ctx, "timeout"):
        given.add("timeout_s")
    status = _benchmark(models, model_config, given, **values)
    if status:
        raise click.exceptions.Exit(status)


def _benchmark(
    models: list[str] | None,
    model_config: str | None,
    given: set[str],
    *,
    queries: str,
    endpoint: str,
    api_key: str | None,
    output: str,
    concurrency: int,
    limit: int | None,
    max_tokens: int,
    temperature: float,
    timeout: float,
    retries: int,
    concise: bool,
    interleave: bool,
    no_stream: bool,
    allow_code_execution: bool,
    no_progress: bool,
    as_json: bool,
) -> int:
    """Read both files, make the calls, print what came of it; the exit status."""
    from gpu_select.errors import MissingDependencyError

    if importlib.util.find_spec("aiohttp") is None:
        raise MissingDependencyError("aiohttp", "gpu-select benchmark", "'gpu-select[benchmark]'")
    from gpu_select.benchmark.questions import read_questions
    from gpu_select.benchmark.run import RunSettings, run_benchmark
    from gpu_select.benchmark.scoring import Scorer, metric_of
    from gpu_select.benchmark.targets import CallSettings, named_models, resolve_targets
    from gpu_select.commands.benchmark_progress import ShownProgress
    from gpu_select.config import read_models

    if model_config is not None:
        entries = read_models(model_config, expanded=True)
    else:
        entries = named_models(models or [])
        if api_key is None:
            api_key = next((key for name in _KEYS if (key := os.environ.get(name))), None)
    settings = CallSettings(endpoint, max_tokens, temperature, timeout, api_key)
    targets = resolve_targets(entries, settings, given)
    questions, warnings = read_questions(queries, limit=limit, check_metric=metric_of)
    for text in warnings:
        options.warn(text)
    n_code = sum(metric_of(q.fields.get("metric"), q.fields.get("choices")) == "code_eval" for q in questions)
    if n_code and not allow_code_execution:
        options.warn(
            f"{n_code} queries are scored by running the code of their answers: without --allow-code-execution these "
            "are kept unscored, for a later run with it"
        )
    how = RunSettings(concurrency, retries, interleave, not no_stream, "concise" if concise else "plain")
    with Scorer(allow_code_execution=allow_code_execution) as scorer, ShownProgress(shown=not no_progress) as shown:
        result = run_benchmark(questions, targets, output, how, scorer, shown)
    _print(result, output, as_json=as_json)
    if result.is_interrupted:
        return _INTERRUPTED
    return 0 if result.is_complete else _INCOMPLETE


def _print(result: Any, output: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    from gpu_select import jsonio
    from gpu_select.benchmark.summary import summary_table

    if as_json:
        document = {
            "output": output,
            "calls": result.calls,
            "interrupted": result.is_interrupted,
            "models": [asdict(model) for model in result.models],
        }
        click.echo(jsonio.dumps(document).decode())
    else:
        for line in summary_table(result.models):
            click.echo(line)
        click.echo(f"-> {output}")
    for model in result.models:
        if model.failed:
            options.warn(f"{model.failed} calls of {model.model} failed, most or all with: {model.usual_error}")
    if not result.is_complete:
        n = sum(model.queries - model.answered for model in result.models)
        options.warn(
            f"{n} of {sum(m.queries for m in result.models)} answers are missing; the same command asks for them"
        )
