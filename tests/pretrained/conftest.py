"""Routers of each kind with a tiny encoder, and one of them saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpu_select.router import Router


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory: pytest.TempPathFactory, routers: dict[str, Router]) -> Path:
    """A folder of saved routers, by algorithm."""
    folder = tmp_path_factory.mktemp("saved")
    for name, router in routers.items():
        router.save_pretrained(folder / name)
    return folder


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Call with an algorithm: a saved router that the test may change."""

    def copy(algorithm: str) -> Path:
        return Path(shutil.copytree(saved_once / algorithm, tmp_path / algorithm))

    return copy


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    for dotted, value in fields.items():
        *parents, last = dotted.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(document))


@pytest.fixture(scope="session")
def change() -> Callable[..., None]:
    """Call with a saved router's folder and fields of its config, `selector__dim=3`."""
    return _change
