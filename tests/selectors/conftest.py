"""Deciding by a document as it would stand in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gpu_select.artifacts import load_selector
from gpu_select.selectors import choose


@pytest.fixture(scope="session")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Call with a document, (B, D) features and optionally candidates= and backend=: the model for each query."""
    path = tmp_path_factory.mktemp("selectors") / "selector.json"

    def by_file(
        document: dict[str, Any],
        features_BD: np.ndarray,
        candidates: Sequence[str] | None = None,
        backend: Any = "torch",
    ) -> list[str]:
        path.write_text(json.dumps(document), encoding="utf-8")
        selector = load_selector(path, backend=backend).selector
        mask = None if candidates is None else selector.candidate_mask(candidates)
        choice = choose(selector(torch.from_numpy(features_BD), mask))
        assert torch.isfinite(choice.score).all()
        assert (choice.margin >= 0).all()
        return [selector.models[m] for m in choice.model.tolist()]

    return by_file
