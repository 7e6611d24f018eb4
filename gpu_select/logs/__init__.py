"""Query logs: rows in and out as JSON lines, CSV, TSV, plain text or Parquet, streamed window by window."""

from __future__ import annotations

from gpu_select.logs.file import LogFile, RowCounter
from gpu_select.logs.formats import log_format
from gpu_select.logs.inputs import find_logs
from gpu_select.logs.reader import LogReader, check_columns, named, open_log, open_logs
from gpu_select.logs.rows import RESULT_FIELDS, START, Chunks, Place, Row
from gpu_select.logs.writer import LogWriter, open_writer

__all__ = [
    "RESULT_FIELDS",
    "START",
    "Chunks",
    "LogFile",
    "LogReader",
    "LogWriter",
    "Place",
    "Row",
    "RowCounter",
    "check_columns",
    "find_logs",
    "log_format",
    "named",
    "open_log",
    "open_logs",
    "open_writer",
]
