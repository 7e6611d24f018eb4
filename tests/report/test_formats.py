from __future__ import annotations

import pytest

from gpu_select.report import formats


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formats.count, 1234567, "1,234,567"),
        (formats.quality, 0.4562, "0.456"),
        (formats.quality, None, "\u2013"),
        (formats.points, 0.0171, "+1.7"),
        (formats.points, -0.0171, "\u22121.7"),
        (formats.points, -0.0001, "+0.0"),
        (formats.interval_points, (-0.0004, 0.031), "0.0 to 3.1"),
        (formats.interval_points, (-0.002, 0.031), "\u22120.2 to 3.1"),
        (formats.interval_points, None, "\u2013"),
        (formats.percent, 0.0541, "5.4\u00a0%"),
        (formats.seconds, 2.314, "2.31\u00a0s"),
        (formats.seconds, 0.001234, "0.00123\u00a0s"),
        (formats.usd, 0.2, "0.200"),
        (formats.usd, 0.0, "0"),
        (formats.usd, 1234.5, "1,234"),
        (formats.margin, 1658.3, "1,658"),
        (formats.margin, -0.00312, "\u22120.00312"),
    ],
)
def test_numbers_as_people_read_them(function, value, text):
    assert function(value) == text
