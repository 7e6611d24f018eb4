"""config.yaml as a frozen dataclass: decisions, the encoder and selector files behind them, endpoints, the gateway."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gpu_select.config.decisions import DecisionConfig, parse_decisions
from gpu_select.config.environment import expand
from gpu_select.config.gateway import GatewayConfig, parse_gateway
from gpu_select.config.models import ModelConfig, parse_models
from gpu_select.config.rules import parse_keyword_rules
from gpu_select.config.sections import Problems, Section
from gpu_select.errors import brief
from gpu_select.yamlio import load_yaml

__all__ = ["RouterConfig", "read_config"]


@dataclass(frozen=True)
class RouterConfig:
    """What a config.yaml says, with environment variables filled in."""

    path: str
    """The file, for errors."""
    decisions: tuple[DecisionConfig, ...]
    """In the file's order."""
    models_path: str | None = None
    """Folder of selector files; there is one where a decision has an algorithm."""
    encoder: str | None = None
    """Name, hub id or folder of the embedding model; None for the one that the selector files name."""
    default_decision: str | None = None
    """Where queries go that match no decision; at most one of the two defaults is set."""
    default_model: str | None = None
    endpoints: tuple[ModelConfig, ...] = ()
    """Where models are served. When there are any, every model that can be chosen has one."""
    gateway: GatewayConfig = field(default_factory=GatewayConfig)

    @property
    def by_preference(self) -> tuple[DecisionConfig, ...]:
        """The decisions in the order in which they are tried: the highest priority first, then the file's order."""
        return tuple(sorted(self.decisions, key=lambda decision: -decision.priority))

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that can be chosen, in the order of first mention."""
        names = [model for decision in self.decisions for model in decision.models]
        return tuple(dict.fromkeys([*names, *([self.default_model] if self.default_model else [])]))


def read_config(path: str | Path, *, serving: bool = False) -> RouterConfig:
    """Read config.yaml in the form of semantic-router's ML model selection.

    `${VAR}` inside any value stands for an environment variable.

    Args:
        path: a YAML file.
        serving: whether requests are to be sent on, so that every model needs an endpoint.

    Raises:
        InputError: the file cannot be read.
        ConfigError: broken YAML, or every problem of the settings with its path. What variables hold is never shown.
    """
    document = load_yaml(path)
    problems = Problems(str(path))
    top = Section(expand(document, problems.add_missing), "", problems)
    enabled, models_path = _model_selection(top)
    embedding_models = top.section("embedding_models")
    encoder = None
    if embedding_models is not None:
        encoder = embedding_models.text("qwen3_model_path")
        embedding_models.finish()
    top.choice("strategy", ("priority",))
    decisions = parse_decisions(top, parse_keyword_rules(top))
    if not enabled:
        decisions = tuple(replace(decision, algorithm=None) for decision in decisions)
    if models_path is None and any(decision.algorithm for decision in decisions):
        expected = "expected the folder of the selector files, got nothing"
        problems.add_missing("model_selection.ml.models_path", expected)
    default = top.text("default")
    names = {decision.name for decision in decisions}
    listed = top.take("endpoints")
    endpoints = () if listed is None and not serving else parse_models(listed, "endpoints", problems, expanded=True)
    config = RouterConfig(
        path=str(path),
        decisions=decisions,
        models_path=models_path,
        encoder=encoder,
        default_decision=default if default in names else None,
        default_model=default if default not in names else None,
        endpoints=endpoints,
        gateway=parse_gateway(top.section("gateway")),
    )
    if endpoints:
        _check_endpoints(config, problems)
    top.finish()
    problems.raise_if_any()
    return config


def _model_selection(top: Section) -> tuple[bool, str | None]:
    """Whether selectors choose, and the folder of their files."""
    selection = top.section("model_selection")
    if selection is None:
        return True, None
    enabled = selection.boolean("enabled") is not False
    ml = selection.section("ml")
    models_path = None
    if ml is not None:
        enabled = ml.boolean("enabled") is not False and enabled
        models_path = ml.text("models_path")
        ml.finish()
    selection.finish()
    return enabled, models_path


def _check_endpoints(config: RouterConfig, problems: Problems) -> None:
    served = {endpoint.name for endpoint in config.endpoints}
    expected = f"expected a model that an endpoint serves ({', '.join(sorted(served))})"
    for i, endpoint in enumerate(config.endpoints):
        if endpoint.endpoint is None:
            where = f"endpoints[{i}].endpoint"
            problems.add_missing(
                where, f"expected the http:// or https:// address of {brief(endpoint.name)}, got nothing"
            )
    for decision in config.decisions:
        for i, ref in enumerate(decision.model_refs):
            if ref.model and ref.model not in served:
                problems.add(f"{decision.where}.modelRefs[{i}].model", f"{expected}, got {brief(ref.model)}")
    if config.default_model is not None and config.default_model not in served:
        problems.add("default", f"{expected} or the name of a decision, got {brief(config.default_model)}")
