"""models.yaml as frozen dataclasses: which models there are, how they are reached, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpu_select.config.environment import expand
from gpu_select.config.paths import at_index, at_key
from gpu_select.config.sections import Problems, Section, kind
from gpu_select.errors import brief
from gpu_select.yamlio import load_yaml

__all__ = ["ModelConfig", "parse_models", "read_models"]

_MAX_MODELS = 10_000
_MOST_TIMEOUT_S = 86_400
_VARIABLE = re.compile(r"\$\{[^{}]*\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, token


@dataclass(frozen=True)
class ModelConfig:
    """One model. What a file does not say is None, so that a command's own default can take its place."""

    name: str
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1."""
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Sent with every request."""
    max_tokens: int | None = None
    """Most tokens of an answer."""
    temperature: float | None = None
    concurrency: int | None = None
    """Most calls at once that `gpu-select benchmark` makes; None for no limit of its own."""
    timeout_s: float | None = None
    """How long `gpu-select benchmark` waits for a whole answer."""
    input_price_usd: float | None = None
    """USD for a million input (prompt) tokens; 0 for a model that costs nothing, None where unknown."""
    output_price_usd: float | None = None
    """USD for a million output (completion) tokens."""

    def own_headers(self) -> dict[str, str]:
        """The HTTP headers that its key and its `headers` ask for, by lower-case name; `headers` come last."""
        key = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        return key | {name.lower(): value for name, value in self.headers.items()}


def read_models(path: str | Path, *, expanded: bool = False) -> tuple[ModelConfig, ...]:
    """Read models.yaml.

    `models` is a list of mappings, or a mapping from name to settings. Settings: name, endpoint, api_key, headers,
    max_tokens, temperature, concurrency, timeout_s, and pricing with prompt_per_1m, completion_per_1m and currency
    (USD), the names that semantic-router gives them.

    Args:
        path: a YAML file.
        expanded: replace `${VAR}` by environment variables, which then all have to be set; else texts stay as they
            stand in the file.

    Returns:
        The models in the file's order.

    Raises:
        InputError: the file cannot be read.
        ConfigError: broken YAML, or every problem of the settings with its path. Secrets are never shown.
    """
    document = load_yaml(path)
    problems = Problems(str(path))
    top = Section(expand(document, problems.add_missing) if expanded else document, "", problems)
    models = parse_models(top.take("models"), "models", problems, expanded=expanded)
    top.finish()
    problems.raise_if_any()
    return models


def parse_models(value: Any, where: str, problems: Problems, *, expanded: bool = False) -> tuple[ModelConfig, ...]:
    """The models of a list, or of a mapping by name, as `read_models` describes them.

    Args:
        value: as `load_yaml` gives it.
        where: its path.
        problems: collects what is wrong.
        expanded: whether `${VAR}` has been replaced already.
    """
    models = [_model(section, expanded=expanded) for section in _sections(value, where, problems)]
    names = [model.name for model in models]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        problems.add(where, f"expected each name once, got {brief(name)} {names.count(name)} times")
    return tuple(models)


def _sections(models: Any, where: str, problems: Problems) -> list[Section]:
    if not isinstance(models, (list, dict)) or not 1 <= len(models) <= _MAX_MODELS:
        got = f"{len(models)} of them" if isinstance(models, (list, dict)) else kind(models)
        problems.add(where, f"expected a list of 1 to {_MAX_MODELS} models, got {got}")
        return []
    if isinstance(models, list):
        return [Section(value, at_index(where, i), problems) for i, value in enumerate(models)]
    sections = []
    for name, value in models.items():
        inner = at_key(where, name)
        if isinstance(value, dict) and "name" in value:
            problems.add(at_key(inner, "name"), "unknown key; the name stands before the colon")
        settings = {} if value is None else value
        sections.append(Section({**settings, "name": name} if isinstance(settings, dict) else value, inner, problems))
    return sections


def _model(section: Section, *, expanded: bool) -> ModelConfig:
    input_price_usd, output_price_usd = _pricing(section)
    model = ModelConfig(
        name=section.text("name", required=True) or "",
        endpoint=_endpoint(section, expanded=expanded),
        api_key=section.text("api_key", secret=True),
        headers=_headers(section),
        max_tokens=section.integer("max_tokens", 1 << 31),
        temperature=section.number("temperature", 100),
        concurrency=section.integer("concurrency", 1 << 16),
        timeout_s=section.number("timeout_s", _MOST_TIMEOUT_S, least=0.001),
        input_price_usd=input_price_usd,
        output_price_usd=output_price_usd,
    )
    section.finish()
    return model


def _endpoint(section: Section, *, expanded: bool) -> str | None:
    value = section.text("endpoint")
    may_be_set_later = value is not None and not expanded and _VARIABLE.match(value)
    if value is None or value.startswith(("http://", "https://")) or may_be_set_later:
        return value
    section.expected("endpoint", "an http:// or https:// address")
    return None


def _headers(section: Section) -> Mapping[str, str]:
    headers = section.section("headers")
    if headers is None:
        return MappingProxyType({})
    out: dict[str, str] = {}
    for name in headers.names():
        text = headers.text(name, secret=True)
        if not _HEADER_NAME.match(name):
            section.problems.add(headers.where, f"expected names of HTTP headers, got {brief(name)}")
        elif text is not None:
            out[name] = text
    return MappingProxyType(out)


def _pricing(section: Section) -> tuple[float | None, float | None]:
    pricing = section.section("pricing")
    if pricing is None:
        return None, None
    pricing.choice("currency", ["USD"])
    prices = pricing.number("prompt_per_1m", 1e6), pricing.number("completion_per_1m", 1e6)
    pricing.finish()
    return prices
