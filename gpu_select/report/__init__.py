"""One self-contained HTML page from what `gpu-select validate`, `tune` and `replay` write as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpu_select.errors import ConfigError
from gpu_select.files import STDIO, atomic_write, check_target
from gpu_select.report.page import render
from gpu_select.report.replay import read_replay
from gpu_select.report.tuning import read_tuning
from gpu_select.report.validation import read_validation

__all__ = ["write_report"]


def write_report(validations: Sequence[str], tunings: Sequence[str], replays: Sequence[str], output: str) -> int:
    """Read JSON files and write the page.

    Args:
        validations: files of `gpu-select validate --json`.
        tunings: the JSON files of `gpu-select tune`.
        replays: files of `gpu-select replay --json`.
        output: the page's name.
    Returns:
        The page's size in bytes.
    Raises:
        ConfigError: no file is given, or `output` is one of them.
        InputError, FileFormatError: a file that cannot be read or is not what it should be.
        OutputError: the page cannot be written.
        MissingDependencyError: plotly is not installed.
    """
    if not (validations or tunings or replays):
        expected = "a file of gpu-select validate --json, or --tuning with one of tune, or --replay with one of replay"
        raise ConfigError("--validation", None, expected)
    for path in (*validations, *tunings, *replays):
        if path != STDIO and output != STDIO and Path(path).resolve() == Path(output).resolve():
            raise ConfigError("--output", output, "a file other than those that are read")
    check_target(output)
    validated, tuned = [read_validation(path) for path in validations], [read_tuning(path) for path in tunings]
    page = render(validated, tuned, [read_replay(path) for path in replays]).encode("utf-8")
    with atomic_write(output) as stream:
        stream.write(page)
    return len(page)
