"""Where labels beside points go, so that they cover neither points nor one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["label_texts", "place_labels"]

_CHARACTER = 6.2
"""Width of an average character in pixels, at the 11 pixels of the labels."""
_LINE = 13.0
_GAP = 7.0
_MAX_COVERED = 6
"""Points that a label may cover where there is no better place."""
_PLACES = (
    ("top center", -0.5, 0.0, 0.0, 1.0),
    ("bottom center", -0.5, 0.0, 0.0, -1.0),
    ("middle right", 0.0, 1.0, -0.5, 0.0),
    ("middle left", -1.0, -1.0, -0.5, 0.0),
    ("top right", 0.0, 0.5, 0.0, 1.0),
    ("top left", -1.0, -0.5, 0.0, 1.0),
    ("bottom right", 0.0, 0.5, 0.0, -1.0),
    ("bottom left", -1.0, -0.5, 0.0, -1.0),
)
"""Plotly's name; the box's left edge in widths and gaps, its lower edge in heights and gaps."""

Box = tuple[float, float, float, float]


def place_labels(points: Sequence[tuple[float, float]], lengths: Sequence[int], size: tuple[float, float]) -> list[str]:
    """Plotly's text position for the labels of the first points, "" for a label that finds no room.

    Args:
        points: (x, y) in pixels, y upwards; those with labels first.
        lengths: characters of each label, one for each of the first points.
        size: width and height of the plot in pixels.
    """
    marks: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    labels: list[Box] = []
    out = []
    for (x, y), length in zip(points, lengths, strict=False):
        fits = [(name, box) for name, box in _boxes(x, y, _CHARACTER * max(length, 1)) if _inside(box, size)]
        fits = [(name, box) for name, box in fits if not any(_overlap(box, label) for label in labels)]
        # a label that covers some points of a curve is better than none
        covered = [sum(_overlap(box, mark) for mark in marks) for _, box in fits]
        if not fits or min(covered) > _MAX_COVERED:
            out.append("")
            continue
        name, box = fits[covered.index(min(covered))]
        out.append(name)
        labels.append(box)
    return out


def label_texts(names: Sequence[str], places: Sequence[str]) -> dict[str, list[str]]:
    """What Plotly draws at these places: a label without one is empty."""
    return {
        "text": [name if place else "" for name, place in zip(names, places, strict=True)],
        "textposition": [place or "top center" for place in places],
    }


def _boxes(x: float, y: float, width: float) -> Iterator[tuple[str, Box]]:
    for name, left, gap_x, low, gap_y in _PLACES:
        x0 = x + left * width + gap_x * _GAP
        y0 = y + low * _LINE + gap_y * _GAP - (_LINE if gap_y < 0 else 0)
        yield name, (x0, y0, x0 + width, y0 + _LINE)


def _inside(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
