"""Query logs: rows in and out as JSON lines, CSV, TSV, plain text or Parquet, streamed window by window."""

from __future__ import annotations

from gpu_select.logs.reader import LogReader, open_log
from gpu_select.logs.rows import RESULT_FIELDS, Row
from gpu_select.logs.writer import LogWriter, open_writer

__all__ = ["RESULT_FIELDS", "LogReader", "LogWriter", "Row", "open_log", "open_writer"]
