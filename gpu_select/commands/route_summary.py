"""What `gpu-select route` says while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.pipeline import RouteOptions, RouteReport

__all__ = ["advance", "stages", "summarise", "warn_of_rows"]


def advance(bar: Any) -> Callable[[RouteReport], None]:
    """Moves a bar on to where a report is."""

    def advance(report: RouteReport) -> None:
        bar.update(report.rows - bar.n)
        if report.tokens:
            bar.set_postfix_str(f"{report.tokens / max(report.seconds, 1e-9):,.0f} tokens/s", refresh=False)

    return advance


def warn_of_rows(
    report: RouteReport, settings: RouteOptions, *, without_domain: str, result_fields: Sequence[str]
) -> None:
    """Say once what was unusual about rows.

    Args:
        report: of all rows.
        settings: they were routed with.
        without_domain: `LogRouter.without_domain`.
        result_fields: what routing added.
    """
    from gpu_select.pipeline import input_name

    if report.without_domain and without_domain != "refused":
        text = (
            f"{report.without_domain} of {report.rows} rows have no {' or '.join(settings.domain_fields)}: their domain"
        )
        if without_domain == "predicted":
            click.echo(f"{text} was predicted", err=True)
        else:
            options.warn(f"{text} counts as 'other'")
    for name in sorted(report.renamed):
        options.warn(f"the input's field {name!r} is kept as {input_name(name, result_fields)!r}")
    if report.truncated:
        options.warn(f"{report.truncated} queries are longer than the encoder takes and were truncated")


def stages(report: RouteReport) -> str:
    """Each stage's seconds and share; together more than the time that passed where they overlap."""
    seconds = {stage: value for stage, value in report.stage_seconds.items() if value > 0}
    total = sum(seconds.values())
    parts = [f"{stage} {value:.2f} s ({value / total:.0%})" for stage, value in seconds.items()]
    parts.append(f"they add up to {total:.2f} s in {report.seconds:.2f} s")
    return f"stages: {', '.join(parts)}" + (": they overlap" if total > report.seconds else "")


def summarise(report: RouteReport, output: str, *, with_texts: bool, rows_before: int = 0) -> None:
    """Say what came out, on standard error, so that standard output can be the log.

    Args:
        report: of the log.
        output: where it went.
        with_texts: whether tokens were counted.
        rows_before: those that earlier runs had routed.
    """
    seconds = max(report.seconds, 1e-9)
    speed = f"in {seconds:.2f} s: {(report.rows - rows_before) / seconds:,.0f} rows/s"
    if with_texts:
        speed += f", {report.tokens / seconds:,.0f} tokens/s"
    if rows_before:
        speed = f"({rows_before} of them before) {speed}" if rows_before < report.rows else "before: nothing was left"
    click.echo(f"routed {report.rows - report.errors} of {report.rows} rows to {output} {speed}", err=True)
    for model, count in report.share.most_common():
        click.echo(f"  {model:30}  {count:8}  {count / max(1, report.rows):6.1%}", err=True)
    if report.decisions:
        click.echo("by decision:", err=True)
    for decision, count in report.decisions.most_common():
        click.echo(f"  {decision:30}  {count:8}  {count / max(1, report.rows):6.1%}", err=True)
    if report.errors:
        click.echo(
            f"{report.errors} rows could not be routed and have `error` set; the first: {report.first_error}", err=True
        )
