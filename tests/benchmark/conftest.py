from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_select.errors import IsolationError

ROOT = Path(__file__).parents[2]


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
