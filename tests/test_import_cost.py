"""What loads when nobody routes yet: `import gpu_select` and the help text come at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "faiss",
    "huggingface_hub",
    "prometheus_client",
    "pyarrow",
    "ray",
    "torch",
    "transformers",
    "triton",
    "yaml",
}

REPORT = "\nimport sys, json; print('loaded', json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
IMPORT = "import gpu_select" + REPORT
HELP = (
    "import runpy, sys; sys.argv = ['gpu-select', '--help']\n"
    "try:\n    runpy.run_module('gpu_select', run_name='__main__')\n"
    "except SystemExit as stop:\n    assert not stop.code, stop.code" + REPORT
)
ROUTER = "import gpu_select\ngpu_select.Router" + REPORT


def run(code: str) -> tuple[str, set[str]]:
    """What the code printed, and the top-level names of all modules that it loaded."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    printed, _, loaded = process.stdout.rpartition("loaded ")
    return printed, set(json.loads(loaded))


def test_importing_the_package_loads_nothing_heavy():
    _, loaded = run(IMPORT)
    assert "gpu_select" in loaded
    assert loaded.isdisjoint(HEAVY | {"click", "numpy", "tqdm"})


def test_the_help_text_loads_nothing_heavy():
    printed, loaded = run(HELP)
    assert printed.startswith("Usage: ")
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["Router", "Routes"])
def test_the_router_loads_on_first_use(name):
    _, loaded = run(ROUTER.replace("Router", name))
    assert "torch" in loaded


def test_an_unknown_name_is_an_attribute_error():
    import gpu_select

    with pytest.raises(AttributeError, match="module 'gpu_select' has no attribute 'Ruoter'"):
        gpu_select.Ruoter  # noqa: B018 - the access is the test
