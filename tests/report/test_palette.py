"""The colours of page.css: readable on their page, and told apart by colour-blind people."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import pytest

from gpu_select.report.palette import N_FILLS, Palette

CSS = resources.files("gpu_select.report").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK = re.findall(r":root(?:\S+)? \{([^}]*)\}", CSS)

# Viénot, Brettel and Mollon (1999), in linear RGB: what a person without red or green cones sees
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "deuteranopia": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


def colors(block):
    found = dict(re.findall(r"--([\w-]+): #([0-9a-f]{6})", block))
    return {name: linear(value) for name, value in found.items()}


def linear(code):
    values = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)


def luminance(rgb):
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [sum(a * b for a, b in zip(row, rgb, strict=True)) / w for row, w in zip(to_xyz, white, strict=True)]
    x, y, z = (max(v, 0) ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(a, b, sight):
    seen = [lab([sum(m * v for m, v in zip(row, c, strict=True)) for row in BLINDNESS[sight]]) for c in (a, b)]
    return sum((p - q) ** 2 for p, q in zip(*seen, strict=True)) ** 0.5


THEMES = {"light": colors(LIGHT), "dark": colors(LIGHT) | colors(DARK)}


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_symbols_stand_out_from_the_page(theme):
    found = THEMES[theme]
    for name in ("ink", "muted", "link"):
        assert contrast(found[name], found["page"]) >= 4.5, name
    for name in (f"s{i}" for i in range(6)):
        assert contrast(found[name], found["page"]) >= 3, name
    for name in (f"m{i}" for i in range(N_FILLS)):
        assert contrast(found[name], found["on-fill"]) >= 4.5, name
    for name in ("more", "less"):
        assert contrast(found[name], found["ink"]) >= 4.5, name


@pytest.mark.parametrize("sight", BLINDNESS)
@pytest.mark.parametrize("theme", THEMES)
def test_the_four_selectors_have_colours_that_differ_for_all_eyes(theme, sight):
    found = THEMES[theme]
    for a, b in itertools.combinations(("s0", "s1", "s2", "s3"), 2):
        assert distance(found[a], found[b], sight) > 10, (a, b)


@pytest.mark.parametrize("sight", BLINDNESS)
def test_the_fills_of_neighbours_differ_for_all_eyes(sight):
    found = THEMES["light"]
    for a, b in itertools.combinations([f"m{i}" for i in range(N_FILLS)], 2):
        assert distance(found[a], found[b], sight) > 7, (a, b)


def test_a_name_has_one_mark_and_a_model_one_fill():
    palette = Palette(["svm", "mlp", "novel", "knn"], [f"model {i}" for i in range(20)])
    marks = {name: palette.selector(name) for name in ("knn", "kmeans", "svm", "mlp", "novel")}
    assert len(set(marks.values())) == 5
    assert marks["knn"] == Palette([], []).selector("knn")  # whatever else is on the page
    assert len({palette.fill(f"model {i}") for i in range(20)}) == 20
    assert palette.fill("model 9").pattern


def test_every_mark_and_fill_is_in_the_style_sheet():
    palette = Palette([], [f"model {i}" for i in range(45)])
    for i in range(45):
        key = palette.model_key(f"model {i}")
        fill, pattern = re.search(r'class="fill (m\d) (p\d)"', key).groups()
        assert f".{fill} {{" in CSS
        assert pattern == "p0" or f".{pattern} {{" in CSS
