"""The models of a benchmark: how each is reached and asked, with every setting decided."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from gpu_select.config import ModelConfig
from gpu_select.errors import ConfigError, brief

__all__ = ["CallSettings", "Target", "named_models", "resolve_targets"]

_MASK = "***"
_SHORTEST_SECRET = 4


@dataclass(frozen=True)
class CallSettings:
    """What the command line says of all models, be it its defaults."""

    endpoint: str
    max_tokens: int
    temperature: float
    timeout_s: float
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Target:
    """One model."""

    name: str
    url: str
    """Where chat completions are asked for."""
    headers: dict[str, str] = field(repr=False)
    """Its key, and those of its own."""
    max_tokens: int
    temperature: float
    timeout_s: float
    concurrency: int | None
    """Most calls at once; None for no limit of its own."""
    input_price_usd: float | None
    output_price_usd: float | None

    def cost_usd(self, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """USD for a call; None where a price or a count is unknown."""
        if None in (self.input_price_usd, self.output_price_usd, input_tokens, output_tokens):
            return None
        return (self.input_price_usd * input_tokens + self.output_price_usd * output_tokens) / 1e6  # type: ignore[operator]

    def without_secrets(self, text: str) -> str:
        """A text of the server's, in which keys and the values of headers are masked."""
        secrets = {part for value in self.headers.values() for part in (value, *value.split())}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET and secret.lower() not in ("bearer", "basic"):
                text = text.replace(secret, _MASK)
        return text


def named_models(names: Sequence[str]) -> tuple[ModelConfig, ...]:
    """Entries of models that nothing but the name is said of.

    Raises:
        ConfigError: no name, one twice, or one that no server can have.
    """
    bad = next((name for name in names if not name.isprintable() or names.count(name) > 1), None)
    if not names or bad is not None:
        raise ConfigError("models", bad if names else "", "names of models with commas between, each once")
    return tuple(ModelConfig(name) for name in names)


def resolve_targets(models: Sequence[ModelConfig], settings: CallSettings, given: Collection[str]) -> list[Target]:
    """Decide every setting: what was given on the command line, else what the model's entry says, else the default.

    Args:
        models: entries of models.yaml; bare names where there is no such file.
        settings: the command line's values.
        given: names of those that were really given, such as "max_tokens".

    Raises:
        ConfigError: an endpoint that is no address, or a key that is no line of text. Neither is shown where it comes
            from a file.
    """
    if not settings.endpoint.startswith(("http://", "https://")) or not _has_host(settings.endpoint):
        raise ConfigError("endpoint", settings.endpoint, "an address such as http://localhost:8000/v1")
    if settings.api_key is not None and not (settings.api_key.isprintable() and settings.api_key.strip()):
        raise ConfigError.joined(["api-key: expected a text of one line that is not empty"])
    targets = [_target(model, settings, given) for model in models]
    for target in targets:
        if not _has_host(target.url):
            raise ConfigError.joined(
                [f"endpoint of {brief(target.name)}: expected an address such as http://localhost:8000/v1"]
            )
    return targets


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, or brackets without an IPv6 address
        return False


def _target(model: ModelConfig, settings: CallSettings, given: Collection[str]) -> Target:
    names = ("endpoint", "api_key", "max_tokens", "temperature", "timeout_s")
    values = {
        name: getattr(settings, name) if name in given or getattr(model, name) is None else getattr(model, name)
        for name in names
    }
    headers = model.headers
    if "api_key" in given:  # it would lose to a header of the entry
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return Target(
        name=model.name,
        url=values["endpoint"].rstrip("/") + "/chat/completions",
        headers=replace(model, api_key=values["api_key"], headers=headers).own_headers(),
        max_tokens=values["max_tokens"],
        temperature=values["temperature"],
        timeout_s=values["timeout_s"],
        concurrency=model.concurrency,
        input_price_usd=model.input_price_usd,
        output_price_usd=model.output_price_usd,
    )
