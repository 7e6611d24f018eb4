"""The benchmark scripts as modules, on a model and sizes that take no time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gpu_select import throughput
from gpu_select.throughput import Shape, ensure_random_encoder, roof

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Call with a script's name."""
    for name in ("sentence_transformers", "sklearn"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for path in BENCH.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def saved(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What scripts save, by name; nothing is written."""
    documents: dict[str, Any] = {}
    common = script("common")
    monkeypatch.setattr(common, "save", lambda name, results: documents.update({name: common.environment() | results}))
    return documents


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a tiny random model is in."""
    folder = tmp_path_factory.mktemp("models")
    ensure_random_encoder(folder, TINY, corpus_bytes=100_000)
    return folder


TINY = Shape("tiny", 64, 96, 3, 4, 2, 16, 700, max_position_embeddings=256)


@pytest.fixture
def tiny(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Tiny models, roofs and corpora everywhere; the folder of the models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(throughput, "SMALL", TINY)
    monkeypatch.setattr("gpu_select.throughput.encoders.SMALL", TINY)
    monkeypatch.setattr("gpu_select.throughput.encoders.is_at_hand", lambda name: False)
    monkeypatch.setattr(roof, "_MIN_S", 0.001)
    monkeypatch.setattr(roof, "_SIZES", {"cpu": ((32, 32, 32),)})
    yield models
    torch.set_num_threads(before)
