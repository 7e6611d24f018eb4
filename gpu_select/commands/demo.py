"""`gpu-select demo`: the whole workflow on simulated data, with the encoder that comes as a package."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gpu_select.commands.route import route
from gpu_select.commands.train import train
from gpu_select.commands.validate import validate

__all__ = ["command"]


@click.command(name="demo")
@click.option("--output-dir", default="demo", show_default=True, metavar="DIR", help="Where data and results go.")
def command(output_dir: str) -> None:
    """Train four selectors, validate them and route a log of 2,000 queries.

    The benchmark records and the log are SIMULATED, from templates over the 14 domains; the encoder is the real MiniLM.
    """
    from gpu_select.simulation import write_demo_data

    folder = Path(output_dir)
    models, cache, routed = (str(folder / name) for name in ("models", "cache", "routed.jsonl"))
    start = time.perf_counter()
    click.echo("[1/4] simulating benchmark records of five made-up models, and a query log")
    files = write_demo_data(folder)
    click.echo("[2/4] training")
    train(
        data_file=str(files.train),
        output_dir=models,
        embedding_model="minilm",
        cache_dir=cache,
        strict=True,
    )
    click.echo("[3/4] validating on held-out queries (simulated outcomes: they show the workflow, not real models)")
    validate(
        data_file=str(files.validation),
        models_dir=models,
        embedding_model=None,
        cache_dir=cache,
        device="auto",
        dtype="auto",
        json_path=str(folder / "validation.json"),
        strict=True,
    )
    click.echo("[4/4] routing the log")
    route(
        inputs=[str(files.log)],
        output=routed,
        models_dir=models,
        algorithm="svm",
    )
    click.echo(f"done in {time.perf_counter() - start:.0f} s; everything is in {folder}/")
