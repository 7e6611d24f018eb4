"""`gpu-select route --engine ray` with two actors of a real cluster on this machine."""

from __future__ import annotations

import json
import os
import queue
import signal
import time

import pytest

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'gpu-select[ray]'")

from gpu_select.pipeline import RouteOptions  # noqa: E402
from gpu_select.ray_data import worker as ray_worker  # noqa: E402 - needs Ray
from gpu_select.ray_data.cluster import RaySeat, ray_seats  # noqa: E402
from gpu_select.ray_data.worker import RayWorker  # noqa: E402
from gpu_select.shards import Job, RunFolder  # noqa: E402
from gpu_select.shards.run import run_shards  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def log(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def route(cli, log, router_options):
    """Call with a folder for the shards and more options: `gpu-select route` of the log in shards of 30 rows."""

    def route(folder, *more):
        return cli(
            *("route", "--input", log, "--output", folder, "--shard-rows", 30),
            *("--models-dir", router_options["models_dir"], "--embedding-model", router_options["embedding_model"]),
            *("--device", "cpu", *more),
        )

    return route


@pytest.fixture(scope="module")
def expected(route, tmp_path_factory):
    """What a run on this machine, with one process, leaves in its folder."""
    folder = tmp_path_factory.mktemp("local")
    done = route(folder, "--workers", 1)
    assert done.status == 3, done.err
    return files_in(folder)


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_actors_leave_the_folder_that_one_process_leaves_byte_for_byte(cluster, route, expected, tmp_path):
    done = route(tmp_path, "--engine", "ray", "--workers", 2)
    assert done.status == 3, done.err
    assert "routed 392 of 400 rows" in done.err
    assert files_in(tmp_path) == expected
    # a shard that is missing is made by the same command, whichever engine wrote the others
    (tmp_path / "part-00005.jsonl").unlink()
    done = route(tmp_path, "--engine", "ray", "--workers", 2)
    assert "(370 of them before)" in done.err
    assert files_in(tmp_path) == expected


def test_the_shard_of_an_actor_that_is_killed_goes_to_another(cluster, log, router_options, expected, tmp_path):
    killed = []

    class Killed(RayWorker):
        def route(self, shard):
            super().route(shard)
            if shard.number >= 4 and not killed:
                killed.append(ray.get(self._actor.__ray_call__.remote(lambda _: os.getpid())))
                os.kill(killed[0], signal.SIGKILL)

    options = RouteOptions(
        models=router_options["models_dir"], algorithm="knn", embedding_model=router_options["embedding_model"]
    )
    job = Job.of(options, [str(log)], str(tmp_path), 30)
    with RunFolder(job) as folder:
        outcome = run_shards(job, folder, ray_seats("cpu", 2), start=Killed)
    assert len(killed) == 1
    assert outcome.failed == {}
    assert outcome.report.rows == 400
    assert files_in(tmp_path) == expected


def test_how_an_actor_ended_is_told(cluster, log, router_options, tmp_path, caplog):
    class Killed(RayWorker):
        def route(self, shard):
            super().route(shard)
            if shard.number == 0:
                ray.kill(self._actor)

    options = RouteOptions(
        models=router_options["models_dir"], algorithm="knn", embedding_model=router_options["embedding_model"]
    )
    job = Job.of(options, [str(log)], str(tmp_path), 200)
    with RunFolder(job) as folder:
        outcome = run_shards(job, folder, ray_seats("cpu", 2)[:1], start=Killed)
    assert list(outcome.failed) == [0]
    assert outcome.failed[0].startswith("ended: The actor is dead because ")
    assert "\n" not in outcome.failed[0]
    assert any(message.startswith("part-00000.jsonl failed twice (Ray worker 0: ") for message in caplog.messages)


def test_an_actor_that_nothing_is_free_for_is_told_of(cluster, log, router_options, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(ray_worker, "_PATIENCE_S", 1)
    options = RouteOptions(models=router_options["models_dir"], algorithm="knn", embedding_field="v")
    replies: queue.SimpleQueue = queue.SimpleQueue()
    worker = RayWorker(
        Job.of(options, [str(log)], str(tmp_path / "out"), 30), RaySeat("Ray worker 7", "cpu", {}, 99), replies, 0
    )
    until = time.monotonic() + 30
    while not caplog.messages and time.monotonic() < until:
        time.sleep(0.05)
    worker.kill()
    assert replies.get(timeout=10) == (worker, None)
    (message,) = caplog.messages
    assert message.startswith("Ray worker 7 has not begun after 1 s: it waits for 99 CPUs and 0 GPUs, or its router ")


def test_what_keeps_a_router_from_being_loaded_is_one_line(cluster, route, tmp_path):
    done = route(tmp_path / "out", "--engine", "ray", "--workers", 2, "--candidates", "x")
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("error: candidates: ")
    assert not (tmp_path / "out").exists()
