"""Configuration files as frozen dataclasses: unknown keys are refused, all problems come at once with their paths."""

from __future__ import annotations

from gpu_select.config.models import ModelConfig, read_models

__all__ = ["ModelConfig", "read_models"]
