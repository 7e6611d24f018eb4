"""What shapes the selectors: the settings that `train` takes and `tune` chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from gpu_select.errors import ConfigError, brief
from gpu_select.training.mlp import MLPSettings
from gpu_select.yamlio import load_yaml

__all__ = ["KMeansSettings", "KNNSettings", "SVMSettings", "TrainOptions", "read_settings"]


@dataclass(frozen=True)
class KNNSettings:
    """One row a query votes for the model that is expected to serve it best."""

    k: int = 5
    """Rows that vote, one a query."""
    domain_weight: float = 1.0
    """Another domain adds 2 * domain_weight to a squared distance; 1 is the format's one-hot as it is."""
    gamma: float = 2.0
    """Width of the kernel in the regression that gives the labels."""
    ridge: float = 3.0
    """That regression's ridge: so many outcomes on one spot count as much as the belief that it is like its domain."""


@dataclass(frozen=True)
class KMeansSettings:
    """A cluster's model is the one with the largest mean gain, shrunk."""

    clusters: int = 8
    """Clusters at most."""
    domain_weight: float = 1.0
    """As for KNN."""
    shrinkage: float = 24.0
    """Outcomes that the regression's estimate counts for in a cluster's mean."""
    gamma: float = 1.0
    """Width of the kernel in the regression that clusters are shrunk to."""
    ridge: float = 10.0
    """That regression's ridge."""


@dataclass(frozen=True)
class SVMSettings:
    """A machine a model, weighted by what choosing the model is expected to gain or lose."""

    kernel: Literal["rbf", "linear"] = "rbf"
    """rbf or linear."""
    gamma: float = 1.0
    """Width of the RBF kernel on unit vectors."""
    c: float = 3.0
    """Bound of a coefficient, times the query's weight."""
    domain_weight: float = 1.0
    """As for KNN."""
    label_gamma: float = 2.0
    """Width of the kernel in the regression that says what is to be gained."""
    label_ridge: float = 3.0
    """That regression's ridge."""


@dataclass(frozen=True)
class TrainOptions:
    """The settings of all selectors, and what they share. Every problem is reported at once."""

    knn: KNNSettings = field(default_factory=KNNSettings)
    kmeans: KMeansSettings = field(default_factory=KMeansSettings)
    svm: SVMSettings = field(default_factory=SVMSettings)
    mlp: MLPSettings = field(default_factory=MLPSettings)
    quality_weight: float = 0.9
    """w in utility = w * performance + (1 - w) * speed."""
    seed: int = 0
    """The same seed gives the same files, byte for byte."""

    def __post_init__(self) -> None:
        problems = [problem for name in _GROUPS for problem in _problems(f"{name}.", getattr(self, name))]
        problems += _problems("", self)
        if problems:
            raise ConfigError.joined(problems)

    def changed(self, values: Mapping[str, object], where: str = "") -> TrainOptions:
        """These options with some values replaced.

        Args:
            values: {"knn": {"k": 100}, "seed": 1}, as `as_mapping` gives it; parts of it are enough.
            where: stands before the names in errors, such as a file's.

        Raises:
            ConfigError: unknown names and values that cannot work, all at once.
        """
        problems: list[str] = []
        out: dict[str, Any] = {}
        for name, value in values.items():
            if name in _GROUPS:
                if not isinstance(value, Mapping):
                    problems.append(str(ConfigError(name, value, "a mapping of settings")))
                    continue
                group = getattr(self, name)
                taken = {f.name for f in fields(group)}
                problems += [_unknown(f"{name}.{key}", taken) for key in value if key not in taken]
                known = {key: _as_field(v) for key, v in value.items() if key in taken}
                out[name] = replace(group, **known)
                problems += _problems(f"{name}.", out[name])
            elif name in _SINGLE:
                out[name] = value
                problems += _problem("", name, value)
            else:
                problems.append(_unknown(str(name), {*_GROUPS, *_SINGLE}))
        if not problems:
            return replace(self, **out)
        raise ConfigError.joined([f"{where}: {problem}" if where else problem for problem in problems])

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, such as JSON and YAML have: what `changed` takes."""
        values = asdict(self)
        values["mlp"]["hidden_sizes"] = list(self.mlp.hidden_sizes)
        return values


def read_settings(path: str | Path) -> TrainOptions:
    """Options from a YAML file, such as `gpu-select tune` writes; what it does not name keeps its default.

    Raises:
        InputError: missing or unreadable.
        ConfigError: not YAML, unknown names, values that cannot work; all at once, with the file.
    """
    values = load_yaml(path)
    if not isinstance(values, Mapping):
        raise ConfigError(str(path), values, "a mapping such as knn: {k: 25}")
    return TrainOptions().changed(values, where=str(path))


_GROUPS = ("knn", "kmeans", "svm", "mlp")
_SINGLE = ("quality_weight", "seed")


def _unknown(name: str, taken: set[str]) -> str:
    # a file's names may be of any length, and have line ends
    shown = name if len(name) <= 60 and name.isprintable() else brief(name)
    return f"{shown}: no such setting; expected one of {', '.join(sorted(taken))}"


def _as_field(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _whole(least: int, most: float = math.inf) -> Any:
    bound = f"an integer >= {least}" if most == math.inf else f"an integer from {least} to {most:.0f}"
    return (lambda v: type(v) is int and least <= v <= most), bound


def _real(least: float, most: float = 1e6, *, above: bool = False) -> Any:
    bound = f"a number {'>' if above else '>='} {least:g} and at most {most:g}"
    return (lambda v: type(v) in (int, float) and (v > least if above else v >= least) and v <= most), bound


_RULES = {
    "k": _whole(1),
    "clusters": _whole(1),
    "kernel": (lambda v: v in ("rbf", "linear"), "rbf or linear"),
    "gamma": _real(0, above=True),
    "label_gamma": _real(0, above=True),
    "label_ridge": _real(1e-3),
    "c": _real(0, above=True),
    "ridge": _real(1e-3),
    "shrinkage": _real(0, above=True),
    "domain_weight": _real(0, 100),
    "hidden_sizes": (
        lambda v: isinstance(v, tuple) and len(v) <= 8 and all(type(n) is int and 1 <= n <= 65_536 for n in v),
        "at most 8 integers from 1 to 65536",
    ),
    "members": _whole(1, 256),
    "dropout": (lambda v: type(v) in (int, float) and 0 <= v < 1, "a number in [0, 1)"),
    "learning_rate": _real(0, 10, above=True),
    "weight_decay": _real(0, 1000),
    "batch_size": _whole(1),
    "epochs": _whole(1, 100_000),
    "quality_weight": (lambda v: type(v) in (int, float) and 0 <= v <= 1, "a number in [0, 1]"),
    "seed": (lambda v: type(v) is int and 0 <= v < 2**63, "an integer in [0, 2^63)"),
}


def _problems(prefix: str, group: object) -> list[str]:
    return [problem for f in fields(group) for problem in _problem(prefix, f.name, getattr(group, f.name))]  # type: ignore[arg-type]


def _problem(prefix: str, name: str, value: object) -> list[str]:
    rule = _RULES.get(name)
    return [] if rule is None or rule[0](value) else [f"{prefix}{name}: expected {rule[1]}, got {brief(value)}"]
