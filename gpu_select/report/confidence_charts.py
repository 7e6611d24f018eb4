"""Whether a selector that is surer of a decision decides better."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_select.report import formats
from gpu_select.report.charts import Chart, Figures, Trace, axis, hover, layout, legend, numbers
from gpu_select.report.markup import Html, element
from gpu_select.report.palette import Mark, Palette, symbol
from gpu_select.report.validation import Bin, Confidence, Validation

__all__ = ["confidence"]

_SINGLE = Mark("--muted", "diamond-open", "dot")


def confidence(validation: Validation, palette: Palette, sheet: Figures) -> Html:
    """Quality with its interval, and the best single model's on the same queries, by margin of the decision."""
    order = [s.name for s in validation.of_kind("selector")]
    shown = [c for c in validation.confidence if c.strategy in order and any(b.quality is not None for b in c.bins)]
    shown.sort(key=lambda c: order.index(c.strategy))
    if not shown:
        return element("p", "The file does not tell the margins of the decisions.", class_="note")
    scale = _scale(shown)
    charts = [_chart(c, palette, scale) for c in shown]
    single = validation.best_single
    name = "the best single model" if single is None else f"always {single.model or single.name}"
    keys = [(symbol(palette.selector(c.strategy)), c.strategy) for c in shown]
    key = legend([*keys, (symbol(_SINGLE), f"{name}, on the same queries")])
    rows = [
        [
            c.strategy,
            _range(b),
            formats.count(b.queries),
            formats.quality(b.quality),
            formats.NONE if b.ci95 is None else " to ".join(formats.quality(end) for end in b.ci95),
            formats.quality(b.best_single_quality),
        ]
        for c in shown
        for b in c.bins
    ]
    head = ["selector", "margin", "queries", "quality", "95 % interval", "best single model"]
    caption = (
        "Quality by the margin between the chosen model and the next one, in bins of about equal counts from the least "
        "sure decisions to the surest, with 95 % intervals. A useful margin shows where choosing gains most over the "
        "best single model."
    )
    return sheet.figure(charts, caption, legend=key, after=numbers("Confidence in numbers", head, rows))


def _scale(shown: Sequence[Confidence]) -> list[float]:
    """One for all selectors, so that they can be compared."""
    bins = [b for c in shown for b in c.bins]
    values = [value for b in bins for value in (b.quality, b.best_single_quality, *(b.ci95 or ())) if value is not None]
    pad = 0.05 * (max(values) - min(values)) or 0.05
    return [min(values) - pad, max(values) + pad]


def _chart(found: Confidence, palette: Palette, scale: list[float]) -> Chart:
    bins = [b for b in found.bins if b.quality is not None]
    mark = palette.selector(found.strategy)
    at = list(range(1, len(bins) + 1))
    single: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": at,
        "y": [b.best_single_quality for b in bins],
        "line": {"color": _SINGLE.color, "width": 1.5, "dash": _SINGLE.dash},
        "marker": {"color": _SINGLE.color, "symbol": _SINGLE.symbol, "size": 7},
        "hoverinfo": "skip",
    }
    own: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": at,
        "y": [b.quality for b in bins],
        "line": {"color": mark.color, "width": 2},
        "marker": {"color": mark.color, "symbol": mark.symbol, "size": 9},
        "error_y": {
            "type": "data",
            "array": [_arm(b, 1) for b in bins],
            "arrayminus": [_arm(b, 0) for b in bins],
            "color": mark.color,
            "thickness": 1.2,
            "width": 0,
        },
        "hoverinfo": "text",
        "hovertext": [
            hover(
                found.strategy,
                f"margin {_range(b)}, {formats.count(b.queries)} queries",
                f"quality {formats.quality(b.quality)}, best single model {formats.quality(b.best_single_quality)}",
            )
            for b in bins
        ],
    }
    ticks = at if len(at) <= 12 else at[:: -(-len(at) // 10)]
    return Chart(
        found.strategy,
        f"Quality of {found.strategy} by margin, from {formats.quality(bins[0].quality)} for the least sure decisions "
        f"to {formats.quality(bins[-1].quality)} for the surest",
        [single, own],
        layout(
            axis(
                "margin of the decision, upper end of the bin",
                tickvals=ticks,
                ticktext=[formats.margin(bins[i - 1].margin[1]) for i in ticks],
                tickangle=-45,
                range=[0.5, len(bins) + 0.5],
                showgrid=False,
            ),
            axis("mean quality", range=scale, nticks=6, tickformat=".2~f"),
        ),
        height=290,
    )


def _arm(found: Bin, end: int) -> float:
    if found.ci95 is None or found.quality is None:
        return 0.0
    return max(found.ci95[1] - found.quality if end else found.quality - found.ci95[0], 0.0)


def _range(found: Bin) -> str:
    low, high = found.margin
    return f"{formats.margin(low)} to {formats.margin(high)}"
