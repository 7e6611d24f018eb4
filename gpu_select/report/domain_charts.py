"""Quality by domain, and which models the selectors choose there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_select.report import formats
from gpu_select.report.charts import Chart, Figures, Trace, axis, hover, layout, legend, numbers
from gpu_select.report.markup import Html, chart_text
from gpu_select.report.palette import Palette
from gpu_select.report.validation import Domain, Strategy, Validation

__all__ = ["chosen_models", "quality_by_domain", "share_bars"]

_MAX_DOMAINS = 30
_LABEL = 24


def quality_by_domain(validation: Validation, palette: Palette, sheet: Figures) -> Html:
    """Dots: how far each selector is from the best single model, by domain."""
    single, selectors = validation.best_single, validation.of_kind("selector")
    if single is None or not selectors or not validation.domains:
        return Html("<p>The file has no domains, no selector or no single model to compare.</p>")
    per_domain = validation.named("per-domain")
    drawn = [*selectors, *([per_domain] if per_domain else [])]
    domains = _largest(validation)
    labels = [f"{d.name} ({formats.count(d.queries)})" for d in domains]
    rows = [f"all ({formats.count(validation.queries)})", *labels]
    traces = [_dots(validation, domains, s, single, palette, i, len(drawn)) for i, s in enumerate(drawn)]
    spread = [abs(x) for trace in traces for x in trace["x"] if x is not None]
    reach = 1.1 * max([*spread, 0.5])
    chart = Chart(
        "",
        f"Quality of {', '.join(s.name for s in drawn)} minus that of {single.name}, by domain",
        traces,
        layout(
            axis("points against the best single model", range=[-reach, reach]),
            axis(
                tickvals=list(range(len(rows))),
                ticktext=[chart_text(text, _LABEL + 8) for text in rows],
                range=[len(rows) - 0.4, -0.6],
                showgrid=False,
            ),
            shapes=[
                _rule("x", 0, {"color": "--ink", "width": 1.5}),
                *(_band(i) for i in range(1, len(rows), 2)),
                _rule("y", 0.5, {"color": "--line", "width": 1}),
            ],
        ),
        height=70 + 30 * len(rows),
    )
    caption = (
        f"Mean quality by domain, in points against always choosing {single.model or single.name}, the best single "
        "model overall. The first row has 95 % intervals; a domain has few queries, so its dots alone prove little."
    )
    if len(domains) < len(validation.domains):
        caption += f" The {len(domains)} largest of {len(validation.domains)} domains."
    shown = [s for s in (validation.named("oracle"), *drawn, single, validation.named("random")) if s is not None]
    table = numbers(
        "Quality by domain in numbers",
        ["domain", "queries", *(s.name for s in shown)],
        [
            [d.name, formats.count(d.queries), *(formats.quality(d.quality.get(s.name)) for s in shown)]
            for d in _by_size(validation)
        ],
    )
    key = legend([(palette.key(s), s.name) for s in drawn])
    return sheet.figure([chart], caption, legend=key, after=table)


def _dots(
    validation: Validation,
    domains: Sequence[Domain],
    strategy: Strategy,
    single: Strategy,
    palette: Palette,
    index: int,
    n: int,
) -> Trace:
    mark = palette.mark(strategy)
    offset = (index - (n - 1) / 2) * 0.6 / n  # side by side, as dots often fall on one another
    pair = validation.compare(strategy.name, single.name)
    total = strategy.gain_over_best_single if pair is None or pair.difference is None else pair.difference
    low, high = pair.ci95 if pair is not None and pair.ci95 is not None else (total, total)
    interval = "" if low == high else f", 95 % interval {formats.interval_points((low, high))}"
    xs: list[float | None] = [100 * total]
    texts = [hover(strategy.name, f"all queries: {formats.points(total)} points{interval}")]
    for domain in domains:
        own, other = domain.quality.get(strategy.name), domain.quality.get(single.name)
        gain = None if own is None or other is None else own - other
        xs.append(None if gain is None else 100 * gain)
        detail = f"{formats.quality(own)} against {formats.quality(other)}: {formats.points(gain)} points"
        texts.append(hover(strategy.name, f"{domain.name}, {formats.count(domain.queries)} queries", detail))
    none = [0.0] * len(domains)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": xs,
        "y": [i + offset for i in range(len(xs))],
        "marker": {"color": mark.color, "symbol": mark.symbol, "size": 10},
        "error_x": {
            "type": "data",
            "array": [100 * (high - total), *none],
            "arrayminus": [100 * (total - low), *none],
            "color": mark.color,
            "thickness": 1.5,
            "width": 0,
        },
        "hoverinfo": "text",
        "hovertext": texts,
    }


def chosen_models(validation: Validation, palette: Palette, sheet: Figures) -> Html:
    """Stacked bars: each selector's choices by domain."""
    selectors = [s for s in validation.of_kind("selector") if any(s.name in d.chosen for d in validation.domains)]
    if not selectors:
        return Html("<p>The file does not say which models were chosen by domain.</p>")
    domains = _largest(validation)
    charts = [share_bars(s.name, _rows(domains, s, validation.models), validation.models, palette) for s in selectors]
    caption = "Models that each selector chooses, as shares of a domain's queries."
    rows = [
        [d.name, s.name, *(formats.count(d.chosen.get(s.name, {}).get(model, 0)) for model in validation.models)]
        for d in _by_size(validation)
        for s in selectors
    ]
    table = numbers("Chosen models in numbers", ["domain", "selector", *validation.models], rows, texts=2)
    key = legend([(palette.model_key(model), model) for model in validation.models])
    return sheet.figure(charts, caption, legend=key, after=table)


def _rows(domains: Sequence[Domain], selector: Strategy, models: Sequence[str]) -> list[tuple[str, Mapping[str, int]]]:
    counts = [d.chosen.get(selector.name, {}) for d in domains]
    all_counts = {model: sum(c.get(model, 0) for c in counts) for model in models}
    return [("all", all_counts), *((d.name, c) for d, c in zip(domains, counts, strict=True))]


def share_bars(
    chooser: str, rows: Sequence[tuple[str, Mapping[str, int]]], models: Sequence[str], palette: Palette
) -> Chart:
    """Stacked bars of the models that somebody chooses, as shares: each row has a name and queries by model."""
    traces: list[Trace] = []
    for model in models:
        fill = palette.fill(model)
        shares = [c.get(model, 0) / max(sum(c.values()), 1) for _, c in rows]
        if not any(shares):
            continue
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": shares,
                "y": list(range(len(rows))),
                "marker": {
                    "color": fill.color,
                    "line": {"color": "--page", "width": 1},
                    "pattern": {"shape": fill.pattern, "fgcolor": "--on-fill", "fgopacity": 0.5, "size": 6},
                },
                "text": [f"{100 * share:.0f}" if share >= 0.12 else "" for share in shares],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "insidetextfont": {"color": "--on-fill", "size": 11},
                "hoverinfo": "text",
                "hovertext": [
                    hover(chooser, f"{name}: {model}", f"{formats.percent(share)}, {formats.count(c.get(model, 0))}")
                    for (name, c), share in zip(rows, shares, strict=True)
                ],
            }
        )
    return Chart(
        chooser,
        f"Shares of the models that {chooser} chooses, by domain",
        traces,
        layout(
            axis(range=[0, 1.002], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%", showgrid=False),
            axis(
                tickvals=list(range(len(rows))),
                ticktext=[chart_text(name, _LABEL) for name, _ in rows],
                range=[len(rows) - 0.4, -0.6],
                showgrid=False,
            ),
            barmode="stack",
            bargap=0.18,
            uniformtext={"mode": "hide", "minsize": 10},
        ),
        height=50 + 24 * len(rows),
    )


def _rule(at: str, value: float, line: dict[str, object]) -> dict[str, object]:
    """A line through the whole chart at one value of an axis."""
    other = "y" if at == "x" else "x"
    ends = {f"{at}0": value, f"{at}1": value, f"{other}0": 0, f"{other}1": 1}
    return {"type": "line", f"{other}ref": "paper", **ends, "line": line}


def _band(row: int) -> dict[str, object]:
    return {
        "type": "rect",
        "layer": "below",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "fillcolor": "--stripe",
        "line": {"width": 0},
    }


def _by_size(validation: Validation) -> list[Domain]:
    return sorted(validation.domains, key=lambda d: (-d.queries, d.name))


def _largest(validation: Validation) -> list[Domain]:
    return _by_size(validation)[:_MAX_DOMAINS]
