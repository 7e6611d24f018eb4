"""`gpu-select route` with one output."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpu_select.commands import options
from gpu_select.commands.route_summary import advance, warn_of_rows

if TYPE_CHECKING:
    from gpu_select.pipeline import RouteOptions, RouteReport

__all__ = ["route_log"]


def route_log(
    files: Sequence[str],
    output: str,
    settings: RouteOptions,
    *,
    device: str,
    formats: tuple[str | None, str | None],
) -> RouteReport:
    """Route some files as one log into one output; `formats` are theirs where names do not tell."""
    from gpu_select.encoder import resolve_device
    from gpu_select.errors import ConfigError
    from gpu_select.files import STDIO
    from gpu_select.logs import open_logs, open_writer
    from gpu_select.pipeline.log_router import LogRouter

    if len(files) > 1 and output != STDIO and os.path.realpath(output) in map(os.path.realpath, files):
        # most often what an earlier run wrote beside its input
        raise ConfigError("output", output, "a file that is none of the input's")
    target = resolve_device(device)
    stop = threading.Event()
    with (
        open_logs(files, format=formats[0], needed=settings.needed_columns, stop=stop) as log,
        LogRouter(settings, target) as router,
        open_writer(
            output,
            format=formats[1],
            columns=router.kept_columns(log.columns),
            schema=router.kept_schema(log.schema),
            result_fields=router.result_fields,
            stop=stop,
        ) as out,
        options.progress_bar("routing", "row") as bar,
    ):
        report = router.route(log, out, progress=advance(bar), on_stop=stop.set)
    warn_of_rows(report, settings, without_domain=router.without_domain, result_fields=router.result_fields)
    return report
