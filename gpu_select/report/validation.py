"""What `gpu-select validate --json` writes, as checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_select.report.fields import Fields, read_document

__all__ = ["Bin", "Comparison", "Confidence", "Curve", "Domain", "Point", "Strategy", "Validation", "read_validation"]

KINDS = ("oracle", "selector", "single", "baseline")
AGAINST = ("cost", "latency")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Strategy:
    """How one way of choosing does."""

    name: str
    kind: str
    """One of `KINDS`."""
    mean_quality: float
    ci95: Interval
    mean_latency_s: float | None
    mean_cost_usd: float | None
    """US dollars a query."""
    best_rate: float
    """Share of queries on which the choice is a best model."""
    n_scored: int
    gain_over_random: float
    gain_over_best_single: float
    gap_share: float | None
    """(strategy - best single) / (oracle - best single)."""
    shares: Mapping[str, float | None]
    """Share of queries by chosen model."""

    @property
    def model(self) -> str | None:
        """The one model that it always chooses, where its name tells."""
        head, colon, model = self.name.partition(":")
        return model if colon and head in ("always", "cheapest", "fastest") else None


@dataclass(frozen=True)
class Comparison:
    """Mean quality of a minus that of b on the same queries."""

    a: str
    b: str
    difference: float | None
    ci95: Interval | None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.ci95 is not None and not self.ci95[0] <= 0 <= self.ci95[1]

    @property
    def reversed(self) -> Comparison:
        """b against a."""
        return Comparison(
            self.b,
            self.a,
            None if self.difference is None else -self.difference,
            None if self.ci95 is None else (-self.ci95[1], -self.ci95[0]),
        )


@dataclass(frozen=True)
class Domain:
    """The queries of one domain."""

    name: str
    queries: int
    quality: Mapping[str, float | None]
    """Mean quality by strategy."""
    chosen: Mapping[str, Mapping[str, int]]
    """Queries by selector and model."""


@dataclass(frozen=True)
class Point:
    """A selector's choices at one weight of quality."""

    weight: float
    quality: float | None
    cost_usd: float | None
    latency_s: float | None
    shares: Mapping[str, float | None]


@dataclass(frozen=True)
class Curve:
    """One selector at many weights of quality against cost or latency."""

    strategy: str
    against: str
    """One of `AGAINST`."""
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Bin:
    """Queries whose decisions were about equally sure."""

    margin: tuple[float | None, float | None]
    queries: int
    quality: float | None
    best_single_quality: float | None
    ci95: Interval | None
    """Of the quality."""


@dataclass(frozen=True)
class Confidence:
    """One selector's realised quality by how sure it was."""

    strategy: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Validation:
    """One run of `gpu-select validate`."""

    path: str
    data_file: str
    encoder: str
    queries: int
    models: tuple[str, ...]
    in_training: int
    """Queries that were left out because they were trained on."""
    examples: tuple[str, ...]
    """The first of them."""
    strategies: tuple[Strategy, ...]
    comparisons: tuple[Comparison, ...]
    domains: tuple[Domain, ...]
    curves: tuple[Curve, ...]
    confidence: tuple[Confidence, ...]

    def of_kind(self, kind: str) -> list[Strategy]:
        """The strategies of one kind, the best first."""
        return sorted((s for s in self.strategies if s.kind == kind), key=lambda s: -s.mean_quality)

    def named(self, name: str) -> Strategy | None:
        """The strategy of that name."""
        return next((s for s in self.strategies if s.name == name), None)

    @property
    def best_single(self) -> Strategy | None:
        """The best of the single models."""
        return next(iter(self.of_kind("single")), None)

    def compare(self, a: str, b: str) -> Comparison | None:
        """The comparison of a with b, whichever way round the file has it."""
        for pair in self.comparisons:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return pair.reversed
        return None


def read_validation(path: str) -> Validation:
    """Read and check a validation file.

    Raises:
        InputError, FileFormatError, MissingDependencyError: as `read_document`; a field is missing, of the wrong
            kind or out of range, or names a strategy that the file does not have.
    """
    document = read_document(path, "gpu_select.validation")
    strategies: list[Strategy] = []
    for fields in document.objects("strategies"):
        strategy = _strategy(fields)
        if any(strategy.name == other.name for other in strategies):
            raise fields.error("name", "no strategy twice", strategy.name)
        strategies.append(strategy)
    if not strategies:
        raise document.error("strategies", "at least one strategy", [])
    known = frozenset(s.name for s in strategies)
    left_out = document.inner("left_out")
    return Validation(
        path=path,
        data_file=document.text("data_file"),
        encoder=document.text("encoder"),
        queries=document.count("queries"),
        models=document.texts("models", distinct=True),
        in_training=left_out.count("in_training"),
        examples=left_out.texts("examples"),
        strategies=tuple(strategies),
        comparisons=tuple(_comparison(fields, known) for fields in document.objects("comparisons")),
        domains=tuple(_domain(fields, known) for fields in document.objects("domains")),
        curves=tuple(_curve(fields, known) for fields in document.objects("curves")),
        confidence=tuple(_confidence(fields, known) for fields in document.objects("confidence")),
    )


def _strategy(fields: Fields) -> Strategy:
    return Strategy(
        name=fields.text("name"),
        kind=fields.choice("kind", KINDS),
        mean_quality=fields.number("mean_quality"),
        ci95=fields.interval("ci95"),
        mean_latency_s=fields.maybe_number("mean_latency_s", 0),
        mean_cost_usd=fields.maybe_number("mean_cost_usd", 0),
        best_rate=fields.number("best_rate", 0, 1),
        n_scored=fields.count("n_scored"),
        gain_over_random=fields.number("gain_over_random"),
        gain_over_best_single=fields.number("gain_over_best_single"),
        gap_share=fields.maybe_number("gap_share"),
        shares=fields.numbers_by_name("shares"),
    )


def _comparison(fields: Fields, known: frozenset[str]) -> Comparison:
    return Comparison(
        _known(fields, "a", known),
        _known(fields, "b", known),
        fields.maybe_number("difference"),
        fields.maybe_interval("ci95"),
    )


def _domain(fields: Fields, known: frozenset[str]) -> Domain:
    quality, chosen = fields.inner("quality"), fields.inner("chosen")
    for inner in (quality, chosen):
        for name in inner.names():
            if name not in known:
                raise inner.error(name, "the name of a strategy", name)
    return Domain(
        fields.text("name"),
        fields.count("queries"),
        fields.numbers_by_name("quality"),
        {name: _counts(chosen.inner(name)) for name in chosen.names()},
    )


def _counts(fields: Fields) -> dict[str, int]:
    return {model: fields.count(model) for model in fields.names()}


def _curve(fields: Fields, known: frozenset[str]) -> Curve:
    points = (
        Point(
            inner.number("weight"),
            inner.maybe_number("quality"),
            inner.maybe_number("cost_usd", 0),
            inner.maybe_number("latency_s", 0),
            inner.numbers_by_name("shares"),
        )
        for inner in fields.objects("points")
    )
    return Curve(
        _known(fields, "strategy", known),
        fields.choice("against", AGAINST),
        tuple(sorted(points, key=lambda point: point.weight)),
    )


def _confidence(fields: Fields, known: frozenset[str]) -> Confidence:
    return Confidence(_known(fields, "strategy", known), tuple(_bin(inner) for inner in fields.objects("bins")))


def _bin(fields: Fields) -> Bin:
    return Bin(
        _margin(fields),
        fields.count("queries"),
        fields.maybe_number("quality"),
        fields.maybe_number("best_single_quality"),
        fields.maybe_interval("ci95"),
    )


def _margin(fields: Fields) -> tuple[float | None, float | None]:
    """A selector with one candidate has no second best: its margins are null."""
    return fields.maybe_interval("margin") or (None, None)


def _known(fields: Fields, field: str, known: frozenset[str]) -> str:
    name = fields.text(field)
    if name not in known:
        raise fields.error(field, "the name of a strategy", name)
    return name
