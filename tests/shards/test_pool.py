"""Where processes compute, and one real process."""

from __future__ import annotations

import os
import queue
import sys

import pytest
import torch

from gpu_select.errors import ConfigError, DeviceError
from gpu_select.pipeline import FEW_SHAPES, SAME_BITS
from gpu_select.shards import RunFolder, plan_shards
from gpu_select.shards.pool import Seat, Worker, seats


@pytest.fixture
def machine(monkeypatch):
    """Call with GPUs, cores and CUDA_VISIBLE_DEVICES: a machine that has them."""

    def make(n_gpus, n_cores=8, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(n_cores), raising=False)
        for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES", *FEW_SHAPES):
            monkeypatch.delenv(name, raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def gpus(found):
    return [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in found]


def test_one_process_a_gpu(machine):
    machine(3)
    found = seats("cuda", None)
    assert gpus(found) == ["0", "1", "2"]
    assert {seat.device for seat in found} == {"cuda"}
    assert {seat.environment["OMP_NUM_THREADS"] for seat in found} == {"2"}
    assert [seat.name for seat in found] == ["worker 0 (GPU 0)", "worker 1 (GPU 1)", "worker 2 (GPU 2)"]
    assert gpus(seats("auto", None)) == ["0", "1", "2"]


def test_fewer_and_more_processes_than_gpus(machine):
    machine(3)
    assert gpus(seats("cuda", 2)) == ["0", "1"]
    assert gpus(seats("cuda", 5)) == ["0", "1", "2", "0", "1"]
    assert gpus(seats("cuda:1", None)) == ["1"]
    assert gpus(seats("cuda:1", 2)) == ["1", "1"]


def test_gpus_are_called_as_the_environment_calls_them(machine):
    machine(2, visible="GPU-aa, GPU-bb")
    assert gpus(seats("cuda", None)) == ["GPU-aa", "GPU-bb"]
    assert gpus(seats("cuda:1", None)) == ["GPU-bb"]


@pytest.mark.parametrize(("workers", "threads"), [(None, "8"), (1, "8"), (3, "2"), (20, "1")])
def test_processes_on_the_cpu_share_its_cores(machine, workers, threads):
    machine(0)
    found = seats("cpu", workers)
    expected = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, **FEW_SHAPES, **SAME_BITS}
    assert [(seat.device, seat.environment) for seat in found] == [("cpu", expected)] * (workers or 1)


def test_the_users_own_number_of_threads_stays(machine, monkeypatch):
    machine(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = seats("cpu", 2)[0].environment
    assert (environment["OMP_NUM_THREADS"], environment["RAYON_NUM_THREADS"]) == ("3", "4")


def test_what_there_is_not(machine):
    machine(1)
    with pytest.raises(DeviceError, match=r"^device cuda:3: PyTorch sees 1 CUDA devices on this machine"):
        seats("cuda:3", None)
    with pytest.raises(ConfigError, match=r"^workers: expected at most 1024, got 1025$"):
        seats("cpu", 1025)


def test_a_process_that_cannot_be_started(job_of, write_log, embedded_rows, monkeypatch):
    job = job_of(write_log("log.jsonl", embedded_rows(1)))
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with (
        RunFolder(job) as folder,
        pytest.raises(DeviceError, match=r"^cannot start the process of worker 0: No such fi"),
    ):
        Worker(job, Seat("worker 0", "cpu"), queue.SimpleQueue(), folder.lock)


def test_a_real_process_routes_says_what_is_wrong_and_ends_when_nobody_is_left(
    job_of, write_log, embedded_rows, read_parts, tmp_path
):
    path = write_log("log.jsonl", embedded_rows(25))
    job = job_of(path)
    replies: queue.SimpleQueue = queue.SimpleQueue()
    with RunFolder(job) as folder:
        worker = Worker(job, Seat("worker 0", "cpu"), replies, folder.lock)

        def reply():
            sender, said = replies.get(timeout=120)
            assert sender is worker
            return said

        ready = reply()["ready"]
        assert ready["router"]["device"] == "cpu"
        assert ready["versions"]["torch"] == torch.__version__
        first, second, third = plan_shards(job)
        worker.route(first)
        worker.route(third)
        assert reply() == {"rows": 10, "tokens": 0}
        done = reply()["done"]
        assert (done["record"]["number"], done["record"]["rows"]) == (0, 10)
        assert [name for name, _ in done["stage_seconds"].items()]
        assert reply() == {"rows": 5, "tokens": 0}
        assert reply()["done"]["record"]["number"] == 2
        path.write_text("")
        worker.route(second)
        assert reply() == {"stop": f"cannot read {path}: it has changed while it was read", "file": 0}
        worker._process.stdin.close()
        assert reply() is None
        assert worker.ending == "ended with status 0"
        worker.kill()
    assert [len(rows) for rows in read_parts(tmp_path / "out")] == [10, 5]
