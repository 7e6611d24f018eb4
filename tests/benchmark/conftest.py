"""Isolation of this system, a server of models in another process, and benchmarks of it."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpu_select.errors import IsolationError

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("model_server.py")


@pytest.fixture(scope="session")
def isolation() -> Any:
    """The strongest isolation of this system."""
    if sys.platform != "linux":
        pytest.skip("code is isolated on Linux only")
    from gpu_select.benchmark.sandbox.finding import find_isolation

    try:
        return find_isolation()
    except IsolationError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def weaker_isolation(isolation: Any) -> Any:
    """Call with namespaces= and landlock=: an isolation by those alone, tried."""
    from gpu_select.benchmark.sandbox.confinement import Confinement
    from gpu_select.benchmark.sandbox.finding import what_gets_out
    from gpu_select.benchmark.sandbox.isolation import Isolation

    def build(*, namespaces: bool, landlock: bool) -> Any:
        python, readable = sys.executable, isolation.confinement.readable
        if not namespaces and os.geteuid() == 0 and not _all_can_read(readable):
            python, readable = _readable_python()
        found = Isolation(Confinement(namespaces, landlock, isolation.confinement.uid, readable), python)
        if fault := what_gets_out(found):
            pytest.skip(f"this system does not isolate so: {fault}")
        return found

    return build


def _all_can_read(paths: tuple[str, ...]) -> bool:
    folders = {folder for path in paths for folder in (Path(path), *Path(path).parents)}
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in folders if folder.is_dir())


def _readable_python() -> tuple[str, tuple[str, ...]]:
    """A Python that is not in somebody's home, and the paths of its library."""
    code = (
        "import json, sys\nfrom gpu_select.benchmark.sandbox.finding import readable_paths\n"
        "print(json.dumps([sys.version_info >= (3, 11), readable_paths()]))"
    )
    for python in ("/usr/local/bin/python3", "/usr/bin/python3"):
        if os.access(python, os.X_OK):
            out = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stdout
            is_new, paths = json.loads(out) if out else (False, [])
            if is_new and _all_can_read(tuple(paths)):
                return python, tuple(paths)
    pytest.skip("needs a Python of 3.11 or newer that every user can read")


@pytest.fixture(scope="session")
def model_server() -> ModuleType:
    """The module model_server.py."""
    pytest.importorskip("aiohttp")
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
    pytest.importorskip("aiohttp")
    return _serve


@pytest.fixture(scope="session")
def _server(serve: Callable[..., contextlib.AbstractContextManager[Server]]) -> Iterator[Server]:
    with serve() as server:
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
