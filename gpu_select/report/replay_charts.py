"""Expected quality against cost and time, and which models are chosen on the way."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_select.report import formats
from gpu_select.report.charts import Chart, Figures, Trace, axis, hover, layout, legend, numbers
from gpu_select.report.domain_charts import share_bars
from gpu_select.report.label_places import label_texts, place_labels
from gpu_select.report.markup import Html, chart_text, element, join
from gpu_select.report.palette import Mark, Palette, symbol
from gpu_select.report.replay import Point, Policy, Replay, Sweep

__all__ = ["choices_by_domain", "policy_mark", "quality_by_price", "shares_by_price"]

_TITLE = {"time": "expected time, seconds", "cost": "expected cost, US dollars per 1,000 queries"}
_UNKNOWN = {
    "time": "Times are not known: the records have no response times of all candidates.",
    "cost": "Costs are not known: the records need costs or output tokens of all candidates, and models.yaml prices.",
}
_WIDE, _NARROW = (430.0, 300.0), (280.0, 300.0)  # about the plot area in pixels, for placing labels
_HEIGHT = 380
_MAX_DOMAINS = 30


def policy_mark(policy: Policy, palette: Palette) -> Mark:
    """How a policy is drawn."""
    if policy.kind == "selector":
        return palette.selector(policy.name)
    if policy.model is not None:
        return Mark(palette.fill(policy.model).color, "circle", "solid")
    return {
        "logged": Mark("--ink", "x", "dot"),
        "best": Mark("--muted", "diamond-open", "dot"),
        "limits": Mark("--ink", "star", "solid"),
    }[policy.kind]


def quality_by_price(replay: Replay, palette: Palette, sheet: Figures) -> Html:
    """All policies among the best choices at each price, or a sentence where prices are unknown."""
    charts, missing, rows = [], [], []
    for against in ("cost", "time"):
        sweep = next((s for s in replay.sweeps if s.against == against), None)
        placed = [(p, x) for p in replay.policies if (x := _price(p, against)) is not None and p.quality is not None]
        if not placed:
            missing.append(element("p", _UNKNOWN[against], class_="note"))
            continue
        charts.append(_quality_chart(placed, sweep, against, palette))
        rows += [] if sweep is None else [_numbers(point, against, replay.models) for point in sweep.points]
    if not charts:
        return join(missing)
    others = [p for p in replay.policies if p.kind != "single"]
    key = legend([(symbol(policy_mark(p, palette)), p.name) for p in others])
    caption = (
        "Each line joins the best choices that the expectations allow at each price, from the cheapest or fastest "
        "model for every query to the best one. Labelled points always choose one model. Further up and left is better."
    )
    head = ["against", "weight", "quality", "USD per 1,000", "time", *replay.models]
    after = numbers("The sweeps in numbers", head, rows) if rows else None
    return join([sheet.figure(charts, caption, legend=key, after=after), *missing])


def _numbers(point: Point, against: str, models: Sequence[str]) -> list[str]:
    cost = None if point.cost_usd is None else 1000 * point.cost_usd
    figures = [formats.margin(point.weight), formats.quality(point.quality), formats.usd(cost)]
    shares = [formats.percent(point.shares.get(model)) for model in models]
    return [against, *figures, formats.seconds(point.time_s), *shares]


def _price(at: Policy | Point, against: str) -> float | None:
    if against == "time":
        return at.time_s
    return None if at.cost_usd is None else 1000 * at.cost_usd


def _paid(at: Policy | Point) -> str:
    cost = "" if at.cost_usd is None else f"{formats.usd(1000 * at.cost_usd)} USD per 1,000"
    return ", ".join(text for text in (cost, "" if at.time_s is None else formats.seconds(at.time_s)) if text)


def _known(sweep: Sweep | None) -> list[tuple[Point, float]]:
    points = [] if sweep is None else [(point, _price(point, sweep.against)) for point in sweep.points]
    return [(point, x) for point, x in points if x is not None]


def _quality_chart(
    placed: Sequence[tuple[Policy, float]], sweep: Sweep | None, against: str, palette: Palette
) -> Chart:
    singles = [(p, x) for p, x in placed if p.kind == "single"]
    others = [(p, x) for p, x in placed if p.kind != "single"]
    line = _known(sweep)
    dots = [(x, p.quality or 0.0) for p, x in (*singles, *others)] + [(x, point.quality) for point, x in line]
    x_range, y_range = _padded([x for x, _ in dots]), _padded([y for _, y in dots])

    def places(size: tuple[float, float]) -> list[str]:
        (left, right), (low, high) = x_range, y_range
        at = [((x - left) / (right - left) * size[0], (y - low) / (high - low) * size[1]) for x, y in dots]
        return place_labels(at, [len((p.model or "")[:20]) for p, _ in singles], size)

    names = [chart_text(p.model or "", 20) for p, _ in singles]
    wide, narrow = places(_WIDE), places(_NARROW)
    frontier: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for _, x in line],
        "y": [point.quality for point, _ in line],
        "line": {"color": "--muted", "width": 2},
        "hoverinfo": "text",
        "hovertext": [_hover(point) for point, _ in line],
    }
    traces = [frontier, *(_dot(p, x, palette) for p, x in others)]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [x for _, x in singles],
            "y": [p.quality for p, _ in singles],
            **label_texts(names, wide),
            "textfont": {"size": 11, "color": "--muted"},
            "cliponaxis": False,
            "marker": {
                "color": [policy_mark(p, palette).color for p, _ in singles],
                "symbol": "circle",
                "size": 9,
                "line": {"color": "--ink", "width": 1},
            },
            "hoverinfo": "text",
            "hovertext": [
                hover(p.name, f"expected quality {formats.quality(p.quality)}", _paid(p)) for p, _ in singles
            ],
        }
    )
    labels = label_texts(names, narrow)
    return Chart(
        f"Expected quality against {against}",
        f"Expected quality against {_TITLE[against]}: the best choices at each price, {len(singles)} single models and "
        f"{len(others)} other policies",
        traces,
        layout(
            axis(_TITLE[against], range=list(x_range), nticks=6),
            axis("expected quality", range=list(y_range), nticks=7, tickformat=".2~f"),
        ),
        height=_HEIGHT,
        narrow=[{} for _ in traces[:-1]] + [labels],
    )


def _dot(policy: Policy, x: float, palette: Palette) -> Trace:
    mark = policy_mark(policy, palette)
    size = 16 if policy.kind == "limits" else 12
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [policy.quality],
        "marker": {"color": mark.color, "symbol": mark.symbol, "size": size, "line": {"color": "--page", "width": 1}},
        "hoverinfo": "text",
        "hovertext": [hover(policy.name, f"expected quality {formats.quality(policy.quality)}", _paid(policy))],
    }


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.09 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad, high + pad


def _hover(point: Point) -> str:
    largest = sorted(((share or 0, model) for model, share in point.shares.items()), reverse=True)
    shares = ", ".join(f"{model} {formats.percent(share, 0)}" for share, model in largest[:3] if share)
    figures = f"weight {formats.margin(point.weight)}: expected quality {formats.quality(point.quality)}"
    return hover(figures, _paid(point), shares)


def shares_by_price(replay: Replay, palette: Palette, sheet: Figures) -> Html:
    """Stacked areas: the models' shares over each sweep."""
    sweeps = [sweep for sweep in replay.sweeps if len(_known(sweep)) > 1]
    if not sweeps:
        return Html()
    order = {"cost": 0, "time": 1}
    charts = [_areas(sweep, replay.models, palette) for sweep in sorted(sweeps, key=lambda s: order[s.against])]
    caption = (
        "Models that the best choices use at each price, as shares of all queries: on the left the cheapest or fastest "
        "model for each query, on the right the one of largest expected quality."
    )
    key = legend([(palette.model_key(model), model) for model in replay.models])
    return sheet.figure(charts, caption, legend=key)


def _areas(sweep: Sweep, models: Sequence[str], palette: Palette) -> Chart:
    line = _known(sweep)
    traces: list[Trace] = []
    for model in models:
        fill = palette.fill(model)
        shares = [point.shares.get(model) or 0.0 for point, _ in line]
        if not any(shares):
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [x for _, x in line],
                "y": shares,
                "stackgroup": "models",
                "line": {"color": "--page", "width": 0.5},
                "fillcolor": fill.color,
                "fillpattern": {"shape": fill.pattern, "fgcolor": "--on-fill", "fgopacity": 0.5, "size": 6},
                "hoveron": "points",
                "hoverinfo": "text",
                "hovertext": [
                    hover(f"{model}: {formats.percent(share)}", f"weight {formats.margin(point.weight)}", _paid(point))
                    for share, (point, _) in zip(shares, line, strict=True)
                ],
            }
        )
    xs = [x for _, x in line]
    return Chart(
        f"Shares against {sweep.against}",
        f"Shares of the models that the best choices use, against {_TITLE[sweep.against]}",
        traces,
        layout(
            axis(_TITLE[sweep.against], range=[min(xs), max(xs)], nticks=6, showgrid=False),
            axis(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%", showgrid=False),
        ),
        height=300,
    )


def choices_by_domain(replay: Replay, policies: Sequence[Policy], palette: Palette, sheet: Figures) -> Html:
    """Stacked bars: what policies choose in each domain."""
    charts, rows = [], []
    for policy in policies:
        everything = {row.name: row.queries for row in policy.models}
        domains = [("all", everything), *((d.name, dict(d.chosen)) for d in policy.domains[:_MAX_DOMAINS])]
        charts.append(share_bars(policy.name, domains, replay.models, palette))
        rows += [
            [d.name, policy.name, *_row_figures(d.queries, d.quality, d.time_s, d.cost_usd)] for d in policy.domains
        ]
    caption = "Models that each policy chooses, as shares of a domain's queries."
    key = legend([(palette.model_key(model), model) for model in replay.models])
    head = ["domain", "policy", "queries", "expected quality", "time", "USD", "USD per 1,000"]
    return sheet.figure(charts, caption, legend=key, after=numbers("Domains in numbers", head, rows, texts=2))


def _row_figures(queries: int, quality: float | None, time_s: float | None, cost_usd: float | None) -> list[str]:
    total, a_thousand = (None, None) if cost_usd is None else (cost_usd * queries, cost_usd * 1000)
    return [
        formats.count(queries),
        formats.quality(quality),
        formats.seconds(time_s),
        formats.usd(total),
        formats.usd(a_thousand),
    ]
