"""Formats of logs by file name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from gpu_select.errors import ConfigError, GpuSelectError
from gpu_select.files import STDIO, strip_compression

__all__ = ["log_format"]

_BY_ENDING = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".parquet": "parquet",
}


def log_format(path: str, given: str | None, refuse: Callable[[str], GpuSelectError]) -> str:
    """One of `jsonl`, `csv`, `tsv`, `txt`, `parquet`: the one given, else by the name's ending; `-` is JSON lines.

    Args:
        path: a file name or `-`.
        given: a format's name, or None.
        refuse: makes the error for a name that says nothing.
    Raises:
        ConfigError: `given` is no format.
    """
    if given is not None and given not in _BY_ENDING.values():
        raise ConfigError("format", given, f"one of {', '.join(dict.fromkeys(_BY_ENDING.values()))}")
    plain, compression = strip_compression(path)
    log = given or ("jsonl" if path == STDIO else _BY_ENDING.get(PurePath(plain).suffix.lower()))
    if log is None:
        known = ", ".join(_BY_ENDING)
        raise refuse(f"{path}: unknown kind of log; expected a name that ends in {known} (plain, .gz or .zst)")
    if log == "parquet" and compression:
        raise refuse(f"{path}: Parquet is compressed inside; expected a name without {compression}")
    return log
