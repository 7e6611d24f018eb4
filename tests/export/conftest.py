"""Routers to export, and a process that has torch and not this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_select.selectors import KNNSelector, Selector


@pytest.fixture(scope="session")
def grouped_knn() -> Selector:
    """So many rows that they are searched group by group; of one domain there are fewer than vote."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2400, 8, generator=generator), dim=1)
    domain = torch.randint(13, (2400,), generator=generator)
    domain[:3] = 13
    labels = [f"m{i}" for i in torch.randint(4, (2400,), generator=generator).tolist()]
    qualities = torch.rand(2400, generator=generator, dtype=torch.float64)
    selector = KNNSelector(
        torch.cat([rows, torch.eye(14)[domain]], dim=1), labels, n_neighbors=5, qualities_N=qualities
    )
    assert selector.index.groups is not None
    return selector


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip where AOTInductor cannot compile."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs a C++ compiler")


_ALONE = """
import importlib.util, sys
sys.path.append({site!r})
found = importlib.util.find_spec("gpu_select") or importlib.util.find_spec("gpu_select_kernels")
"""


def _run_alone(code: str, *arguments: object, stdin: str = "") -> str:
    # without site there are no .pth files, through which an editable installation would be found
    code = _ALONE.format(site=str(Path(torch.__file__).parents[1])) + code
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="session")
def run_alone() -> Callable[..., str]:
    """Call with code, its arguments and stdin=: what a process prints that has torch and not this project.

    The code finds in `found` whether it has it after all.
    """
    if json.loads(_run_alone("import json; print(json.dumps(found is not None))")):
        pytest.skip("this project is installed beside torch, not as an editable one")
    return _run_alone


COMPARE = """
import json, torch
assert found is None
package = torch._inductor.aoti_load_package(sys.argv[1])
cases = torch.load(sys.argv[2], weights_only=True)
results = []
for case in cases:
    with torch.inference_mode():
        got = package(*case["inputs"])
    assert got["model"].dtype == torch.int64 and got["score"].dtype == got["margin"].dtype == torch.float32
    same = bool((got["model"] == case["model"]).all())
    gap = max(float((got[name] - case[name]).nan_to_num(0.0, 0.0, 0.0).abs().max()) for name in ("score", "margin"))
    results.append([len(case["model"]), same, gap])
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"results": results, "metadata": package.get_metadata(), "loaded": loaded}))
"""


@pytest.fixture(scope="session")
def compare_alone(run_alone: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Call with a package and (inputs, expected choice) cases: what that process finds, and what it has loaded."""

    def compare(package: Path, cases: list[tuple[Any, Any]]) -> Any:
        path = tmp_path_factory.mktemp("cases") / "cases.pt"
        torch.save([{"inputs": list(inputs), **choice} for inputs, choice in cases], path)
        return json.loads(run_alone(COMPARE, package, path))

    return compare


@pytest.fixture(scope="session")
def qwen3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Qwen3 with a BPE tokenizer."""
    from gpu_select.throughput import Shape, ensure_random_encoder

    shape = Shape("tiny", 64, 96, 3, 4, 2, 16, 700, max_position_embeddings=256)
    return Path(ensure_random_encoder(tmp_path_factory.mktemp("qwen3"), shape, corpus_bytes=100_000))
