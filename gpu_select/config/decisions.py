"""Decisions: named rules with the models that may answer, and the selector that chooses among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gpu_select.config.rules import Junction, KeywordRule, Rule, parse_rule
from gpu_select.config.sections import Section
from gpu_select.errors import brief

__all__ = ["AlgorithmConfig", "DecisionConfig", "ModelRef", "parse_decisions"]

_MOST_DECISIONS = 1000
_MOST_MODELS = 10_000
_ALGORITHMS = ("knn", "kmeans", "svm", "mlp")


@dataclass(frozen=True)
class AlgorithmConfig:
    """Which selector chooses. What is None is as the selector's file has it."""

    type: Literal["knn", "kmeans", "svm", "mlp"]
    k: int | None = None
    """Rows that vote in KNN; other than the file's, it is honoured."""
    num_clusters: int | None = None
    """Clusters of KMeans; has to be the file's."""
    kernel: Literal["rbf", "linear"] | None = None
    """Kernel of the SVM; has to be the file's."""
    gamma: float | None = None
    """Width of the SVM's RBF kernel; has to be the file's."""


@dataclass(frozen=True)
class ModelRef:
    """A model that may answer."""

    model: str
    use_reasoning: bool | None = None
    """Read, and left to the client: requests go on as they are, but for the model."""


@dataclass(frozen=True)
class DecisionConfig:
    """A rule set with its candidates."""

    name: str
    where: str
    """Its path in the file, for errors."""
    rules: Rule
    model_refs: tuple[ModelRef, ...]
    priority: int = 0
    """The highest wins; among equals the one that stands first."""
    algorithm: AlgorithmConfig | None = None
    """Without one, the models are taken in the order of `modelRefs`."""
    description: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the candidates."""
        return tuple(ref.model for ref in self.model_refs)


def parse_decisions(top: Section, keyword_rules: Mapping[str, KeywordRule]) -> tuple[DecisionConfig, ...]:
    """The `decisions` of a configuration, in the file's order."""
    decisions = []
    for where, value in top.items("decisions", "decisions", least=1, most=_MOST_DECISIONS):
        section = Section(value, where, top.problems)
        rules = section.take("rules")
        if rules is None and isinstance(value, dict):
            cure = "an AND without conditions always holds"
            top.problems.add(
                section.path("rules"), f"expected a mapping with operator and conditions, got nothing; {cure}"
            )
        decisions.append(
            DecisionConfig(
                name=section.text("name", required=True) or "",
                where=where,
                rules=Junction("AND", ())
                if rules is None
                else parse_rule(rules, section.path("rules"), keyword_rules, section),
                model_refs=_model_refs(section),
                priority=section.integer("priority", 1_000_000_000, least=-1_000_000_000) or 0,
                algorithm=_algorithm(section),
                description=_description(section),
            )
        )
        section.finish()
    names = [decision.name for decision in decisions]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        top.problems.add("decisions", f"expected each name once, got {brief(name)} {names.count(name)} times")
    return tuple(decisions)


def _description(section: Section) -> str:
    value = section.take("description")
    if value is not None and not isinstance(value, str):
        section.expected("description", "a text")
    return value if isinstance(value, str) else ""


def _model_refs(section: Section) -> tuple[ModelRef, ...]:
    refs: dict[str, ModelRef] = {}
    for where, value in section.items("modelRefs", "models", least=1, most=_MOST_MODELS):
        ref = Section(value, where, section.problems)
        model = ref.text("model", required=True) or ""
        if model and model in refs:
            section.problems.add(ref.path("model"), f"expected each model once, got {brief(model)} again")
        refs[model] = ModelRef(model, ref.boolean("use_reasoning"))
        ref.finish()
    return tuple(refs.values())


def _algorithm(section: Section) -> AlgorithmConfig | None:
    algorithm = section.section("algorithm")
    if algorithm is None:
        return None
    kind = algorithm.choice("type", _ALGORITHMS, required=True)
    settings = algorithm.section(kind) if kind else None
    k = num_clusters = kernel = gamma = None
    if settings is not None:
        if kind == "knn":
            k = settings.integer("k", 1_000_000)
        elif kind == "kmeans":
            num_clusters = settings.integer("num_clusters", 1_000_000)
        elif kind == "svm":
            kernel, gamma = settings.choice("kernel", ("rbf", "linear")), settings.number("gamma", 1e6)
        else:  # one forward pass runs on one device, which the command names
            settings.choice("device", ("cpu", "cuda", "metal"))
        settings.finish()
    if kind:
        algorithm.finish()
    return AlgorithmConfig(cast(Any, kind or "knn"), k, num_clusters, cast(Any, kernel), gamma)
