"""What `gpu-select replay` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gpu_select.replay import Agreement, Costs, DomainRow, ModelRow, Policy, Replay, SweepPoint

__all__ = ["print_replay"]

_NAME_WIDTH = 31
_LINE_WIDTH = 120
_FIGURES_HEAD = "  quality      time     $/1000          $"
_SHOWN_SHARES = 2
_SHOWN_POINTS = 11
_FIGURES = {"quality": ("quality", 1, ".4f"), "time_s": ("seconds", 1, ".4f"), "cost_usd": ("$/1000", 1000, ".4f")}


def print_replay(
    found: Replay, costs: Costs, log_file: str, data_file: str, record_queries: int, *, shown: str | None
) -> None:
    """All policies, one of them by model and by domain, the sweeps, and what the figures rest on.

    Args:
        found: what was found.
        costs: where costs come from.
        log_file, data_file: what was read.
        record_queries: queries of the records.
        shown: the selector to show in detail; without it the choices within limits, else the first selector.
    """
    n_rows = len(found.log.domain_Q)
    click.echo(
        f"{log_file}: {n_rows} rows x {len(found.log.models)} models, as {record_queries} queries of {data_file} tell"
    )
    _print_policies(found.policies, n_rows)
    own = [policy for policy in found.policies if policy.kind == "limits"]
    selectors = [policy for policy in found.policies if policy.kind == "selector"]
    policy = (own or selectors)[0] if shown is None else found.named(shown)
    _print_models(policy)
    _print_domains(policy)
    for against, points in found.sweeps.items():
        _print_sweep(points, against)
    click.echo("")
    _print_limits(found)
    _print_trust(found, costs)


def _print_policies(policies: Sequence[Policy], n_rows: int) -> None:
    width = min(_NAME_WIDTH, max(len(policy.name) for policy in policies))
    click.echo(f"{'policy':{width}}{_FIGURES_HEAD}  models")
    for policy in policies:
        shares = _shares({row.model: row.queries for row in policy.models if row.queries}, policy.queries)
        partly = "" if policy.queries == n_rows else f" (of {policy.queries} rows)"
        _echo(f"{_short(policy.name, width):{width}}{_figures(policy)}  {shares}{partly}")


def _print_models(policy: Policy) -> None:
    click.echo(f"\n{policy.name}, by model")
    width = min(_NAME_WIDTH, max(len(row.model) for row in policy.models))
    click.echo(f"  {'':{width}}     rows   share{_FIGURES_HEAD}")
    for row in policy.models:
        share = row.queries / policy.queries
        _echo(f"  {_short(row.model, width):{width}}  {row.queries:7}  {share:6.1%}{_figures(row)}")


def _print_domains(policy: Policy) -> None:
    click.echo(f"\n{policy.name}, by domain")
    width = max(len(row.name) for row in policy.domains)
    click.echo(f"  {'':{width}}     rows{_FIGURES_HEAD}  models")
    for row in policy.domains:
        _echo(f"  {row.name:{width}}  {row.queries:7}{_figures(row)}  {_shares(row.chosen, row.queries)}")


def _print_sweep(points: Sequence[SweepPoint], against: str) -> None:
    click.echo(f"\nsweep of the quality weight against {against}: the best choices at each {against}")
    click.echo("  weight  quality      time     $/1000  models")
    last = len(points) - 1
    n_shown = min(_SHOWN_POINTS, len(points))
    for i in sorted({round(k * last / (n_shown - 1)) for k in range(n_shown)}):
        point = points[i]
        _echo(
            f"  {point.weight:6.4f}  {_quality(point.quality):>7}  {_time(point.time_s):>8}  "
            f"{_usd(point.cost_usd, 1000):>9}  {_shares(point.shares, 1)}"
        )


def _print_limits(found: Replay) -> None:
    if found.limits is None or found.limited is None:
        return
    short = found.limited.bound - found.limited.utility
    best = "the best that is allowed" if short < 1e-12 else f"at most {short:.1e} short of the best that is allowed"
    click.echo(f"{found.limits.name}: {best}; --policy-output writes the choices row by row")
    if found.nearest is not None:
        point = found.nearest.point
        keeps = "keeps the limits" if found.nearest.keeps_limits else "breaks them least"
        cost = "" if point.cost_usd is None else f", {_usd(point.cost_usd, 1000)} USD per 1,000"
        click.echo(
            f"a weight alone: train --quality-weight {point.weight:.4g} {keeps}: "
            f"quality {_quality(point.quality)}{cost}"
        )


def _print_trust(found: Replay, costs: Costs) -> None:
    """What the figures rest on, and how far outcomes bear them out."""
    rows = [
        (policy.name, outcome)
        for policy in found.policies
        for outcome in policy.outcomes
        if policy.kind != "single" and (policy.kind == "logged" or outcome.figure == "quality")
    ]
    if rows:
        click.echo("\nset against the log, on the rows that it gave to the same model")
        width = min(_NAME_WIDTH, max(len(name) for name, _ in rows))
        click.echo(f"  {'policy':{width}}  {'':7}     rows   expected     logged  logged - expected, 95 % interval")
        for name, outcome in rows:
            _echo(f"  {_short(name, width):{width}}  {_agreement(outcome)}")
    low, high = found.check.ci95
    click.echo("\nquality is expected, not measured: the mean that the records foretell for many such queries")
    click.echo(
        f"on the records, each query held out, best-expected expects {found.check.expected:.4f} and gets "
        f"{found.check.realised:.4f} (difference {low:+.4f} to {high:+.4f})"
    )
    if found.log.counts.seen:
        click.echo(f"{found.log.counts.seen} rows are queries of the records, estimated without their own outcomes")
    if costs.pay_for_input:
        click.echo(_input_source(found, costs))


def _agreement(outcome: Agreement) -> str:
    name, times, digits = _FIGURES[outcome.figure]
    low, high = (times * end for end in outcome.ci95)
    verdict = "" if low <= 0 <= high else "  more than chance"
    expected, realised = times * outcome.expected, times * outcome.realised
    return (
        f"{name:7}  {outcome.rows:7}  {expected:9{digits}}  {realised:9{digits}}  "
        f"{realised - expected:+{digits}} [{low:+{digits}}, {high:+{digits}}]{verdict}"
    )


def _input_source(found: Replay, costs: Costs) -> str:
    n_rows, n_told = len(found.log.domain_Q), found.log.counts.input_tokens
    if n_told == n_rows:
        return "costs: input tokens as logged, output tokens as foretold"
    scale = "scaled to each model's" if costs.measured_M.any() else "without the models' own chat templates"
    return (
        f"costs: input tokens of {n_rows - n_told} rows by the encoder's tokenizer, {scale}; output tokens as foretold"
    )


def _shares(counts: dict[str, int] | dict[str, float], total: float) -> str:
    """The models that get most, in percent."""
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{name} {count / total:.0%}" for name, count in largest[:_SHOWN_SHARES] if count]
    rest = sum(1 for _, count in largest[_SHOWN_SHARES:] if count)
    return ", ".join(shown) + (f", {rest} more" if rest else "")


def _figures(row: Policy | ModelRow | DomainRow) -> str:
    """Under `_FIGURES_HEAD`."""
    total = None if row.cost_usd is None else row.cost_usd * row.queries
    return f"  {_quality(row.quality):>7}  {_time(row.time_s):>8}  {_usd(row.cost_usd, 1000):>9}  {_usd(total):>9}"


def _echo(line: str) -> None:
    """A line of a table, cut where names of models make it too long."""
    click.echo(_short(line, _LINE_WIDTH))


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 3] + "..."


def _quality(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _time(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}s"


def _usd(value: float | None, times: float = 1) -> str:
    return "-" if value is None else f"{times * value:.4g}"
