from __future__ import annotations

import pytest
import torch

from gpu_select.exporting import may_count


@pytest.mark.parametrize(("version", "expected"), [("2.13.0+cpu", True), ("2.11.0", False), ("3.0.1a0", True)])
def test_only_an_export_on_a_cpu_by_a_torch_that_can_counts(monkeypatch, version, expected):
    monkeypatch.setattr(torch, "__version__", version)
    here, there = torch.zeros(1), torch.zeros(1, device="meta")
    assert not may_count(here)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert may_count(here) == expected
    assert not may_count(there)
