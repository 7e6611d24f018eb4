"""Settings of all selectors by cross-validation."""

from __future__ import annotations

from gpu_select.training.tuning.search import Trial, Tuning, tune

__all__ = ["Trial", "Tuning", "tune"]
