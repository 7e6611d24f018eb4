"""Configuration files as frozen dataclasses: unknown keys are refused, all problems come at once with their paths."""

from __future__ import annotations

from gpu_select.config.decisions import AlgorithmConfig, DecisionConfig, ModelRef
from gpu_select.config.gateway import BatchingConfig, BreakerConfig, GatewayConfig, UpstreamConfig
from gpu_select.config.models import ModelConfig, read_models
from gpu_select.config.router import RouterConfig, read_config
from gpu_select.config.rules import DomainCondition, Junction, KeywordCondition, KeywordRule, Rule

__all__ = [
    "AlgorithmConfig",
    "BatchingConfig",
    "BreakerConfig",
    "DecisionConfig",
    "DomainCondition",
    "GatewayConfig",
    "Junction",
    "KeywordCondition",
    "KeywordRule",
    "ModelConfig",
    "ModelRef",
    "RouterConfig",
    "Rule",
    "UpstreamConfig",
    "read_config",
    "read_models",
]
