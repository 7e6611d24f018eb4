from __future__ import annotations

import pathlib

import torch

from gpu_select.throughput import device_name


def test_a_cpu_is_named_with_its_threads():
    name = device_name(torch.device("cpu"))
    assert name.endswith(f", {torch.get_num_threads()} threads")
    assert not name.startswith(",")


def test_where_the_system_tells_no_name(monkeypatch):
    def fail(self, **_):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", fail)
    assert not device_name(torch.device("cpu")).startswith(",")


def test_another_device_is_named_by_its_type():
    assert device_name(torch.device("mps")) == "MPS"
