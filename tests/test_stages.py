from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch

from gpu_select.stages import STAGES, StageTimes

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def test_nothing_has_taken_any_time_yet():
    assert StageTimes().seconds() == dict.fromkeys(STAGES, 0.0)


@pytest.mark.parametrize("timing", ["host", "on_device"])
def test_blocks_add_up_by_stage(timing):
    times = StageTimes()
    for stage, pause_s in (("read", 0.02), ("encode", 0.01), ("read", 0.03)):
        with times.host(stage) if timing == "host" else times.on_device(stage, CPU):
            time.sleep(pause_s)
    seconds = times.seconds()
    assert 0.05 <= seconds["read"] < 0.5
    assert 0.01 <= seconds["encode"] < 0.5
    assert seconds["write"] == 0


def test_a_block_that_raises_has_taken_its_time():
    times = StageTimes()
    with pytest.raises(ValueError, match="mine"), times.host("write"):
        raise ValueError("mine")
    assert times.seconds()["write"] > 0


def test_what_is_handed_out_is_a_copy():
    times = StageTimes()
    times.seconds()["read"] = 7.0
    assert times.seconds()["read"] == 0


def test_an_unknown_stage_is_our_own_bug():
    with pytest.raises(KeyError), StageTimes().host("lunch"):
        pass


def test_threads_lose_nothing(monkeypatch):
    clock = itertools.count()  # each look at it is a second later, so a block takes whole seconds
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    times = StageTimes()

    def work():
        for _ in range(2000):
            with times.host("read"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = times.seconds()["read"]
    assert seconds >= 8000
    assert seconds == int(seconds)


def test_blocks_that_overlap_add_up_to_more_than_the_clock():
    times = StageTimes()
    start = time.perf_counter()
    with times.host("read"), times.host("write"):
        time.sleep(0.05)
    assert sum(times.seconds().values()) > 1.5 * (time.perf_counter() - start)


# ---------------------------------------------------------------- CUDA, with a device that is none


class FakeDevice:
    """Work that is enqueued takes as long as told; nothing is done before it is waited for."""

    def __init__(self) -> None:
        self.enqueued_ms = 0.0
        self.done_ms = 0.0
        self.streams: list[str] = []
        self.n_waits = 0

    def event(self, enable_timing: bool):
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def record(self, stream) -> None:
        self.device.streams.append(stream)
        self.at_ms = self.device.enqueued_ms

    def query(self) -> bool:
        return self.at_ms <= self.device.done_ms

    def synchronize(self) -> None:
        self.device.n_waits += not self.query()
        self.device.done_ms = max(self.device.done_ms, self.at_ms)

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.query()
        assert end.query()
        return end.at_ms - self.at_ms


@pytest.fixture
def device(monkeypatch):
    fake = FakeDevice()
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return fake


def test_on_cuda_the_devices_time_counts_and_nobody_waits_before_the_end(device):
    times = StageTimes()
    for stage, ms in (("encode", 300.0), ("select", 20.0), ("encode", 400.0)):
        with times.on_device(stage, CUDA):
            device.enqueued_ms += ms
    assert device.n_waits == 0
    seconds = times.seconds()
    assert seconds["encode"] == pytest.approx(0.7)
    assert seconds["select"] == pytest.approx(0.02)
    assert sum(seconds.values()) == pytest.approx(0.72)
    assert times.seconds() == seconds  # counted once
    assert set(device.streams) == {"stream of cuda:1"}


def test_a_block_that_raises_counts_nothing_on_cuda(device):
    times = StageTimes()
    with pytest.raises(RuntimeError, match="out of memory"), times.on_device("encode", CUDA):
        raise RuntimeError("out of memory")
    assert times.seconds()["encode"] == 0


def test_a_long_log_does_not_gather_events(device):
    times = StageTimes()
    for _ in range(1000):
        with times.on_device("encode", CUDA):
            device.enqueued_ms += 10
        device.done_ms = device.enqueued_ms - 30  # the device is three blocks behind
    assert device.n_waits == 0
    assert len(times._events) <= 4
    assert times.seconds()["encode"] == pytest.approx(10.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_device_the_kernels_are_timed_and_not_their_launch():
    times, cuda = StageTimes(), torch.device("cuda")
    x = torch.randn(8192, 8192, device=cuda)
    x @ x
    torch.cuda.synchronize()
    start = time.perf_counter()
    with times.on_device("encode", cuda):
        for _ in range(20):
            x @ x
    launched_s = time.perf_counter() - start
    seconds = times.seconds()["encode"]
    done_s = time.perf_counter() - start
    assert launched_s < 0.5 * seconds
    assert seconds == pytest.approx(done_s, rel=0.2)
