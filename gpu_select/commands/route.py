"""`gpu-select route`: the model for every query of a log."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.artifacts import Artifact
    from gpu_select.decision_router import DecisionRouter
    from gpu_select.pipeline import RouteReport
    from gpu_select.router import Router

__all__ = ["command", "route"]

_FORMATS = click.Choice(["jsonl", "csv", "tsv", "txt", "parquet"])


@click.command(name="route")
@click.option(
    "--input", "input_path", metavar="LOG", help="JSONL, CSV, TSV, TXT or Parquet, also .gz and .zst; - is stdin."
)
@click.option("--features", metavar="F.npy", help="Ready feature vectors (B, D) instead of texts.")
@click.option("--output", required=True, metavar="OUT", help="Any of the same formats, by name; - is stdout.")
@click.option("--models-dir", metavar="DIR", help="Folder of selector files.  [default: models/]")
@click.option("--algorithm", type=click.Choice(["knn", "kmeans", "svm", "mlp"]), help="[default: knn]")
@click.option("--model", metavar="FILE", help="One selector file (.json, .json.gz) instead of folder and algorithm.")
@click.option("--config", metavar="FILE", help="Decisions (config.yaml) instead of one selector for all queries.")
@click.option("--query-field", default="query", show_default=True, metavar="NAME")
@click.option("--domain-field", metavar="NAME", help="[default: domain, else category]")
@click.option("--candidates", callback=options.names, metavar="A,B", help="Models to choose from.  [default: all]")
@click.option(
    "--keep", callback=options.names, metavar="FIELDS", help="Input fields to keep, by commas.  [default: all]"
)
@options.embedding_model(None)
@options.cache_dir(None)
@options.device
@options.encoding
@click.option("--token-budget", type=int, help="Tokens the encoder takes at once.  [default: by device]")
@click.option("--knn-backend", type=click.Choice(["torch", "faiss"]), default="torch", show_default=True)
@click.option("--input-format", type=_FORMATS, help="Where the name does not tell.")
@click.option("--output-format", type=_FORMATS, help="Where the name does not tell.")
@click.option("--timings", is_flag=True, help="Say how long each stage took.")
def command(**settings: Any) -> None:
    """Write one output row for every row of a log, in order, with model, score and margin.

    With --config also with decision and domain, as `gpu-select serve` would decide; a domain that a row does not have
    is predicted.

    A row that cannot be routed keeps its place with `error` set; the exit status is then 3.
    """
    report = route(**settings)
    if report.errors:
        raise click.exceptions.Exit(3)


def route(
    *,
    input_path: str | None,
    features: str | None,
    output: str,
    models_dir: str | None,
    algorithm: Any,
    model: str | None,
    query_field: str,
    domain_field: str | None,
    candidates: list[str] | None,
    keep: list[str] | None,
    embedding_model: str | None,
    cache_dir: str | None,
    device: str,
    dtype: Any,
    token_budget: int | None,
    knn_backend: Any,
    input_format: str | None,
    output_format: str | None,
    timings: bool = False,
    deterministic: bool = False,
    compile_layers: bool = False,
    config: str | None = None,
) -> RouteReport:
    """Check the options against each other, then stream."""
    from gpu_select.artifacts import load_selector
    from gpu_select.config import read_config
    from gpu_select.decision_router import DecisionRouter
    from gpu_select.encoder import load_encoder, resolve_device
    from gpu_select.errors import ConfigError
    from gpu_select.router import DEFAULT_ENCODER, Router

    if (input_path is None) == (features is None):
        raise click.UsageError("give either --input LOG or --features F.npy")
    if config is not None and (features or models_dir or algorithm or model or candidates):
        raise click.UsageError(
            "--config says which files, algorithms and models there are: give it without --features, --models-dir, "
            "--algorithm, --model and --candidates"
        )
    if model is not None and (models_dir is not None or algorithm is not None):
        raise click.UsageError("--model names one file: give it without --models-dir and --algorithm")
    if features is not None and (
        embedding_model or cache_dir or domain_field or keep or token_budget or compile_layers
    ):
        raise click.UsageError("--features holds vectors: no encoder, domain or other input field is read with it")
    if token_budget is not None and token_budget < 1:
        raise ConfigError("token-budget", token_budget, "an integer >= 1")
    target = resolve_device(device)
    log_options: dict[str, Any] = {
        "candidates": candidates,
        "query_field": query_field,
        "domain_field": domain_field,
        "keep": keep,
        "compile_layers": compile_layers,
        "cache_dir": cache_dir,
        "token_budget": token_budget,
        "formats": (input_format, output_format),
    }
    if config is not None:
        assert input_path is not None
        decisions = read_config(config)

        def load_decisions() -> DecisionRouter:
            return DecisionRouter.from_config(
                decisions,
                encoder=embedding_model,
                device=target,
                dtype=dtype,
                knn_backend=knn_backend,
                deterministic=deterministic,
            )

        report = _route_log(input_path, output, load_decisions, **log_options)
    else:
        artifact = load_selector(
            model or models_dir or "models/",
            algorithm=None if model else algorithm or "knn",
            device=target,
            backend=knn_backend,
        )
        if candidates is not None:
            artifact.selector.candidate_mask(candidates)

        def load() -> Router:
            name = embedding_model or artifact.encoder_name or DEFAULT_ENCODER
            router = Router.of(load_encoder(name, device=target, dtype=dtype), artifact)
            if deterministic:
                router.make_deterministic()
            return router

        if input_path is not None:
            report = _route_log(input_path, output, load, **log_options)
        else:
            assert features is not None
            report = _route_vectors(
                features, output, output_format, artifact, candidates=candidates, deterministic=deterministic
            )
    _summary(report, output, vectors=features is not None)
    if timings:
        click.echo(_stages(report), err=True)
    return report


def _route_log(
    input_path: str,
    output: str,
    load: Callable[[], Router | DecisionRouter],
    *,
    candidates: list[str] | None,
    query_field: str,
    domain_field: str | None,
    keep: list[str] | None,
    compile_layers: bool,
    cache_dir: str | None,
    token_budget: int | None,
    formats: tuple[str | None, str | None],
) -> RouteReport:
    from gpu_select import pipeline
    from gpu_select.decision_router import DecisionRouter
    from gpu_select.decisions import DECISION_FIELDS
    from gpu_select.errors import ConfigError
    from gpu_select.logs import RESULT_FIELDS, open_log, open_writer

    stop = threading.Event()
    with open_log(input_path, format=formats[0], stop=stop) as log:
        fixed = log.columns
        if fixed is not None:
            for option, name in (
                ("query-field", query_field),
                ("domain-field", domain_field),
                *(("keep", k) for k in keep or ()),
            ):
                if name is not None and name not in fixed:
                    raise ConfigError(option, name, f"one of the columns of {input_path}: {', '.join(fixed)}")
        router = load()
        if compile_layers:
            router.encoder.compile_layers()
        result_fields = DECISION_FIELDS if isinstance(router, DecisionRouter) else RESULT_FIELDS
        columns = keep if keep is not None else fixed
        with (
            open_writer(
                output,
                format=formats[1],
                columns=None if columns is None else [pipeline.input_name(name, result_fields) for name in columns],
                schema=log.schema,
                result_fields=result_fields,
                stop=stop,
            ) as out,
            options.open_cache(cache_dir, router.encoder) as cache,
            options.progress_bar("routing", "row") as bar,
        ):
            decide: Any
            if isinstance(router, DecisionRouter):
                decide = partial(router.decide_prepared, token_budget=token_budget, cache=cache)
            else:
                decide = partial(router.decide, candidates=candidates, token_budget=token_budget, cache=cache)
            report = pipeline.route_rows(
                log.windows(pipeline.WINDOW_ROWS),
                out.write,
                partial(router.prepare, tokenize=cache is None),
                decide,
                query_field=query_field,
                domain_fields=pipeline.DOMAIN_FIELDS if domain_field is None else (domain_field,),
                keep=keep,
                result_fields=result_fields,
                progress=_advance(bar),
                on_stop=stop.set,
            )
    if report.without_domain:
        where = " or ".join(pipeline.DOMAIN_FIELDS) if domain_field is None else domain_field
        text = f"{report.without_domain} of {report.rows} rows have no {where}"
        if isinstance(router, DecisionRouter) and router.domain_head is not None:
            click.echo(f"{text}: their domain was predicted", err=True)
        elif not (isinstance(router, DecisionRouter) and router.rules.ask_for_domains):
            options.warn(f"{text}: their domain counts as 'other'")
    for name in sorted(report.renamed):
        options.warn(f"the input's field {name!r} is kept as {pipeline.input_name(name, result_fields)!r}")
    if report.truncated:
        options.warn(f"{report.truncated} queries are longer than the encoder takes and were truncated")
    return report


def _route_vectors(
    features: str,
    output: str,
    output_format: str | None,
    artifact: Artifact,
    *,
    candidates: list[str] | None,
    deterministic: bool,
) -> RouteReport:
    from gpu_select import pipeline
    from gpu_select.errors import DimensionError
    from gpu_select.logs import open_writer
    from gpu_select.router import route_features

    artifact.selector.deterministic = deterministic
    vectors = _open_vectors(features)
    width, dim = vectors.shape[1], artifact.selector.dim
    if width != dim:
        raise DimensionError(f"{features}: expected vectors of D = {dim}, as {artifact.path} has, got {width}")
    stop = threading.Event()
    with (
        open_writer(output, format=output_format, columns=["row"], stop=stop) as out,
        options.progress_bar("routing", "row", len(vectors)) as bar,
    ):
        decide = partial(route_features, artifact.selector, candidates=candidates)
        return pipeline.route_vectors(
            vectors,
            out.write,
            decide,
            window_rows=pipeline.WINDOW_ROWS,
            progress=_advance(bar),
            on_stop=stop.set,
        )


def _open_vectors(path: str) -> Any:
    import numpy as np

    from gpu_select.errors import InputError, brief

    expected = "a .npy file with a (B, D) array of float16, float32 or float64"
    if not os.path.isfile(path):  # pathlib's raises for a name that is too long
        raise InputError(f"cannot read {path}: no such file")
    try:
        with np.errstate(over="ignore"):  # a hostile shape
            # not np.load, which opens archives and pickles too
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the reader of headers, which come from outside, raises nearly every type
        raise InputError(f"{path}: expected {expected}, got {brief(str(error))}") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path}: expected {expected}, got shape {array.shape} of {array.dtype}")
    return array


def _advance(bar: Any) -> Callable[[RouteReport], None]:
    def advance(report: RouteReport) -> None:
        bar.update(report.rows - bar.n)
        bar.set_postfix_str(f"{report.tokens / max(report.seconds, 1e-9):,.0f} tokens/s", refresh=False)

    return advance


def _stages(report: RouteReport) -> str:
    """Each stage's seconds and share; together more than the time that passed where they overlap."""
    seconds = {stage: value for stage, value in report.stage_seconds.items() if value > 0}
    total = sum(seconds.values())
    parts = [f"{stage} {value:.2f} s ({value / total:.0%})" for stage, value in seconds.items()]
    parts.append(f"they add up to {total:.2f} s in {report.seconds:.2f} s")
    return f"stages: {', '.join(parts)}" + (": they overlap" if total > report.seconds else "")


def _summary(report: RouteReport, output: str, *, vectors: bool) -> None:
    """On standard error, so that standard output can be the log."""
    seconds = max(report.seconds, 1e-9)
    speed = f"{report.rows / seconds:,.0f} rows/s"
    if not vectors:
        speed += f", {report.tokens / seconds:,.0f} tokens/s"
    click.echo(
        f"routed {report.rows - report.errors} of {report.rows} rows to {output} in {seconds:.2f} s: {speed}", err=True
    )
    for model, count in report.share.most_common():
        click.echo(f"  {model:30}  {count:8}  {count / max(1, report.rows):6.1%}", err=True)
    if report.decisions:
        click.echo("by decision:", err=True)
    for decision, count in report.decisions.most_common():
        click.echo(f"  {decision:30}  {count:8}  {count / max(1, report.rows):6.1%}", err=True)
    if report.errors:
        click.echo(
            f"{report.errors} rows could not be routed and have `error` set; the first: {report.first_error}", err=True
        )
