"""Options that several subcommands share, and what they turn into."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

__all__ = [
    "algorithm",
    "cache_dir",
    "data_file",
    "device",
    "embedding_model",
    "encoding",
    "is_given",
    "models_dir",
    "names",
    "open_cache",
    "progress_bar",
    "quality_weight",
    "seed",
    "warn",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def data_file(function: _F) -> _F:
    """--data-file."""
    text = "Benchmark records, one JSON object a line; also .gz and .zst."
    return click.option("--data-file", required=True, type=_Records(), metavar="FILE", help=text)(function)


class _Records(click.types.StringParamType):
    """A file of records; without one, the error says where some are."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return "`gpu-select download data` gets records that somebody published."


def algorithm(function: _F) -> _F:
    """--algorithm, of those that can be trained."""
    kinds = click.Choice(["all", "knn", "kmeans", "svm", "mlp"])
    return click.option("--algorithm", type=kinds, default="all", show_default=True)(function)


def quality_weight(function: _F) -> _F:
    """--quality-weight."""
    text = "w in utility = w * performance + (1 - w) * speed, 0 to 1."
    return click.option("--quality-weight", default=0.9, show_default=True, help=text)(function)


def seed(function: _F) -> _F:
    """--seed."""
    text = "The same seed gives the same files, byte for byte."
    return click.option("--seed", default=0, show_default=True, help=text)(function)


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter's value comes from the command line, not from its default."""
    return ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


def models_dir(function: _F) -> _F:
    """--models-dir."""
    return click.option("--models-dir", metavar="DIR", help="Folder of selector files.")(function)


def embedding_model(default: str | None) -> Callable[[_F], _F]:
    """--embedding-model."""
    shown = default or "the one the selector files name, else qwen3"
    text = f"qwen3, gte, mpnet, e5, bge, minilm, a local folder or a hub id.  [default: {shown}]"
    return click.option("--embedding-model", default=default, metavar="NAME", help=text)


def cache_dir(default: str | None) -> Callable[[_F], _F]:
    """--cache-dir."""
    text = f"Folder for embeddings that are already known.  [default: {default or 'no cache'}]"
    return click.option("--cache-dir", default=default, metavar="DIR", help=text)


def device(function: _F) -> _F:
    """--device and --dtype."""
    text = "cpu, cuda, cuda:N or mps.  [default: the best there is]"
    function = click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        help="Of the encoder.  [default: float32 on the CPU, bfloat16 elsewhere]",
    )(function)
    return click.option("--device", default="auto", metavar="DEVICE", help=text)(function)


def encoding(function: _F) -> _F:
    """--deterministic and --compile."""
    text = "Decide on a query the same, bit for bit, in whatever batch it is; costs some speed."
    function = click.option(
        "--compile", "compile_layers", is_flag=True, help="Let torch.compile fuse the encoder's layers; a slow start."
    )(function)
    return click.option("--deterministic", is_flag=True, help=text)(function)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Callback for a list separated by commas."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


@contextlib.contextmanager
def open_cache(folder: str | None, encoder: Any) -> Iterator[Any]:
    """The encoder's embedding cache, None without a folder."""
    if folder is None:
        yield None
        return
    from pathlib import Path

    from gpu_select.encoder import EmbeddingCache

    with EmbeddingCache(Path(folder), encoder.fingerprint, encoder.precision, encoder.dim) as cache:
        yield cache


@contextlib.contextmanager
def progress_bar(text: str, unit: str, total: int | None = None) -> Iterator[Any]:
    """A bar on standard error where that is a terminal."""
    from tqdm import tqdm

    scaled = total is None or unit == "B"
    with tqdm(total=total, desc=text, unit=unit, unit_scale=scaled, disable=not sys.stderr.isatty()) as bar:
        yield bar


def warn(text: str) -> None:
    """One line on standard error."""
    click.echo(f"warning: {text}", err=True)
