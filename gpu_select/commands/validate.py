"""`gpu-select validate`: trained selectors against baselines on held-out records."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.evaluation import Strategy

__all__ = ["command", "validate"]


@click.command(name="validate")
@options.data_file
@click.option("--models-dir", required=True, metavar="DIR", help="Folder of selector files.")
@options.embedding_model(None)
@options.cache_dir(".cache/")
@options.device
@click.option("--json", "json_path", metavar="OUT", help="Write the table as JSON too.")
@click.option("--strict", is_flag=True, help="Stop at the first bad record instead of leaving it out.")
def command(**settings: Any) -> None:
    """Compare trained selectors with an oracle, single models, a table by domain and chance.

    A strategy's quality is the mean performance of the models it chooses, with a 95 % bootstrap interval.
    """
    validate(**settings)


def validate(
    *,
    data_file: str,
    models_dir: str,
    embedding_model: str | None,
    cache_dir: str | None,
    device: str,
    dtype: Any,
    json_path: str | None,
    strict: bool,
) -> None:
    """Embed once, decide with every selector of the folder, print the table."""
    from gpu_select import jsonio
    from gpu_select.artifacts import find_selector_files, load_selector
    from gpu_select.encoder import load_encoder, resolve_device
    from gpu_select.errors import DataError
    from gpu_select.evaluation import evaluate
    from gpu_select.files import atomic_write
    from gpu_select.records import read_outcomes
    from gpu_select.router import DEFAULT_ENCODER, Router

    target = resolve_device(device)
    files = find_selector_files(models_dir)
    artifacts = {name: load_selector(path, algorithm=name, device=target) for name, path in files.items()}
    table, counts = read_outcomes(data_file, strict=strict)
    for text in counts.warnings(data_file):
        options.warn(text)
    named = next((a.encoder_name for a in artifacts.values() if a.encoder_name), DEFAULT_ENCODER)
    encoder = load_encoder(embedding_model or named, device=target, dtype=dtype)
    routers = {name: Router.of(encoder, artifact) for name, artifact in artifacts.items()}

    import numpy as np

    choices, domain_models = {}, None
    with options.open_cache(cache_dir, encoder) as cache:
        for name, router in routers.items():
            known = [model for model in router.models if model in table.models]
            if not known:
                raise DataError(
                    f"{data_file}: expected outcomes of {', '.join(router.models)}, the models of {files[name]}, "
                    f"got {', '.join(table.models)}"
                )
            if len(known) < len(router.models):
                missing = ", ".join(sorted({*router.models} - {*known}))
                options.warn(f"{name}: no outcomes of {missing} in {data_file}; it chooses among the others")
            with options.progress_bar(name, "query", len(table.queries)) as bar:
                routes = router.route(table.queries, table.domains, candidates=known, cache=cache, progress=bar.update)
            choices[name] = np.array([table.models.index(model) for model in routes.models])
            lookup = artifacts[name].own.get("domain_models")
            if domain_models is None and isinstance(lookup, dict):
                domain_models = {str(domain): str(model) for domain, model in lookup.items()}
    strategies = evaluate(table, choices, domain_models=domain_models)
    _print_table(strategies, counts.queries, from_training=domain_models is not None)
    if json_path is not None:
        document = {
            "queries": counts.queries,
            "models": table.models,
            "strategies": [asdict(strategy) for strategy in strategies],
        }
        with atomic_write(json_path) as stream:
            stream.write(jsonio.dumps(document) + b"\n")


def _print_table(strategies: list[Strategy], n_queries: int, *, from_training: bool) -> None:
    width = max(len(s.name) for s in strategies)
    click.echo(f"{n_queries} queries")
    click.echo(f"{'strategy':{width}}  quality  95 % interval     latency  best rate  vs random  vs best single")
    for s in strategies:
        latency = "      -" if s.mean_latency_s is None else f"{s.mean_latency_s:6.2f}s"
        click.echo(
            f"{s.name:{width}}  {s.mean_quality:7.4f}  [{s.ci95[0]:.4f}, {s.ci95[1]:.4f}]  {latency}  "
            f"{s.best_rate:9.1%}  {s.gain_over_random:+9.4f}  {s.gain_over_best_single:+14.4f}"
        )
    source = "the training data" if from_training else "the other queries of this file"
    click.echo(f"per-domain: the best model of each domain on {source}; random: its expectation")
    partly = [s for s in strategies if s.n_scored < n_queries]
    if partly:
        counts = ", ".join(f"{s.name} {s.n_scored}" for s in partly)
        click.echo(f"scored on fewer queries, as outcomes are missing: {counts}")
