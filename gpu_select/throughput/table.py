"""Measured throughput as a table for people, and as plain values for files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpu_select.stages import STAGES
from gpu_select.throughput.measure import Throughput

__all__ = ["as_dict", "table"]


def as_dict(result: Throughput) -> dict[str, Any]:
    """All figures of a measurement, derived ones included."""
    return asdict(result) | {
        "mean_tokens": result.tokens / result.queries,
        "tokens_per_s": result.tokens_per_s,
        "queries_per_s": result.queries_per_s,
        "utilisation": result.utilisation,
        "stage_shares": {stage: seconds / result.seconds for stage, seconds in result.stage_seconds.items()},
    }


def table(results: Mapping[str, Throughput]) -> list[str]:
    """Lines: what each log gave, then its time by stage.

    Args:
        results: by the log's name.
    """
    width = max(map(len, [*results, "log"]))
    lines = [f"{'log':{width}}   queries  mean tokens    tokens/s  queries/s  of the roof  peak memory    seconds"]
    for name, r in results.items():
        memory = "-" if r.peak_bytes is None else f"{r.peak_bytes / 2**30:.2f} GiB"
        lines.append(
            f"{name:{width}}  {r.queries:8,}  {r.tokens / r.queries:11.1f}  {r.tokens_per_s:10,.0f}  "
            f"{r.queries_per_s:9,.0f}  {r.utilisation:11.1%}  {memory:>11}  {r.seconds:9.2f}"
        )
    lines += ["", "seconds by stage, and their share of the time that passed (stages overlap):"]
    lines.append(f"{'log':{width}}" + "".join(f"  {stage:>15}" for stage in STAGES))
    for name, r in results.items():
        parts = (f"  {r.stage_seconds[s]:8.3f} {r.stage_seconds[s] / r.seconds:6.1%}" for s in STAGES)
        lines.append(f"{name:{width}}" + "".join(parts))
    return lines
