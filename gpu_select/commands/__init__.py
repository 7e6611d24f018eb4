"""The `gpu-select` command: one file a subcommand, loaded when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from gpu_select import __version__
from gpu_select.errors import GpuSelectError

__all__ = ["main"]

_COMMANDS = {
    "benchmark": "Ask your models the queries of a file, and score their answers.",
    "download": "Get published selectors or benchmark records from a hub.",
    "tune": "Choose settings for training by cross-validation.",
    "train": "Train selectors on benchmark records.",
    "validate": "Compare trained selectors with honest baselines on held-out records.",
    "replay": "Say what other policies would do to a log.",
    "report": "Draw validation, tuning and replay results as one web page.",
    "route": "Choose the model for every query of a log.",
    "export": "Compile a router into one file that runs with torch alone.",
    "serve": "Answer OpenAI clients, each request by the model it calls for.",
    "bench": "Measure how fast this machine routes.",
    "demo": "Train, validate and route on simulated data.",
}


class _Group(click.Group):
    """Imports a subcommand only when it is called, so that `--help` costs milliseconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gpu_select.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gpu-select")
def _cli() -> None:
    """Route each query to the model that should answer it."""


def main() -> None:
    """Run the command line.

    Exit status 0: done; 1: an error, in one line; 2: wrong usage; 3: some rows or calls failed; 130: `benchmark` was
    interrupted, and has finished what was under way.
    """
    # what users should know comes as one line each on standard error
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("gpu_select")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # threads of the tokenizer survive a fork badly and say so in every worker; we fork none
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        _cli(prog_name="gpu-select")
    except GpuSelectError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; use a smaller --token-budget, fewer rows or a larger machine")
    except RuntimeError as error:
        # torch's own subclass cannot be named without loading torch
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail("device out of memory outside the encoder; free memory on it or use --device cpu")


def _fail(text: str) -> None:
    click.echo(f"error: {' '.join(text.split())}", err=True)
    sys.exit(1)
