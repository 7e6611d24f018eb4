"""Measuring the whole path on the user's own device: random models of true shape, queries of chosen length, roofs."""

from __future__ import annotations

from gpu_select.throughput.corpus import read_corpus
from gpu_select.throughput.encoders import EncoderUsed, pick_encoder, random_encoder
from gpu_select.throughput.flops import flops_per_token
from gpu_select.throughput.hardware import device_name
from gpu_select.throughput.measure import Run, Throughput, measure, route_file, summary, timed_route
from gpu_select.throughput.queries import Queries, check_mean, cut_queries, write_log
from gpu_select.throughput.roof import Roof, copy_bandwidth, matmul_roof
from gpu_select.throughput.selectors import random_document, random_router
from gpu_select.throughput.synthetic import QWEN3_06B, SMALL, Shape, ensure_random_encoder
from gpu_select.throughput.table import as_dict, table

__all__ = [
    "QWEN3_06B",
    "SMALL",
    "EncoderUsed",
    "Queries",
    "Roof",
    "Run",
    "Shape",
    "Throughput",
    "as_dict",
    "check_mean",
    "copy_bandwidth",
    "cut_queries",
    "device_name",
    "ensure_random_encoder",
    "flops_per_token",
    "matmul_roof",
    "measure",
    "pick_encoder",
    "random_document",
    "random_encoder",
    "random_router",
    "read_corpus",
    "route_file",
    "summary",
    "table",
    "timed_route",
    "write_log",
]
