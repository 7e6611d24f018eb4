"""models.yaml as frozen dataclasses: which models there are, how they are reached, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpu_select.errors import ConfigError, brief
from gpu_select.yamlio import load_yaml

__all__ = ["ModelConfig", "read_models"]

_MAX_MODELS = 10_000
_MAX_PROBLEMS = 20
_VARIABLE = re.compile(r"\$\{[^{}]*\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, token


@dataclass(frozen=True)
class ModelConfig:
    """One model. What a file does not say is None, so that a command's own default can take its place.

    Texts are as they stand in the file: `${VAR}` is not replaced yet.
    """

    name: str
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1."""
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Sent with every request."""
    max_tokens: int | None = None
    """Most tokens of an answer."""
    temperature: float | None = None
    input_price_usd: float | None = None
    """USD for a million input (prompt) tokens; 0 for a model that costs nothing, None where unknown."""
    output_price_usd: float | None = None
    """USD for a million output (completion) tokens."""


def read_models(path: str | Path) -> tuple[ModelConfig, ...]:
    """Read models.yaml.

    `models` is a list of mappings, or a mapping from name to settings. Settings: name, endpoint, api_key, headers,
    max_tokens, temperature, and pricing with prompt_per_1m, completion_per_1m and currency (USD), the names that
    semantic-router gives them.

    Args:
        path: a YAML file.

    Returns:
        The models in the file's order.

    Raises:
        InputError: the file cannot be read.
        ConfigError: broken YAML, or every problem of the settings with its path. Secrets are never shown.
    """
    document = load_yaml(path)
    problems = _Problems(str(path))
    top = _Section(document, "", problems)
    models = [_model(section) for section in _sections(top.take("models"), problems)]
    top.finish()
    names = [model.name for model in models]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        problems.add("models", f"expected each name once, got {brief(name)} {names.count(name)} times")
    problems.raise_if_any()
    return tuple(models)


class _Problems:
    """Collects what is wrong, each with its path, so that a user mends all of it in one go."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[str] = []

    def add(self, where: str, text: str) -> None:
        self._lines.append(f"{where}: {text}" if where else text)

    def raise_if_any(self) -> None:
        if self._lines:
            first, *others = self._lines[:_MAX_PROBLEMS]
            if len(self._lines) > _MAX_PROBLEMS:
                others.append(f"and {len(self._lines) - _MAX_PROBLEMS} more")
            raise ConfigError.joined([f"{self._path}: {first}", *others])


class _Section:
    """A mapping whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, value: Any, where: str, problems: _Problems) -> None:
        self.where = where
        self.problems = problems
        self._values: dict[str, Any] = {}
        self._known: list[str] = []
        self._is_mapping = isinstance(value, dict)
        if self._is_mapping:
            self._values = dict(value)
        else:
            problems.add(where, f"expected a mapping, got {_kind(value)}")

    def take(self, key: str) -> Any:
        """The value of a key, None where it is missing."""
        self._known.append(key)
        return self._values.pop(key, None)

    def path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def text(self, key: str, *, secret: bool = False, required: bool = False) -> str | None:
        """A text of one line that is not empty."""
        value = self.take(key)
        if value is None and not (required and self._is_mapping):
            return None
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            got = _kind(value) if secret else brief(value)
            self.problems.add(self.path(key), f"expected a text of one line that is not empty, got {got}")
            return None
        return value

    def number(self, key: str, most: float) -> float | None:
        """A finite number from 0 to `most`."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value <= most:  # NaN fails, too
            self.problems.add(self.path(key), f"expected a number from 0 to {most:g}, got {brief(value)}")
            return None
        return float(value)

    def integer(self, key: str, most: int) -> int | None:
        """An integer from 1 to `most`."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) is not int or not 1 <= value <= most:
            self.problems.add(self.path(key), f"expected an integer from 1 to {most}, got {brief(value)}")
            return None
        return value

    def finish(self) -> None:
        """Refuse the keys that nobody took."""
        for key in self._values:
            self.problems.add(self.path(key), f"unknown key; expected one of {', '.join(self._known)}")


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "a text", bool: "a boolean", type(None): "nothing"}
    return kinds.get(type(value), "a number")


def _sections(models: Any, problems: _Problems) -> list[_Section]:
    if not isinstance(models, (list, dict)) or not 1 <= len(models) <= _MAX_MODELS:
        got = f"{len(models)} of them" if isinstance(models, (list, dict)) else _kind(models)
        problems.add("models", f"expected a list of 1 to {_MAX_MODELS} models, got {got}")
        return []
    if isinstance(models, list):
        return [_Section(value, f"models[{i}]", problems) for i, value in enumerate(models)]
    sections = []
    for name, value in models.items():
        where = f"models.{brief(name)[1:-1]}"
        if isinstance(value, dict) and "name" in value:
            problems.add(f"{where}.name", "unknown key; the name stands before the colon")
        settings = {} if value is None else value
        sections.append(_Section({**settings, "name": name} if isinstance(settings, dict) else value, where, problems))
    return sections


def _model(section: _Section) -> ModelConfig:
    input_price_usd, output_price_usd = _pricing(section)
    model = ModelConfig(
        name=section.text("name", required=True) or "",
        endpoint=_endpoint(section),
        api_key=section.text("api_key", secret=True),
        headers=_headers(section),
        max_tokens=section.integer("max_tokens", 1 << 31),
        temperature=section.number("temperature", 100),
        input_price_usd=input_price_usd,
        output_price_usd=output_price_usd,
    )
    section.finish()
    return model


def _endpoint(section: _Section) -> str | None:
    value = section.text("endpoint")
    if value is None or value.startswith(("http://", "https://")) or _VARIABLE.match(value):
        return value
    section.problems.add(section.path("endpoint"), f"expected an http:// or https:// address, got {brief(value)}")
    return None


def _headers(section: _Section) -> Mapping[str, str]:
    value = section.take("headers")
    if value is None:
        return MappingProxyType({})
    headers = _Section(value, section.path("headers"), section.problems)
    out: dict[str, str] = {}
    for name in value if isinstance(value, dict) else ():
        text = headers.text(name, secret=True)
        if not _HEADER_NAME.match(name):
            section.problems.add(headers.where, f"expected names of HTTP headers, got {brief(name)}")
        elif text is not None:
            out[name] = text
    return MappingProxyType(out)


def _pricing(section: _Section) -> tuple[float | None, float | None]:
    value = section.take("pricing")
    if value is None:
        return None, None
    pricing = _Section(value, section.path("pricing"), section.problems)
    currency = pricing.text("currency")
    if currency not in (None, "USD"):
        section.problems.add(pricing.path("currency"), f"expected USD, got {brief(currency)}")
    prices = pricing.number("prompt_per_1m", 1e6), pricing.number("completion_per_1m", 1e6)
    pricing.finish()
    return prices
