"""What a validation says, in sentences computed from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_select.report import formats
from gpu_select.report.markup import Html, element, join
from gpu_select.report.validation import Comparison, Strategy, Validation

__all__ = ["summary"]


def summary(validation: Validation) -> Html:
    """A paragraph on the best selector, and a list of the others."""
    single, selectors = validation.best_single, validation.of_kind("selector")
    if not selectors:
        text = "No selector was validated"
        if single is not None:
            text += f"; the best single model is {single.model or single.name}, of mean quality "
            text += formats.quality(single.mean_quality)
        return element("p", f"{text}.", class_="lead")
    best = selectors[0]
    sentences: list[str] = [_lead(validation, best, single)]
    per_domain = validation.named("per-domain")
    if per_domain is not None:
        sentences.append(_against(validation, best, per_domain, "the best model of each domain"))
    random = validation.named("random")
    if random is not None:
        sentences.append(_against(validation, best, random, "a model drawn by chance"))
    lead = element("p", *(part for sentence in sentences for part in (sentence, " ")), class_="lead")
    if len(selectors) == 1:
        return lead
    return join([lead, element("p", *_others(validation, best, selectors[1:], single))])


def _others(validation: Validation, best: Strategy, others: Sequence[Strategy], single: Strategy | None) -> list[str]:
    first = f"{best.name} is the best of {len(others) + 1} on these very queries, which flatters it a little."
    parts: list[str] = [first, " The others against the best single model, in points: "]
    for i, other in enumerate(others):
        pair = None if single is None else validation.compare(other.name, single.name)
        gain = other.gain_over_best_single if pair is None or pair.difference is None else pair.difference
        within = "" if pair is None or pair.ci95 is None else f" ({formats.interval_points(pair.ci95)})"
        parts += ["; " if i else "", element("b", other.name), f" {formats.points(gain)}{within}"]
    return [*parts, "."]


def _lead(validation: Validation, selector: Strategy, single: Strategy | None) -> Html:
    start = [
        element("b", selector.name),
        " chooses models of mean quality ",
        element("b", formats.quality(selector.mean_quality)),
    ]
    if single is None:
        return join([*start, "."])
    pair = validation.compare(selector.name, single.name)
    gap = ""
    if selector.gap_share is not None:
        gap = f", {formats.percent(selector.gap_share)} of the gap to the oracle"
    rest = _difference(validation, pair, selector.gain_over_best_single, f"the best single model, {single.model}")
    end = ""
    if pair is not None and pair.significant and selector.gain_over_best_single < 0:
        end = " Always choosing that model would be better."
    return join([*start, f": {rest}{gap}.{end}"])


def _against(validation: Validation, best: Strategy, other: Strategy, name: str) -> str:
    pair = validation.compare(best.name, other.name)
    text = _difference(validation, pair, best.mean_quality - other.mean_quality, name)
    return f"It is {text}."


def _difference(validation: Validation, pair: Comparison | None, difference: float, name: str) -> str:
    """The difference that was measured, with as much trust as its interval allows."""
    if pair is not None and pair.difference is not None:
        difference = pair.difference  # on the queries that both have outcomes for
    side = "below" if difference < 0 else "above"
    size = formats.points(abs(difference)).lstrip("+")
    text = f"{size} points {side} {name}"
    if pair is None or pair.ci95 is None:
        return f"{text} (no interval is known)"
    low, high = pair.ci95 if difference >= 0 else (-pair.ci95[1], -pair.ci95[0])
    interval = f"95 % interval {formats.interval_points((low, high))}"
    if pair.significant:
        return f"{text} ({interval})"
    return f"{text}, but not distinguishable from it on these {formats.count(validation.queries)} queries ({interval})"
