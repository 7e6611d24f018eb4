"""Quality against cost and against latency: the selectors' curves among the fixed choices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gpu_select.report import formats
from gpu_select.report.charts import Chart, Figures, Layout, Trace, axis, hover, layout, legend, numbers
from gpu_select.report.label_places import label_texts, place_labels
from gpu_select.report.markup import Html, chart_text, element
from gpu_select.report.palette import Palette
from gpu_select.report.validation import Curve, Point, Strategy, Validation

__all__ = ["tradeoffs"]

_UNKNOWN = {
    "cost": "Costs are not known: the records need costs, or token counts and prices (validate --models-config).",
    "latency": "Latencies are not known: the records have no response times.",
}
_TITLE = {"cost": "cost, US dollars per 1,000 queries", "latency": "mean latency, seconds"}
_LOG_RATIO = 30
_MAX_DOTS = 12  # more of them make a dashed line illegible
_WIDE, _NARROW = (430.0, 300.0), (280.0, 300.0)  # about the plot area in pixels, for placing labels
_HEIGHT = 380


def tradeoffs(validation: Validation, palette: Palette, sheet: Figures) -> Html:
    """A chart for cost and one for latency, or a sentence where one is unknown."""
    charts, missing, rows = [], [], []
    for against in ("cost", "latency"):
        chart = _chart(validation, against, palette)
        if chart is None:
            missing.append(element("p", _UNKNOWN[against], class_="note"))
            continue
        charts.append(chart)
        for curve in _curves(validation, against):
            for point in curve.points:
                paid = formats.usd(_at(point, "cost")), formats.seconds(_at(point, "latency"))
                weight = formats.margin(point.weight)
                rows.append([curve.strategy, against, weight, formats.quality(point.quality), *paid])
    if not charts:
        return element("div", *missing)
    fixed = [s for s in validation.strategies if s.kind != "selector" and not _is_twin(s, validation)]
    shown = [*validation.of_kind("selector"), *(s for s in fixed if s.kind != "single")]
    key = legend([(palette.key(s), s.name) for s in shown])
    caption = (
        "Each curve is one selector while the weight of quality falls from 1, its own decision (large symbol), to 0. "
        "Labelled points always choose one model. Further up and left is better."
    )
    head = ["selector", "against", "weight", "quality", "USD per 1,000", "latency"]
    after = numbers("The curves in numbers", head, rows, texts=2) if rows else None
    figure = sheet.figure(charts, caption, legend=key, after=after)
    return element("div", figure, *missing)


def _chart(validation: Validation, against: str, palette: Palette) -> Chart | None:
    fixed = [
        (s, x)
        for s in validation.strategies
        if s.kind not in ("selector", "oracle") and not _is_twin(s, validation)
        if (x := _of(s, against)) is not None
    ]
    curves = [curve for curve in _curves(validation, against) if any(True for _ in _known(curve, against))]
    alone = [
        (s, x)
        for s in validation.of_kind("selector")
        if s.name not in {curve.strategy for curve in curves} and (x := _of(s, against)) is not None
    ]
    if not fixed and not curves and not alone:
        return None
    placed = [(x, s.mean_quality) for s, x in (*fixed, *alone)]
    placed += [(x, y) for curve in curves for _, x, y in _known(curve, against)]
    xs, ys = [x for x, _ in placed], [y for _, y in placed]
    log = min(xs) > 0 and max(xs) / min(xs) > _LOG_RATIO
    x_range, y_range = _padded(xs, log), _padded(ys, False)
    traces: list[Trace] = [_line(curve, against, palette, validation) for curve in curves]
    traces += [_own(curve, against, palette) for curve in curves]
    traces += [_lone(s, x, palette) for s, x in alone]

    def pixels(size: tuple[float, float]) -> list[tuple[float, float]]:
        low, high = x_range
        bottom, top = y_range
        return [
            (
                ((math.log10(x) if log else x) - low) / (high - low) * size[0],
                (y - bottom) / (top - bottom) * size[1],
            )
            for x, y in placed
        ]

    names = [chart_text(s.model or s.name, 20) for s, _ in fixed]
    lengths = [len((s.model or s.name)[:20]) for s, _ in fixed]
    wide, narrow = (place_labels(pixels(size), lengths, size) for size in (_WIDE, _NARROW))
    traces.append(_fixed(fixed, names, wide, against, palette))
    labels = label_texts(names, narrow)
    changes: list[Trace] = [{} for _ in traces[:-1]] + [labels]
    shapes: Layout = {}
    oracle = validation.named("oracle")
    if oracle is not None and (x := _of(oracle, against)) is not None:
        shapes["annotations"] = [_oracle(oracle, x, log, x_range, y_range)]
    x_axis = axis(_TITLE[against], range=list(x_range), type="log" if log else "linear", nticks=6)
    if log:
        x_axis |= {"dtick": "D1" if x_range[1] - x_range[0] < 1.5 else 1}
    return Chart(
        f"Quality against {against}",
        f"Mean quality against {_TITLE[against]}: curves of {', '.join(c.strategy for c in curves) or 'no selector'}, "
        f"and {len(fixed)} fixed choices",
        traces,
        layout(x_axis, axis("mean quality", range=list(y_range), nticks=7, tickformat=".2~f"), **shapes),
        height=_HEIGHT,
        narrow=changes,
    )


def _of(strategy: Strategy, against: str) -> float | None:
    if against == "latency":
        return strategy.mean_latency_s
    return None if strategy.mean_cost_usd is None else 1000 * strategy.mean_cost_usd


def _at(point: Point, against: str) -> float | None:
    if against == "latency":
        return point.latency_s
    return None if point.cost_usd is None else 1000 * point.cost_usd


def _curves(validation: Validation, against: str) -> list[Curve]:
    order = [s.name for s in validation.of_kind("selector")]
    curves = [curve for curve in validation.curves if curve.against == against and curve.strategy in order]
    return sorted(curves, key=lambda curve: order.index(curve.strategy))


def _known(curve: Curve, against: str) -> Iterator[tuple[Point, float, float]]:
    for point in curve.points:
        x = _at(point, against)
        if x is not None and point.quality is not None:
            yield point, x, point.quality


def _is_twin(strategy: Strategy, validation: Validation) -> bool:
    """Whether always:MODEL stands at the same point already."""
    return strategy.kind == "baseline" and validation.named(f"always:{strategy.model}") is not None


def _padded(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    pad = 0.09 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad, high + pad


def _hover(curve: Curve, point: Point) -> str:
    shares = sorted(((share or 0, model) for model, share in point.shares.items()), reverse=True)
    most = ", ".join(f"{model} {formats.percent(share, 0)}" for share, model in shares[:3] if share)
    paid = [f"{formats.usd(_at(point, 'cost'))} USD per 1,000"] if point.cost_usd is not None else []
    paid += [formats.seconds(point.latency_s)] if point.latency_s is not None else []
    head = f"weight of quality {formats.margin(point.weight)}"
    return hover(curve.strategy, head, ", ".join([f"quality {formats.quality(point.quality)}", *paid]), most)


def _line(curve: Curve, against: str, palette: Palette, validation: Validation) -> Trace:
    mark = palette.selector(curve.strategy)
    known = list(_known(curve, against))
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(known) <= _MAX_DOTS else "lines",
        "x": [x for _, x, _ in known],
        "y": [y for _, _, y in known],
        "line": {"color": mark.color, "width": 2, "dash": mark.dash},
        "marker": {"color": mark.color, "size": 4},
        "hoverinfo": "text",
        "hovertext": [_hover(curve, point) for point, _, _ in known],
    }


def _own(curve: Curve, against: str, palette: Palette) -> Trace:
    """The point of the greatest weight, the selector's own decision."""
    point, x, y = list(_known(curve, against))[-1]
    return _symbol(curve.strategy, x, y, _hover(curve, point), palette)


def _lone(selector: Strategy, x: float, palette: Palette) -> Trace:
    text = hover(selector.name, f"quality {formats.quality(selector.mean_quality)}")
    return _symbol(selector.name, x, selector.mean_quality, text, palette)


def _symbol(name: str, x: float, y: float, text: str, palette: Palette) -> Trace:
    mark = palette.selector(name)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [y],
        "marker": {"color": mark.color, "symbol": mark.symbol, "size": 13, "line": {"color": "--page", "width": 1.5}},
        "hoverinfo": "text",
        "hovertext": [text],
    }


def _fixed(
    fixed: Sequence[tuple[Strategy, float]],
    names: Sequence[str],
    places: Sequence[str],
    against: str,
    palette: Palette,
) -> Trace:
    marks = [palette.mark(s) for s, _ in fixed]
    unit = "USD per 1,000" if against == "cost" else ""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [x for _, x in fixed],
        "y": [s.mean_quality for s, _ in fixed],
        **label_texts(names, places),
        "textfont": {"size": 11, "color": "--muted"},
        "cliponaxis": False,
        "marker": {
            "color": [mark.color for mark in marks],
            "symbol": [mark.symbol for mark in marks],
            "size": 9,
            "line": {"color": "--ink", "width": 1},
        },
        "hoverinfo": "text",
        "hovertext": [
            hover(s.name, f"quality {formats.quality(s.mean_quality)}", f"{_paid(x, against)} {unit}".strip())
            for s, x in fixed
        ],
    }


def _paid(x: float, against: str) -> str:
    return formats.usd(x) if against == "cost" else formats.seconds(x)


def _oracle(
    oracle: Strategy, x: float, log: bool, x_range: tuple[float, float], y_range: tuple[float, float]
) -> Layout:
    """The oracle lies far above everything else: a note at the upper edge keeps the scale for the rest."""
    at = min(max(math.log10(x) if log and x > 0 else x, x_range[0]), x_range[1])
    inside = oracle.mean_quality <= y_range[1]
    share = (at - x_range[0]) / (x_range[1] - x_range[0])
    return {
        "x": at,
        "y": min(oracle.mean_quality, y_range[1]),
        "text": f"★ oracle {formats.quality(oracle.mean_quality)}" + ("" if inside else " ↑"),
        "showarrow": False,
        "xanchor": "left" if share < 0.25 else "right" if share > 0.75 else "center",
        "yanchor": "bottom" if inside else "top",
        "font": {"size": 11, "color": "--ink"},
        "bgcolor": "--page",
    }
