"""Logs as the pass over them leaves them, made from plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gpu_select.replay.log import LogCounts, ReplayedLog


def _make_log(
    quality: Any,
    *,
    time_s: Any = None,
    cost_usd: Any = None,
    models: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    choices: dict[str, Any] | None = None,
    logged: Any = None,
    realised: dict[str, Any] | None = None,
    group: Any = None,
) -> ReplayedLog:
    quality = torch.tensor(np.asarray(quality), dtype=torch.float32)
    Q, M = quality.shape
    names = list(dict.fromkeys(domains or ["law"]))

    def figure(values: Any) -> torch.Tensor:
        return (
            torch.full((Q, M), torch.nan) if values is None else torch.tensor(np.asarray(values), dtype=torch.float32)
        )

    return ReplayedLog(
        models=tuple(models or [f"m{m}" for m in range(M)]),
        domains=tuple(names),
        domain_Q=torch.tensor([names.index(name) for name in domains or ["law"] * Q]),
        figures={"quality": quality, "time_s": figure(time_s), "cost_usd": figure(cost_usd)},
        choices={name: torch.tensor(choice) for name, choice in (choices or {}).items()},
        logged_Q=torch.full((Q,), -1) if logged is None else torch.tensor(logged),
        realised={
            name: np.asarray((realised or {}).get(name, [np.nan] * Q), dtype=float)
            for name in ("quality", "time_s", "cost_usd")
        },
        group_Q=np.arange(Q) if group is None else np.asarray(group),
        row_Q=np.arange(Q),
        counts=LogCounts(rows=Q),
    )


@pytest.fixture(scope="session")
def make_log() -> Callable[..., ReplayedLog]:
    """Call with expected quality (Q, M), and perhaps time_s, cost_usd, models, domains, choices, logged, realised."""
    return _make_log
