"""A saved router, and the examples as files that somebody copied."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gpu_select.encoder import load_encoder
from gpu_select.router import Router

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def router(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path, write_tiny_models: Callable[..., Path]
) -> Router:
    """KMeans with a tiny encoder."""
    folder = write_tiny_models(tmp_path_factory.mktemp("models"), {})
    encoder = load_encoder(str(tiny_encoder_path))
    return Router.from_pretrained(folder, encoder=encoder, algorithm="kmeans")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, router: Router) -> Path:
    """The same as a folder."""
    folder = tmp_path_factory.mktemp("saved")
    router.save_pretrained(folder)
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Call with an example's name: the module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
