"""`gpu-select train`: benchmark records -> selector files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpu_select.commands import options

__all__ = ["command", "train"]


@click.command(name="train")
@options.data_file
@click.option("--output-dir", default="models/", show_default=True, metavar="DIR", help="Where the files go.")
@options.embedding_model("qwen3")
@options.cache_dir(".cache/")
@click.option("--algorithm", type=click.Choice(["all", "knn", "kmeans", "svm"]), default="all", show_default=True)
@click.option("--knn-k", default=5, show_default=True, help="Rows that vote in KNN.")
@click.option("--kmeans-clusters", default=8, show_default=True, help="Clusters at most.")
@click.option("--svm-kernel", type=click.Choice(["rbf", "linear"]), default="rbf", show_default=True)
@click.option("--svm-gamma", default=1.0, show_default=True, help="Width of the RBF kernel on unit vectors.")
@click.option(
    "--quality-weight",
    default=0.9,
    show_default=True,
    help="w in utility = w * performance + (1 - w) * speed, 0 to 1.",
)
@click.option("--batch-size", default=32, show_default=True, help="Texts the encoder takes at once, at most.")
@options.device
@click.option("--limit", type=int, help="Use the first LIMIT distinct queries only.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same files, byte for byte.")
@click.option("--strict", is_flag=True, help="Stop at the first bad record instead of leaving it out.")
def command(**settings: Any) -> None:
    """Train selectors on benchmark records and write them as standard JSON files.

    A record has query, category, model_name, performance (0 to 1) and response_time (seconds).
    """
    train(**settings)


def train(
    *,
    data_file: str,
    output_dir: str,
    embedding_model: str,
    cache_dir: str | None,
    algorithm: str,
    knn_k: int,
    kmeans_clusters: int,
    svm_kernel: Any,
    svm_gamma: float,
    quality_weight: float,
    batch_size: int,
    device: str,
    dtype: Any,
    limit: int | None,
    seed: int,
    strict: bool,
) -> None:
    """Read, embed, fit, write. Nothing is written before everything is fitted."""
    from gpu_select import training
    from gpu_select.encoder import embed, load_encoder, resolve_device
    from gpu_select.errors import ConfigError, OutputError
    from gpu_select.features import build_features
    from gpu_select.files import check_writable
    from gpu_select.records import read_outcomes
    from gpu_select.wire import ALGORITHMS, file_name, write_selector_file

    problems = [
        str(ConfigError(name, value, "an integer >= 1"))
        for name, value in (("batch-size", batch_size), ("limit", limit))
        if value is not None and value < 1
    ]
    try:
        chosen = training.TrainOptions(knn_k, kmeans_clusters, svm_kernel, svm_gamma, quality_weight, seed)
    except ConfigError as error:
        problems.insert(0, str(error))
    if problems:
        raise ConfigError.joined(problems)
    if Path(output_dir).exists() and not Path(output_dir).is_dir():
        raise OutputError(f"cannot write {output_dir}: it is a file, and a folder is expected")
    target = resolve_device(device)
    check_writable(output_dir)
    table, counts = read_outcomes(data_file, strict=strict, limit=limit)
    for text in counts.warnings(data_file):
        options.warn(text)

    encoder = load_encoder(embedding_model, device=target, dtype=dtype)
    with (
        options.open_cache(cache_dir, encoder) as cache,
        options.progress_bar("embedding", "query", len(table.queries)) as bar,
    ):
        embedded = embed(encoder, table.queries, batch_size=batch_size, cache=cache, progress=bar.update)
    if embedded.n_truncated:
        options.warn(f"{embedded.n_truncated} queries are longer than the encoder takes and were truncated")

    import torch

    domain_Q = torch.from_numpy(table.domain_indices())
    features_QD = build_features(embedded.vectors, domain_Q).to(target)
    own = training.provenance(
        encoder_name=encoder.name,
        fingerprint=encoder.fingerprint,
        dim=encoder.dim,
        table=table,
        counts=counts,
        options=chosen,
    )
    wanted = ALGORITHMS if algorithm == "all" else (algorithm,)
    with torch.inference_mode():
        documents = {name: training.fit(name, features_QD, table, chosen, own) for name in wanted}
    for name, document in documents.items():
        write_selector_file(Path(output_dir) / file_name(name), document)
    click.echo(
        f"trained {', '.join(wanted)} on {counts.queries} queries x {counts.models} models with encoder "
        f"{encoder.name} -> {output_dir}"
    )
