"""A server of models in another process, and benchmarks of it."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("aiohttp")

PROGRAM = Path(__file__).with_name("model_server.py")


@pytest.fixture(scope="session")
def model_server() -> ModuleType:
    """The module model_server.py."""
    spec = importlib.util.spec_from_file_location(PROGRAM.stem, PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PROGRAM.stem] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Server:
    """A running model_server.py."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def log(self) -> dict[str, Any]:
        return json.loads(self._ask("GET", "/log"))

    def calls(self) -> list[dict[str, Any]]:
        return self.log()["calls"]

    def reset(self) -> None:
        self._ask("POST", "/reset")

    def _ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().read()


@contextlib.contextmanager
def _serve(*options: object) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Call with the options of model_server.py: a server of one's own, as a context manager."""
    return _serve


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with _serve() as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Server:
    """A server that answers at once, and only fails where a prompt says so; its log is empty."""
    _server.reset()
    return _server


def _write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_lines() -> Callable[[Path, Iterable[Any]], Path]:
    """Call with a path and rows: writes one JSON value a line, returns the path."""
    return _write_lines


@pytest.fixture(scope="session")
def read_lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Call with a path: the JSON values of its lines."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
