"""`gpu-select export`: a trained router as one compiled file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.export import Exported
    from gpu_select.selectors import Selector

__all__ = ["command", "export"]


@click.command(name="export")
@click.option(
    "--models-dir", required=True, metavar="DIR", help="Folder of selector files, or one that save_pretrained wrote."
)
@click.option("--algorithm", type=click.Choice(["knn", "kmeans", "svm", "mlp"]), help="[default: the folder's first]")
@click.option(
    "--kind",
    type=click.Choice(["full", "selector"]),
    default="full",
    show_default=True,
    help="full: tokens in, with the encoder; selector: features in.",
)
@click.option("--output", required=True, metavar="FILE.pt2", help="Where the package goes.")
@click.option("--candidate-mask", is_flag=True, help="Let each query come with a mask of the models it may go to.")
@click.option("--portable", is_flag=True, help="For any x86-64 CPU with AVX2, not for CPUs like this one.")
@options.embedding_model(None)
@options.device
@click.option("--json", "json_path", metavar="OUT", help="Write what is printed, and the metadata, as JSON too.")
def command(**settings: Any) -> None:
    """Compile a router with AOTInductor into one .pt2 file, which any program with torch can load.

    Needs a C++ compiler; what is written needs none. Ends with a check that the package decides as the router does.
    """
    export(**settings)


def export(
    *,
    models_dir: str,
    algorithm: str | None,
    kind: str,
    output: str,
    candidate_mask: bool,
    portable: bool,
    embedding_model: str | None,
    device: str,
    dtype: Any,
    json_path: str | None,
) -> None:
    """Check what can be checked at once, load, compile, and say what came out."""
    if kind == "selector" and embedding_model is not None:
        raise click.UsageError("--embedding-model is for --kind full: a selector takes features")
    if Path(output).suffix != ".pt2":
        raise click.UsageError(f"--output: expected a name that ends in .pt2, got {output}")
    from gpu_select.export import check_compiler, export_router, export_selector
    from gpu_select.files import check_target

    check_compiler()
    for path in (output, json_path):
        if path is not None:
            check_target(path)
    how = {"takes_candidates": candidate_mask, "portable": portable}
    if kind == "full":
        from gpu_select.router import Router

        router = Router.from_pretrained(
            Path(models_dir), encoder=embedding_model, device=device, algorithm=algorithm, dtype=dtype
        )
        _say("compiling, which takes a minute or more")
        done = export_router(router, output, **how)
    else:
        selector, encoder_name = _load_selector(models_dir, algorithm, device)
        _say("compiling")
        done = export_selector(selector, output, encoder_name=encoder_name, **how)
    _print(done, models_dir)
    if json_path is not None:
        _write(json_path, done)


def _load_selector(models_dir: str, algorithm: str | None, device: str) -> tuple[Selector, str | None]:
    """The selector, and the encoder that it was trained with, where its file tells."""
    import os

    from gpu_select.artifacts import find_selector_files, load_selector
    from gpu_select.encoder import resolve_device
    from gpu_select.pretrained import is_saved
    from gpu_select.router import Router

    if is_saved(models_dir):
        router = Router.from_pretrained(Path(models_dir), device=device, algorithm=algorithm)
        return router.selector, router.encoder.name
    if os.path.isdir(models_dir):
        algorithm = algorithm or next(iter(find_selector_files(models_dir)))
    artifact = load_selector(models_dir, algorithm=algorithm, device=resolve_device(device))
    return artifact.selector, artifact.encoder_name


def _print(done: Exported, models_dir: str) -> None:
    about = done.metadata
    inputs = ", ".join(f"{one['name']} ({', '.join(map(str, one['shape']))}) {one['dtype']}" for one in about["inputs"])
    click.echo(f"exported {about['algorithm']} of {models_dir} for {len(about['models'])} models -> {done.path}")
    click.echo(f"takes     {inputs}")
    click.echo(f"size      {done.n_bytes / 1e6:,.1f} MB")
    click.echo(f"compiled  in {done.compile_s:.0f} s, loads in {1000 * done.load_s:,.0f} ms where torch is loaded")
    same = done.n_checked - done.n_different
    click.echo(f"checked   {same} of {done.n_checked} decisions on made-up queries as in eager mode")


def _write(path: str, done: Exported) -> None:
    from gpu_select import jsonio
    from gpu_select.files import atomic_write

    with atomic_write(path) as stream:
        stream.write(jsonio.dumps(asdict(done)) + b"\n")


def _say(text: str) -> None:
    click.echo(text, err=True)
