"""Benchmark records -> an outcome table: one row a query, one column a model."""

from gpu_select.records.digests import pack_digests, query_digests, unpack_digests
from gpu_select.records.reading import RecordCounts, read_outcomes
from gpu_select.records.table import OutcomeTable, with_prices

__all__ = [
    "OutcomeTable",
    "RecordCounts",
    "pack_digests",
    "query_digests",
    "read_outcomes",
    "unpack_digests",
    "with_prices",
]
