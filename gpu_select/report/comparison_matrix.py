"""Every strategy against every other: paired differences, those that are more than chance marked."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_select.report import formats
from gpu_select.report.charts import scroll_box
from gpu_select.report.markup import Html, element, join, shortened
from gpu_select.report.palette import Palette
from gpu_select.report.validation import Strategy, Validation

__all__ = ["comparison_matrix"]

_MAX_STRATEGIES = 40


def comparison_matrix(validation: Validation, palette: Palette) -> Html:
    """The selectors, the best single model and the baselines; all strategies in a second one that is folded away."""
    if not validation.comparisons:
        return element("p", "The file holds no comparisons.")
    everything = sorted(validation.strategies, key=lambda s: -s.mean_quality)[:_MAX_STRATEGIES]
    single = validation.best_single
    twins = {single.model} if single is not None else set()
    few = [s for s in everything if s.kind != "single" or s is single]
    # where the cheapest model is the best one, its row would say everything a second time
    few = [s for s in few if s.kind != "baseline" or s.model is None or s.model not in twins]
    parts = [_matrix(validation, few, palette, "Differences between strategies")]
    if len(few) < len(everything):
        all_of_them = _matrix(validation, everything, palette, "Differences between all strategies")
        parts.append(element("details", element("summary", f"All {len(everything)} strategies"), all_of_them))
    return join(parts)


def _matrix(validation: Validation, strategies: Sequence[Strategy], palette: Palette, name: str) -> Html:
    head = [element("th", "", scope="col")]
    head += [element("th", palette.key(s), " ", shortened(s.name, 32), scope="col", title=s.name) for s in strategies]
    pairs = {(pair.a, pair.b): pair for pair in validation.comparisons}
    rows = []
    for a in strategies:
        cells = [element("th", palette.key(a), " ", shortened(a.name, 32), scope="row", title=a.name)]
        for b in strategies:
            pair = pairs.get((a.name, b.name))
            if pair is None and (b.name, a.name) in pairs:
                pair = pairs[b.name, a.name].reversed
            if a is b or pair is None or pair.difference is None:
                cells.append(element("td", "" if a is b else formats.points(None), class_="none"))
                continue
            title = f"{a.name} - {b.name}: {formats.points(pair.difference)} points"
            title += f", 95 % interval {formats.interval_points(pair.ci95)}" if pair.ci95 is not None else ""
            side = ("more" if pair.difference > 0 else "less") if pair.significant else "same"
            mark = {"more": " ▲", "less": " ▼", "same": ""}[side]
            cells.append(element("td", formats.points(pair.difference), mark, class_=side, title=title))
        rows.append(element("tr", *cells))
    inner = element("table", element("thead", element("tr", *head)), element("tbody", join(rows)), class_="matrix")
    return scroll_box(name, inner)
