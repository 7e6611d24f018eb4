"""The part of the page on one replay: what policies would do to a log."""

from __future__ import annotations

from pathlib import PurePath

from gpu_select.report import formats
from gpu_select.report.charts import Figures, description, numbers, table
from gpu_select.report.markup import Html, element
from gpu_select.report.palette import Palette
from gpu_select.report.replay import Outcome, Policy, Replay
from gpu_select.report.replay_charts import choices_by_domain, quality_by_price, shares_by_price

__all__ = ["replay_section"]


def replay_section(replay: Replay, name: str, palette: Palette, sheet: Figures) -> Html:
    """The section, whose id is `name`."""
    shown = [*replay.of_kind("logged"), *replay.of_kind("selector"), *replay.of_kind("limits")]
    by_price = quality_by_price(replay, palette, sheet)
    by_model = [row for policy in shown for row in _model_rows(policy)]
    head = ["policy", "model", "queries", "share", "expected quality", "time", "USD", "USD per 1,000"]
    return element(
        "section",
        element("h2", f"Replay of {PurePath(replay.log_file).name or replay.log_file}", id=name),
        _lead(replay),
        description(_facts(replay)),
        element("h3", "Policies"),
        _policies(replay),
        numbers("Policies by model", head, by_model, texts=2),
        element(
            "p",
            "Quality is what the records let expect of such queries on average, not a measurement; logged quality is "
            "that of the rows which the log gave to the very model that the policy chooses.",
            class_="note",
        ),
        element("h3", "Expected quality against cost and time"),
        by_price,
        element("h3", "Shares of the models"),
        shares_by_price(replay, palette, sheet),
        choices_by_domain(replay, shown or replay.policies[:1], palette, sheet),
        aria_labelledby=name,
    )


def _lead(replay: Replay) -> Html:
    """The user's own policy or the best selector, against the log and the best single model."""
    own = [*replay.of_kind("limits"), *replay.of_kind("selector"), *replay.of_kind("best")]
    if not own:
        return Html()
    policy = own[0]
    start = f" is expected to reach a quality of {formats.quality(policy.quality)}{_prices(policy)}"
    others = [(p, p.name if p.kind == "logged" else f"the best single model, {p.model}") for p in _yardsticks(replay)]
    parts = [
        f"{formats.points(_difference(policy.quality, other.quality))} points against {text}{_prices(other)}"
        for other, text in others
    ]
    return element("p", element("b", policy.name), start, *(f"; {part}" for part in parts), ".", class_="lead")


def _yardsticks(replay: Replay) -> list[Policy]:
    return [*replay.of_kind("logged")[:1], *replay.of_kind("single")[:1]]


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _prices(policy: Policy) -> str:
    parts = [] if policy.cost_usd is None else [f"{formats.usd(1000 * policy.cost_usd)} USD per 1,000"]
    parts += [] if policy.time_s is None else [formats.seconds(policy.time_s)]
    return f" ({', '.join(parts)})" if parts else ""


def _facts(replay: Replay) -> list[tuple[str, str]]:
    check = replay.check
    facts = [
        ("Log", f"{replay.log_file}, {formats.count(replay.queries)} queries"),
        ("Records", f"{replay.data_file}, {formats.count(replay.record_queries)} queries"),
        ("Encoder", replay.encoder),
        ("Models", ", ".join(replay.models)),
        (
            "Held-out check",
            f"on the records the best expected choices expect {formats.quality(check.expected)} and get "
            f"{formats.quality(check.realised)}, {_apart(check)}",
        ),
    ]
    if replay.queries_in_records:
        count = formats.count(replay.queries_in_records)
        facts.append(("In the records", f"{count} queries, estimated without their own outcomes"))
    limits = replay.limits
    if limits is not None:
        parts = [f"weight of quality {limits.quality_weight:g}"]
        parts += [] if limits.budget_usd is None else [f"at most {formats.usd(limits.budget_usd)} USD"]
        parts += [f"at most {formats.percent(share)} to {model}" for model, share in limits.max_share.items()]
        facts.append(("Limits", "; ".join(parts)))
        if limits.nearest is not None:
            near, kept = limits.nearest, "which keeps the limits" if limits.nearest_keeps else "which breaks the limits"
            paid = "" if near.cost_usd is None else f", {formats.usd(1000 * near.cost_usd)} USD per 1,000"
            facts.append(
                (
                    "Nearest weight",
                    f"train --quality-weight {near.weight:.4g}, {kept}: expected quality "
                    f"{formats.quality(near.quality)}{paid}",
                )
            )
    return facts


def _apart(outcome: Outcome) -> str:
    low, high = outcome.ci95
    word = "no more than chance apart" if low <= 0 <= high else "more than chance apart"
    return f"{word} (difference {formats.interval_points(outcome.ci95)} points)"


def _policies(replay: Replay) -> Html:
    with_outcomes = any(policy.outcome("quality") for policy in replay.policies)
    head = ["Policy", "Expected quality", "Time", "USD", "USD / 1,000"]
    head += ["Logged quality", "Logged - expected, points"] if with_outcomes else []
    return table("Policies", head, [_policy_row(policy, with_outcomes) for policy in replay.policies])


def _policy_row(policy: Policy, with_outcomes: bool) -> list[str]:
    row = [policy.name, formats.quality(policy.quality), formats.seconds(policy.time_s)]
    row += _usd(policy.cost_usd, policy.queries)
    found = policy.outcome("quality")
    if not with_outcomes:
        return row
    if found is None:
        return [*row, formats.NONE, formats.NONE]
    difference = formats.points(found.realised - found.expected)
    rows = "" if found.rows == policy.queries else f" on {formats.count(found.rows)}"
    return [*row, f"{formats.quality(found.realised)}{rows}", f"{difference} [{formats.interval_points(found.ci95)}]"]


def _model_rows(policy: Policy) -> list[list[str]]:
    return [
        [
            policy.name,
            row.name,
            formats.count(row.queries),
            formats.percent(row.queries / max(policy.queries, 1)),
            formats.quality(row.quality),
            formats.seconds(row.time_s),
            *_usd(row.cost_usd, row.queries),
        ]
        for row in policy.models
    ]


def _usd(cost_usd: float | None, queries: int) -> list[str]:
    """For all of them, and for 1,000."""
    return [formats.usd(None if cost_usd is None else cost_usd * n) for n in (queries, 1000)]
