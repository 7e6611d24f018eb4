"""Structured logs: one JSON object a line, with request ids; no key, no prompt, no answer."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from gpu_select.jsonio import dumps

__all__ = ["JsonLines", "log_event", "log_failure", "write_json_lines"]

_logger = logging.getLogger("gpu_select.gateway")


class JsonLines(logging.Formatter):
    """Writes a record as a JSON object: time, level, event, and the fields that `log_event` was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields |= {"error": record.exc_info[0].__name__, "stack": _stack(record.exc_info[1])}
        return dumps(fields, str).decode()


def write_json_lines() -> None:
    """Let all that this package and aiohttp log go to standard error, one JSON object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("gpu_select", "aiohttp"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event; fields that are None are left out."""
    if _logger.isEnabledFor(level):
        known = {name: value for name, value in fields.items() if value is not None}
        _logger.log(level, event, extra={"fields": known})


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Log an error that nobody expected: its type, and where it was raised.

    Its text stays out, as it may quote what a client sent.
    """
    log_event(event, level=logging.ERROR, error=type(error).__name__, stack=_stack(error), **fields)


def _stack(error: BaseException | None) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
