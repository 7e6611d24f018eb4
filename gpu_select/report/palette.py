"""One colour and symbol a strategy, one fill a model, the same in all charts and tables of a page.

A colour is the name of a CSS custom property, so that page.css alone decides on light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_select.report.markup import Html, element
from gpu_select.report.validation import Strategy

__all__ = ["Fill", "Mark", "Palette"]

_SLOTS = {"knn": 0, "kmeans": 1, "svm": 2, "mlp": 3}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
_PATTERNS = ("", "/", ".", "x", "-")
N_FILLS = 9
"""Colours of models in page.css; further models repeat them with a pattern."""


@dataclass(frozen=True)
class Mark:
    """How a strategy is drawn."""

    color: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class Fill:
    """How a model's share is drawn."""

    color: str
    pattern: str


class Palette:
    """Marks and fills by name, given out in the order of the names."""

    def __init__(self, selectors: Iterable[str], models: Iterable[str]) -> None:
        self._slots = dict(_SLOTS)
        for name in selectors:
            self._slots.setdefault(name, len(self._slots))
        self._models = {model: i for i, model in enumerate(dict.fromkeys(models))}

    def mark(self, strategy: Strategy) -> Mark:
        """Of any strategy."""
        if strategy.kind == "selector":
            return self.selector(strategy.name)
        if strategy.kind == "oracle":
            return Mark("--ink", "star", "solid")
        if strategy.model is not None:
            return Mark(self.fill(strategy.model).color, "circle", "solid")
        return Mark("--muted", "x" if strategy.name == "random" else "diamond-open", "dot")

    def selector(self, name: str) -> Mark:
        """Of a selector or an algorithm."""
        slot = self._slots.get(name, 0) % len(_SYMBOLS)
        return Mark(f"--s{slot}", _SYMBOLS[slot], _DASHES[slot])

    def fill(self, model: str) -> Fill:
        """Of a model."""
        slot = self._models.get(model, 0)
        return Fill(f"--m{slot % N_FILLS}", _PATTERNS[slot // N_FILLS % len(_PATTERNS)])

    def key(self, strategy: Strategy) -> Html:
        """The strategy's symbol, for legends and tables."""
        return symbol(self.mark(strategy))

    def model_key(self, model: str) -> Html:
        """The model's fill, for legends."""
        fill = self.fill(model)
        slot = _PATTERNS.index(fill.pattern)
        return element("span", class_=f"fill {fill.color[2:]} p{slot}", aria_hidden="true")


_SHAPES = {
    "circle": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "square": "M2 2h8v8h-8z",
    "diamond": "M6 .6L11.4 6L6 11.4L.6 6z",
    "diamond-open": "M6 .6L11.4 6L6 11.4L.6 6zM6 3.2L3.2 6L6 8.8L8.8 6z",
    "triangle-up": "M6 1L11.4 10.4H.6z",
    "cross": "M4.2 .8h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4v-3.6h3.4z",
    "x": "M2.6 .8L6 4.2L9.4 .8L11.2 2.6L7.8 6L11.2 9.4L9.4 11.2L6 7.8L2.6 11.2L.8 9.4L4.2 6L.8 2.6z",
    "star": "M6 .3L7.7 4.1L11.8 4.5L8.7 7.2L9.6 11.3L6 9.2L2.4 11.3L3.3 7.2L.2 4.5L4.3 4.1z",
}
"""In a box of 12 by 12."""


def symbol(mark: Mark) -> Html:
    """A mark as it stands in the charts."""
    path = element("path", d=_SHAPES[mark.symbol], fill_rule="evenodd")
    return element("svg", path, class_=f"key {mark.color[2:]}", viewBox="0 0 12 12", aria_hidden="true")
