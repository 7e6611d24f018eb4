from __future__ import annotations

import time

import pytest
import torch

from gpu_select.throughput import copy_bandwidth, matmul_roof, roof

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(roof, "_MIN_S", 0.005)
    monkeypatch.setattr(roof, "_SIZES", {"cpu": ((64, 32, 48), (256, 128, 384))})
    monkeypatch.setattr(roof, "_COPY_BYTES", {"cpu": 2**20})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_roof_is_the_best_of_the_sizes(dtype):
    found = matmul_roof(CPU, dtype)
    assert found.size in ((64, 32, 48), (256, 128, 384))
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert 1e6 < found.flops_per_s < 1e15


def test_the_rate_counts_two_flops_a_multiplication(monkeypatch):
    seconds = {64: 1.0, 256: 8.0}
    monkeypatch.setattr(roof, "Linear", lambda b: lambda a: a @ b.T)
    monkeypatch.setattr(roof, "_seconds", lambda product, device: seconds[len(product())])
    found = matmul_roof(CPU, torch.float32)
    assert found == roof.Roof(2.0 * 256 * 128 * 384 / 8, (256, 128, 384), "float32")


def test_copies_count_reading_and_writing(monkeypatch):
    monkeypatch.setattr(roof, "_seconds", lambda run, device: 2.0)
    assert copy_bandwidth(CPU) == 2**20


def test_seconds_are_those_of_one_call():
    calls = 0

    def run():
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    assert 0.002 <= roof._seconds(run, CPU) < 0.02
    assert calls >= 3 * roof._REPEATS  # a repeat lasts 5 ms at least


def test_the_numbers_multiplied_are_random():
    values = roof._random(30, 40, CPU, torch.bfloat16)
    assert values.dtype == torch.bfloat16
    assert values.float().std() > 0.8
