"""The progress of a benchmark on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from gpu_select.benchmark.progress import Progress
from gpu_select.commands import options

__all__ = ["ShownProgress"]

_LINE_S = 30.0


class ShownProgress:
    """Shows what it is told.

    Args:
        shown: show progress; warnings come in any case.
    """

    def __init__(self, *, shown: bool) -> None:
        self._is_shown = shown
        self._progress: Progress | None = None
        self._bar: Any = None
        self._last_line = 0.0

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._is_shown and self._progress is not None and self._progress.made:
            click.echo(self._progress.line(), err=True)

    def begin(self, progress: Progress, answered: int) -> None:
        """Calls are about to be made."""
        if answered:
            click.echo(f"{answered} of {answered + progress.total} answers are there already", err=True)
        if not self._is_shown or not progress.total:
            return
        self._progress = progress
        self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=progress.total, desc="calls", unit="call", dynamic_ncols=True)

    def change(self) -> None:
        """Bring the bar up to date, or write a line if the last one is old."""
        progress = self._progress
        if progress is None:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(progress.errors(), refresh=False)
            self._bar.update(progress.made - self._bar.n)
            return
        progress.rate()
        now = time.monotonic()
        if now - self._last_line >= _LINE_S:
            self._last_line = now
            click.echo(progress.line(), err=True)

    def say(self, text: str) -> None:
        """One line, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        options.warn(text)
        if self._bar is not None:
            self._bar.refresh()
