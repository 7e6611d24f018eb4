"""`gpu-select report`: validation, tuning and replay results as one web page."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["command", "report"]


@click.command(name="report")
@click.option("--validation", multiple=True, metavar="FILE", help="JSON that validate --json wrote; may be repeated.")
@click.option("--tuning", multiple=True, metavar="FILE", help="JSON that tune wrote; may be repeated.")
@click.option("--replay", multiple=True, metavar="FILE", help="JSON that replay --json wrote; may be repeated.")
@click.option("--output", default="report.html", show_default=True, metavar="FILE", help="The page.")
def command(**settings: Any) -> None:
    """Draw validation, tuning and replay results as one web page.

    The page holds all it needs: it opens from disk and loads nothing.
    """
    report(**settings)


def report(*, validation: tuple[str, ...], tuning: tuple[str, ...], replay: tuple[str, ...] = (), output: str) -> None:
    """Read, draw, write; say where the page is."""
    from gpu_select.files import STDIO
    from gpu_select.report import write_report

    n_bytes = write_report(validation, tuning, replay, output)
    if output != STDIO:
        click.echo(f"{output}: {n_bytes / 1e6:.1f} MB, open it in a browser")
