"""`gpu-select route`: the model for every query of a log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options
from gpu_select.commands.route_summary import stages, summarise

if TYPE_CHECKING:
    from gpu_select.pipeline import RouteReport

__all__ = ["command", "route"]

_FORMATS = click.Choice(["jsonl", "csv", "tsv", "txt", "parquet"])


@click.command(name="route")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="LOG",
    help="JSONL, CSV, TSV, TXT or Parquet, also .gz and .zst; a file, a pattern or a folder, also several times; "
    "- is stdin.",
)
@click.option("--features", metavar="F.npy", help="Ready feature vectors (B, D) instead of texts.")
@click.option(
    "--output",
    required=True,
    metavar="OUT",
    help="Any of the same formats, by name; - is stdout. With --shard-rows a folder.",
)
@click.option("--models-dir", metavar="DIR", help="Folder of selector files.  [default: models/]")
@click.option("--algorithm", type=click.Choice(["knn", "kmeans", "svm", "mlp"]), help="[default: knn]")
@click.option("--model", metavar="FILE", help="One selector file (.json, .json.gz) instead of folder and algorithm.")
@click.option("--config", metavar="FILE", help="Decisions (config.yaml) instead of one selector for all queries.")
@click.option("--query-field", default="query", show_default=True, metavar="NAME")
@click.option("--embedding-field", metavar="NAME", help="Embeddings that the rows hold already, instead of texts.")
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
@click.option(
    "--output-format",
    type=_FORMATS,
    help="Where the name does not tell.  [with --shard-rows: parquet for Parquet, else jsonl]",
)
@click.option(
    "--shard-rows",
    type=int,
    metavar="N",
    help="Write a folder of files with N rows each; the same command goes on where it was stopped.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes that share the shards.  [default: one a GPU; one on the CPU]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where these processes run: here, or as actors of a Ray cluster that sees the same files.",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster; local starts one here.  [default: auto]")
@click.option("--timings", is_flag=True, help="Say how long each stage took.")
def command(**settings: Any) -> None:
    """Write one output row for every row of a log, in order, with model, score and margin.

    With --config also with decision and domain, as `gpu-select serve` would decide; a domain that a row does not have
    is predicted.

    With --shard-rows the output is a folder of shards, made by several processes where there are several GPUs or
    --workers says so. Finished shards stay when the command is stopped or killed, and the same command goes on.

    A row that cannot be routed keeps its place with `error` set; the exit status is then 3.
    """
    from gpu_select.pipeline import FEW_SHAPES, SAME_BITS

    for name, value in {**FEW_SHAPES, **SAME_BITS}.items():
        os.environ.setdefault(name, value)
    report = route(**settings)
    if report.errors:
        raise click.exceptions.Exit(3)


def route(
    *,
    inputs: Sequence[str] = (),
    features: str | None = None,
    output: str,
    models_dir: str | None = None,
    algorithm: Any = None,
    model: str | None = None,
    query_field: str = "query",
    embedding_field: str | None = None,
    domain_field: str | None = None,
    candidates: list[str] | None = None,
    keep: list[str] | None = None,
    embedding_model: str | None = None,
    cache_dir: str | None = None,
    device: str = "auto",
    dtype: Any = "auto",
    token_budget: int | None = None,
    knn_backend: Any = "torch",
    input_format: str | None = None,
    output_format: str | None = None,
    shard_rows: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    address: str | None = None,
    timings: bool = False,
    deterministic: bool = False,
    compile_layers: bool = False,
    config: str | None = None,
) -> RouteReport:
    """Check the options against each other, then stream."""
    from gpu_select.errors import ConfigError
    from gpu_select.logs import find_logs
    from gpu_select.pipeline import RouteOptions

    if bool(inputs) == (features is not None):
        raise click.UsageError("give either --input LOG or --features F.npy")
    if config is not None and (features or embedding_field or models_dir or algorithm or model or candidates):
        raise click.UsageError(
            "--config says which files, algorithms and models there are: give it without --features, "
            "--embedding-field, --models-dir, --algorithm, --model and --candidates"
        )
    if model is not None and (models_dir is not None or algorithm is not None):
        raise click.UsageError("--model names one file: give it without --models-dir and --algorithm")
    if features is not None and (domain_field or keep or embedding_field or shard_rows):
        raise click.UsageError("--features holds vectors: no encoder, domain or other input field is read with it")
    if (features or embedding_field) and (embedding_model or cache_dir or token_budget or compile_layers):
        given = "--features holds vectors" if features else "--embedding-field names vectors"
        raise click.UsageError(f"{given}: no encoder, domain or other input field is read with it")
    if workers is not None and shard_rows is None:
        raise click.UsageError("--workers share shards: give it with --shard-rows")
    if engine == "ray" and shard_rows is None:
        raise click.UsageError("the workers of --engine ray share shards: give it with --shard-rows")
    if address is not None and engine != "ray":
        raise click.UsageError("--address is that of a Ray cluster: give it with --engine ray")
    for name, value in (("token-budget", token_budget), ("shard-rows", shard_rows), ("workers", workers)):
        if value is not None and value < 1:
            raise ConfigError(name, value, "an integer >= 1")
    settings = RouteOptions(
        models=model or models_dir or "models/",
        algorithm=None if model else algorithm or "knn",
        config=config,
        candidates=None if candidates is None else tuple(candidates),
        query_field=query_field,
        embedding_field=embedding_field,
        domain_field=domain_field,
        keep=None if keep is None else tuple(keep),
        embedding_model=embedding_model,
        dtype=dtype,
        token_budget=token_budget,
        knn_backend=knn_backend,
        deterministic=deterministic,
        compile_layers=compile_layers,
        cache_dir=cache_dir,
    )
    rows_before = 0
    if shard_rows is not None:
        from gpu_select.commands.route_shards import check_shards, route_shards

        outcome = route_shards(
            find_logs(inputs, input_format, output=output),
            output,
            settings,
            shard_rows=shard_rows,
            device=device,
            workers=workers,
            address=(address or "auto") if engine == "ray" else None,
            formats=(input_format, output_format),
        )
        report, rows_before = outcome.report, outcome.rows_before
    elif features is None:
        from gpu_select.commands.route_log import route_log

        report = route_log(
            find_logs(inputs, input_format), output, settings, device=device, formats=(input_format, output_format)
        )
    else:
        from gpu_select.commands.route_vectors import route_vectors

        report = route_vectors(features, output, output_format, settings, device=device)
    summarise(report, output, with_texts=features is None and embedding_field is None, rows_before=rows_before)
    if timings:
        click.echo(stages(report), err=True)
    if shard_rows is not None:
        check_shards(outcome, output)
    return report
