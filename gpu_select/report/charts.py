"""A chart as plain values for plotly.js, and the figures that hold charts on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_select.report.markup import Html, chart_text, element, join

__all__ = ["Chart", "Figures", "axis", "description", "layout", "legend", "numbers"]

Trace = dict[str, Any]
Layout = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Chart:
    """One chart. Colours are names of CSS custom properties ("--ink"); page.js puts in their values."""

    title: str
    """Shown above the chart, if not empty."""
    label: str
    """What it shows, for those who cannot see it."""
    data: Sequence[Trace]
    layout: Layout
    height: int
    """Pixels."""
    narrow: Sequence[Trace] = field(default=())
    """What to change, trace by trace, where the chart is narrow."""


class Figures:
    """Numbers the figures of a page and collects their charts."""

    def __init__(self) -> None:
        self._figures = 0
        self.charts: list[Trace] = []

    def figure(
        self, charts: Sequence[Chart], caption: str, *, legend: Html | None = None, after: Html | None = None
    ) -> Html:
        """A figure of one or more charts side by side, as far as there is room.

        Args:
            charts: from left to right.
            caption: below them, after the figure's number.
            legend: above them.
            after: below the caption, for numbers in a table.
        """
        self._figures += 1
        boxes = []
        for chart in charts:
            name = f"chart-{len(self.charts) + 1}"
            drawn = {"id": name, "data": chart.data, "layout": chart.layout, "narrow": chart.narrow}
            self.charts.append({**drawn, "height": chart.height})
            title = element("p", chart.title, class_="chart-title") if chart.title else Html()
            box = element(
                "div", id=name, class_="chart", role="img", aria_label=chart.label, style=f"height:{chart.height}px"
            )
            boxes.append(element("div", title, box, class_="chart-box"))
        number = element("b", f"Figure {self._figures}. ")
        grid = element("div", *boxes, class_="charts" if len(charts) > 1 else "charts one")
        return element("figure", legend or Html(), grid, element("figcaption", number, caption), after or Html())


def axis(title: str = "", **settings: Any) -> Layout:
    """A linear axis that nobody can drag."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": "--muted"}},
        "type": "linear",
        "fixedrange": True,
        "automargin": True,
        "zeroline": False,
        "gridcolor": "--grid",
        "linecolor": "--line",
        "tickfont": {"size": 11, "color": "--muted"},
        **settings,
    }


def layout(xaxis: Layout, yaxis: Layout, **settings: Any) -> Layout:
    """A chart without a frame, its legend left to the page."""
    return {
        "xaxis": xaxis,
        "yaxis": yaxis,
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8, "pad": 2},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "--ink"},
        "hoverlabel": {
            "bgcolor": "--panel",
            "bordercolor": "--line",
            "font": {"family": FONT, "size": 12, "color": "--ink"},
            "align": "left",
            "namelength": 0,
        },
        **settings,
    }


def hover(*lines: str) -> str:
    """The text of a hover label; each line is untrusted."""
    return "<br>".join(chart_text(line, 90) for line in lines)


def legend(entries: Sequence[tuple[Html, str]]) -> Html:
    """Symbols with their names."""
    return element("ul", *(element("li", key, " ", name) for key, name in entries), class_="legend")


def numbers(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> Html:
    """The values behind a chart as a table that is folded away."""
    return element("details", element("summary", summary), table(summary, head, rows, texts=texts))


def table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> Html:
    """A plain table in a box that scrolls sideways by itself.

    Args:
        name: what it holds.
        head: names of the columns.
        rows: their cells; the first one names the row.
        texts: so many columns, from the left, hold words and not numbers.
    """

    def side(column: int) -> str | None:
        return "words" if column < texts else None

    top = element("tr", *(element("th", text, scope="col", class_=side(i)) for i, text in enumerate(head)))
    body = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", text, class_=side(i)) for i, text in enumerate(row[1:], 1)),
        )
        for row in rows
    )
    return scroll_box(name, element("table", element("thead", top), element("tbody", join(body))))


def description(facts: Sequence[tuple[str, str]]) -> Html:
    """Names with what they are."""
    pairs = (element("div", element("dt", name), element("dd", value)) for name, value in facts)
    return element("dl", *pairs, class_="facts")


def scroll_box(name: str, inner: Html) -> Html:
    """What is too wide scrolls in its box, by keyboard as well."""
    return element("div", inner, class_="scroll", role="region", aria_label=name, tabindex=0)
