"""On a real Ray that runs on this machine."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="needs ray[serve]")

ROOT = Path(__file__).parents[2]
TEXTS = ["what is the number of the city", "explain the law", "solve", "how many cells"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(saved):
    import ray
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("ROUTER", str(saved))
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "kernels", "examples"))
    runtime = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}}
    patch.syspath_prepend(str(ROOT / "examples"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=runtime)
    try:
        import serve_ray

        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(serve_ray.app)
        yield f"http://127.0.0.1:{port}/"
    finally:
        serve.shutdown()
        ray.shutdown()
        patch.undo()


def ask(url, query):
    request = urllib.request.Request(url, json.dumps(query).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_decides_as_the_router(url, router):
    expected = [next(iter(router.route([text], ["law"]).rows())) for text in TEXTS]
    with ThreadPoolExecutor(16) as pool:
        queries = [{"query": TEXTS[i % 4], "domain": "law"} for i in range(64)]
        answers = list(pool.map(lambda query: ask(url, query), queries))
    for i, (status, row) in enumerate(answers):
        assert status == 200
        assert row["model"] == expected[i % 4]["model"]
        assert row["score"] == pytest.approx(expected[i % 4]["score"], abs=1e-5)


def test_a_bad_query_does_not_spoil_its_batch(url, router):
    good = next(iter(router.route([TEXTS[0]]).rows()))["model"]
    bad = [{"query": "x", "domain": "cooking"}, {"query": ""}, {}]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda query: ask(url, query), [{"query": TEXTS[0]}, *bad] * 4))
    for i, (status, row) in enumerate(answers):
        if i % 4 == 0:
            assert (status, row["model"], row["error"]) == (200, good, None)
        else:
            assert status == 422
            assert "expected" in row["error"]
