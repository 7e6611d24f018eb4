"""A query log through the router: rows in, the same rows with their model out, in the same order, in flat memory."""

from __future__ import annotations

from gpu_select.pipeline.options import FEW_SHAPES, SAME_BITS, RouteOptions
from gpu_select.pipeline.report import RouteReport
from gpu_select.pipeline.routing import WINDOW_ROWS, route_rows, route_vectors
from gpu_select.pipeline.windows import DOMAIN_FIELDS, input_name

__all__ = [
    "DOMAIN_FIELDS",
    "FEW_SHAPES",
    "SAME_BITS",
    "WINDOW_ROWS",
    "RouteOptions",
    "RouteReport",
    "input_name",
    "route_rows",
    "route_vectors",
]
