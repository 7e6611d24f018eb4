"""The scripts that start clusters and kill processes: in a process of their own, on logs that take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, json, sys
import common
path, name, changes, *sys.argv = sys.argv[1:]
module = importlib.import_module(name)
vars(module).update(json.loads(changes))
module.save = lambda name, results: open(path, "w").write(json.dumps({name: results}))
module.main()
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


@pytest.fixture
def measured(tmp_path, minilm_path):
    """Call with a script, constants to change and options: the document that it saves."""

    def run(script, changes, *options):
        pytest.importorskip("pyarrow")
        path = tmp_path / "saved.json"
        paths = os.pathsep.join(map(str, (ROOT / "bench", ROOT, ROOT / "kernels")))
        done = subprocess.run(
            [sys.executable, "-c", CODE, path, script, json.dumps(changes), f"{script}.py", *map(str, options)],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (document,) = json.loads(path.read_text()).values()
        return document

    return run


def test_shards(measured):
    results = measured("sharded", {"REPEATS": 1}, "--rows", 2000, "--kills", 2)["results"]
    assert all(way["rows_per_second"] > 0 for way in results["overhead"].values())
    for peaks in results["memory"].values():
        assert peaks["ratio"] == pytest.approx(peaks["peak_mib_2000_rows"] / peaks["peak_mib_200_rows"])
    kills = results["kills"]
    assert (kills["kills"], kills["processes_left_after_2_s"]) == (2, 0)
    assert kills["ends_equal_byte_for_byte"] >= 1


def test_ray(measured):
    pytest.importorskip("ray")
    document = measured("ray_route", {}, "--rows", 400, "--shard-rows", 100, "--repeats", 1)
    ways = document["results"]
    assert {*ways} == {"local", "actors", "dataset"}
    actors, local = (ways[way]["rows_per_second"][0] for way in ("actors", "local"))
    assert document["ratios"]["rows_per_second"]["actors"] == pytest.approx(actors / local)
