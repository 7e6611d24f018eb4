"""`gpu-select tune`: benchmark records -> the settings to train with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.training.tuning import Trial, Tuning

__all__ = ["command", "tune"]

_SHOWN = 3


@click.command(name="tune")
@options.data_file
@click.option("--output", default="tuned.yaml", show_default=True, metavar="FILE", help="Where the settings go.")
@options.embedding_model("qwen3")
@options.cache_dir(".cache/")
@options.algorithm
@click.option("--folds", default=5, show_default=True, help="Parts of the queries, each held out once.")
@options.quality_weight
@options.device
@click.option("--limit", type=int, help="Use the first LIMIT distinct queries only.")
@options.seed
@click.option("--strict", is_flag=True, help="Stop at the first bad record instead of leaving it out.")
def command(**values: Any) -> None:
    """Choose settings for `gpu-select train --config` by cross-validation.

    Writes the chosen settings as YAML, and the table of everything that was tried beside it as JSON, for
    `gpu-select report`.
    """
    tune(**values)


def tune(
    *,
    data_file: str,
    output: str,
    embedding_model: str,
    cache_dir: str | None,
    algorithm: str,
    folds: int,
    quality_weight: float,
    device: str,
    dtype: Any,
    limit: int | None,
    seed: int,
    strict: bool,
) -> None:
    """Read, embed, try, write."""
    from gpu_select import jsonio, training
    from gpu_select.commands.embedded import embed_records
    from gpu_select.errors import ConfigError, OutputError
    from gpu_select.files import atomic_write, check_target
    from gpu_select.training import tuning
    from gpu_select.wire import ALGORITHMS
    from gpu_select.yamlio import dump_yaml

    base = training.TrainOptions().changed({"quality_weight": quality_weight, "seed": seed})
    for name, value, least in (("folds", folds, 2), ("limit", limit, 1)):
        if value is not None and value < least:
            raise ConfigError(name, value, f"an integer >= {least}")
    target = Path(output)
    if target.suffix not in (".yaml", ".yml"):
        raise OutputError(f"output: expected a name that ends in .yaml or .yml, got {output}; the table goes to .json")
    for path in (target, target.with_suffix(".json")):
        check_target(path)
    data = embed_records(
        data_file,
        embedding_model=embedding_model,
        cache_dir=cache_dir,
        device=device,
        dtype=dtype,
        limit=limit,
        strict=strict,
    )
    wanted = ALGORITHMS if algorithm == "all" else (algorithm,)
    with options.progress_bar("tuning", "setting") as bar:

        def progress(name: str, done: int) -> None:
            bar.set_description(f"tuning {name}", refresh=False)
            bar.update(done)

        found = tuning.tune(data.features_QD, data.table, base, algorithms=wanted, n_folds=folds, progress=progress)
    chosen = {name: found.options.as_mapping()[name] for name in wanted}
    shared = {"quality_weight": quality_weight, "seed": seed}
    document = {
        "format": "gpu_select.tuning",
        "version": 1,
        "data_file": data_file,
        "encoder": data.encoder.name,
        "queries": data.counts.queries,
        "models": data.table.models,
        "folds": folds,
        **shared,
        "baselines": found.baselines,
        "chosen": chosen,
        "trials": [asdict(trial) for trial in found.trials],
    }
    with atomic_write(target.with_suffix(".json")) as stream:
        stream.write(jsonio.dumps(document) + b"\n")
    with atomic_write(target) as stream:
        stream.write(dump_yaml({**chosen, **shared}).encode())
    _print_table(found, data.counts.queries, folds)
    click.echo(f"tried {len(found.trials)} settings -> {target}, the table -> {target.with_suffix('.json')}")
    click.echo(f"next: gpu-select train --config {target} --data-file {data_file} --embedding-model {embedding_model}")


def _print_table(found: Tuning, n_queries: int, folds: int) -> None:
    single = found.baselines["best_single"]
    click.echo(f"{n_queries} queries, {folds} folds; mean performance of the chosen models on held-out queries")
    click.echo(f"oracle {found.baselines['oracle']:.4f}, best model per domain {found.baselines['per_domain']:.4f}")
    click.echo(f"always {single['model']} {single['quality']:.4f}, random {found.baselines['random']:.4f}")
    click.echo(f"{'':2}{'selector':9}{'quality':>8}  {'over best single':30}settings")
    for name in dict.fromkeys(trial.algorithm for trial in found.trials):
        mine = sorted((t for t in found.trials if t.algorithm == name), key=lambda t: (not t.chosen, -t.utility))
        for trial in mine[: 1 + _SHOWN]:
            _print_trial(trial)
    click.echo("*: chosen; the default settings, unless others do better by more than chance")


def _print_trial(trial: Trial) -> None:
    low, high = trial.gain_ci95
    shown = {name: "-".join(map(str, v)) if isinstance(v, tuple) else v for name, v in trial.settings.items()}
    settings = ", ".join(f"{name} {value}" for name, value in shown.items())
    gain = f"{trial.gain:+.4f} ({low:+.4f} to {high:+.4f})"
    click.echo(f"{'*' if trial.chosen else '':2}{trial.algorithm:9}{trial.quality:8.4f}  {gain:30}{settings}")
