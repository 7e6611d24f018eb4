"""`gpu-select train`: benchmark records -> selector files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.holdout import HeldOut

__all__ = ["command", "train"]

_SETTINGS = {
    "knn_k": ("knn", "k"),
    "kmeans_clusters": ("kmeans", "clusters"),
    "svm_kernel": ("svm", "kernel"),
    "svm_gamma": ("svm", "gamma"),
    "quality_weight": ("quality_weight",),
    "seed": ("seed",),
}
"""Where an option's value goes in a configuration."""


@click.command(name="train")
@options.data_file
@click.option("--output-dir", default="models/", show_default=True, metavar="DIR", help="Where the files go.")
@options.embedding_model("qwen3")
@options.cache_dir(".cache/")
@options.algorithm
@click.option("--config", metavar="FILE", help="Settings as `gpu-select tune` writes them; other options win over it.")
@click.option("--knn-k", default=5, show_default=True, help="Queries that vote in KNN.")
@click.option("--kmeans-clusters", default=8, show_default=True, help="Clusters at most.")
@click.option("--svm-kernel", type=click.Choice(["rbf", "linear"]), default="rbf", show_default=True)
@click.option("--svm-gamma", default=1.0, show_default=True, help="Width of the RBF kernel on unit vectors.")
@options.quality_weight
@click.option("--batch-size", default=32, show_default=True, help="Texts the encoder takes at once, at most.")
@options.device
@click.option("--limit", type=int, help="Use the first LIMIT distinct queries only.")
@options.seed
@click.option("--strict", is_flag=True, help="Stop at the first bad record instead of leaving it out.")
@click.option("--no-check", is_flag=True, help="Leave out the check on held-out queries at the end.")
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> None:
    """Train selectors on benchmark records and write them as standard JSON files.

    Beside them goes a head that predicts a query's domain, where the records name categories.

    A record has query, category, model_name, performance (0 to 1) and response_time (seconds). At the end a fifth of
    the queries is held out once, to see whether selectors with these settings gain anything.
    """
    settings: dict[str, Any] = {}
    for name, place in _SETTINGS.items():
        value = values.pop(name)
        if options.is_given(ctx, name):
            group = settings if len(place) == 1 else settings.setdefault(place[0], {})
            group[place[-1]] = value
    train(settings=settings, **values)


def train(
    *,
    data_file: str,
    output_dir: str,
    embedding_model: str,
    cache_dir: str | None,
    algorithm: str = "all",
    config: str | None = None,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: Any = "auto",
    limit: int | None = None,
    strict: bool = False,
    no_check: bool = False,
) -> None:
    """Read, embed, fit, write, check. Nothing is written before everything is fitted."""
    from gpu_select import training
    from gpu_select.commands.embedded import embed_records
    from gpu_select.domain_file import DOMAIN_FILE, write_domain_file
    from gpu_select.errors import ConfigError, OutputError
    from gpu_select.files import check_writable, remove_file
    from gpu_select.holdout import check_domains, check_held_out
    from gpu_select.wire import ALGORITHMS, file_name, write_selector_file

    problems = [
        str(ConfigError(name, value, "an integer >= 1"))
        for name, value in (("batch-size", batch_size), ("limit", limit))
        if value is not None and value < 1
    ]
    chosen = training.TrainOptions()
    try:
        if config is not None:
            chosen = training.read_settings(config)
        chosen = chosen.changed(settings or {})
    except ConfigError as error:
        problems.insert(0, str(error))
    if problems:
        raise ConfigError.joined(problems)
    if Path(output_dir).exists() and not Path(output_dir).is_dir():
        raise OutputError(f"cannot write {output_dir}: it is a file, and a folder is expected")
    check_writable(output_dir)
    data = embed_records(
        data_file,
        embedding_model=embedding_model,
        cache_dir=cache_dir,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        limit=limit,
        strict=strict,
    )
    own = training.provenance(
        encoder_name=data.encoder.name,
        fingerprint=data.encoder.fingerprint,
        dim=data.encoder.dim,
        table=data.table,
        counts=data.counts,
        options=chosen,
    )
    wanted = ALGORITHMS if algorithm == "all" else (algorithm,)
    documents = {name: training.fit(name, data.features_QD, data.table, chosen, own) for name in wanted}
    domain_head = training.fit_domain_head(data.features_QD, data.table, own)
    for name, document in documents.items():
        write_selector_file(Path(output_dir) / file_name(name), document)
    click.echo(
        f"trained {', '.join(wanted)} on {data.counts.queries} queries x {data.counts.models} models with encoder "
        f"{data.encoder.name} -> {output_dir}"
    )
    domain_path = Path(output_dir) / DOMAIN_FILE
    if domain_head is None:
        # one of an earlier training would go on predicting domains beside selectors that never saw its records
        removed = "; the one of an earlier training is removed" if remove_file(domain_path) else ""
        click.echo(f"no {DOMAIN_FILE}: the records name fewer than two of the documented categories{removed}")
    else:
        write_domain_file(domain_path, domain_head)
        click.echo(
            f"trained a domain head on {domain_head.own['data']['queries']} queries of {len(domain_head.domains)} "
            f"categories -> {domain_path}"
        )
    if not no_check:
        for held_out in check_held_out(data.features_QD, data.table, chosen, wanted):
            _report(held_out)
        domains = check_domains(data.features_QD, data.table, seed=chosen.seed)
        if domains is not None:
            click.echo(f"domain head: {domains[0]:.1%} of {domains[1]} held-out queries in their category")


def _report(held_out: HeldOut) -> None:
    low, high = held_out.gain_ci95
    line = (
        f"{held_out.algorithm}: {held_out.gain:+.4f} ({low:+.4f} to {high:+.4f}) mean utility over always choosing "
        f"{held_out.single}, on {held_out.queries} held-out queries"
    )
    if held_out.gain < 0:
        options.warn(f"{line}: with these settings it loses; try the ones that `gpu-select tune` finds")
    else:
        click.echo(line)
