"""The table of strategies, with each interval drawn beside its numbers."""

from __future__ import annotations

from gpu_select.report import formats
from gpu_select.report.charts import scroll_box
from gpu_select.report.markup import Html, element, join, shortened
from gpu_select.report.palette import Palette
from gpu_select.report.validation import Strategy, Validation

__all__ = ["strategy_table"]

_WIDTH, _HEIGHT = 150, 16
_KINDS = {"oracle": 0, "selector": 1, "single": 2, "baseline": 3}


def strategy_table(validation: Validation, palette: Palette) -> Html:
    """All strategies, the oracle first, then from best to worst; page.js sorts it by any column."""
    strategies = sorted(validation.strategies, key=lambda s: (s.kind != "oracle", -s.mean_quality))
    with_cost = any(s.mean_cost_usd is not None for s in strategies)
    with_latency = any(s.mean_latency_s is not None for s in strategies)
    partly = any(s.n_scored != validation.queries for s in strategies)
    span = _span([s for s in strategies if s.kind != "oracle"] or strategies)
    single = validation.best_single

    head = [_th("Strategy", "text"), _th("Quality", title="mean quality and its 95 % interval")]
    head += [element("th", "95 % interval", scope="col", class_="plot")]
    head += [_th("vs best single", title="points and their paired 95 % interval")]
    head += [_th("Gap share", title="(strategy - best single) / (oracle - best single)")]
    head += [_th("Best rate", title="share of queries on which the choice is a best model")]
    head += [_th("Latency")] if with_latency else []
    head += [_th("USD / 1,000", title="US dollars per 1,000 queries")] if with_cost else []
    head += [_th("Scored")] if partly else []

    rows = []
    for s in strategies:
        pair = validation.compare(s.name, single.name) if single and s is not single else None
        gain = formats.points(s.gain_over_best_single if pair is None else pair.difference)
        within = "" if pair is None or pair.ci95 is None else f" [{formats.interval_points(pair.ci95)}]"
        strong = pair is not None and pair.significant
        cells = [
            element("th", palette.key(s), " ", shortened(s.name, 48), scope="row", data_sort=s.name, title=s.name),
            _td(s.mean_quality, formats.quality(s.mean_quality), element("small", f" [{_ends(s)}]")),
            element("td", _interval(s, span, single, palette), class_="plot"),
            _td(
                s.gain_over_best_single,
                element("b", gain) if strong else gain,
                element("small", within),
            ),
            _td(s.gap_share, formats.percent(s.gap_share)),
            _td(s.best_rate, formats.percent(s.best_rate)),
        ]
        cells += [_td(s.mean_latency_s, formats.seconds(s.mean_latency_s))] if with_latency else []
        cost = None if s.mean_cost_usd is None else 1000 * s.mean_cost_usd
        cells += [_td(cost, formats.usd(cost))] if with_cost else []
        cells += [_td(s.n_scored, formats.count(s.n_scored))] if partly else []
        rows.append(element("tr", *cells, class_=f"kind-{_KINDS[s.kind]}"))
    body = element("table", element("thead", element("tr", *head)), element("tbody", join(rows)), class_="sortable")
    return scroll_box("Strategies", body)


def _th(text: str, sort: str = "number", title: str | None = None) -> Html:
    button = element("button", text, type="button", title=title)
    return element("th", button, scope="col", data_by=sort)


def _td(value: float | None, *shown: str) -> Html:
    return element("td", *shown, data_sort="" if value is None else repr(value))


def _ends(strategy: Strategy) -> str:
    return formats.NONE.join(formats.quality(end) for end in strategy.ci95)


def _span(strategies: list[Strategy]) -> tuple[float, float]:
    """The scale of the drawn intervals: all strategies but the oracle, which lies far above."""
    low, high = min(s.ci95[0] for s in strategies), max(s.ci95[1] for s in strategies)
    pad = 0.04 * (high - low) or 0.01
    return low - pad, high + pad


def _interval(strategy: Strategy, span: tuple[float, float], single: Strategy | None, palette: Palette) -> Html:
    low, high = span

    def x(value: float) -> float:
        return round((value - low) / (high - low) * _WIDTH, 1)

    middle = _HEIGHT / 2
    parts = []
    if single is not None:
        at = x(single.mean_quality)
        parts.append(element("line", x1=at, x2=at, y1=0, y2=_HEIGHT, class_="reference"))
    color = palette.mark(strategy).color[2:]
    if strategy.ci95[0] >= high:  # off the scale: an arrow says where to
        parts.append(element("path", d=f"M{_WIDTH - 9} 3l7 5l-7 5z", class_=f"dot {color}"))
    else:
        # the models' fills are too pale for lines
        outline = " outlined" if strategy.model is not None else ""
        line = "muted" if strategy.model is not None else color
        start, end = (min(max(x(value), 0), _WIDTH) for value in strategy.ci95)
        parts.append(element("line", x1=start, x2=end, y1=middle, y2=middle, class_=f"whisker {line}"))
        parts.append(element("circle", cx=x(strategy.mean_quality), cy=middle, r=4, class_=f"dot {color}{outline}"))
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return element("svg", *parts, viewBox=box, width=_WIDTH, height=_HEIGHT, aria_hidden="true")
