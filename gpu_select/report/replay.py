"""What `gpu-select replay --json` writes, as checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_select.report.fields import Fields, read_document

__all__ = ["Limits", "Outcome", "Point", "Policy", "Replay", "Row", "Sweep", "read_replay"]

KINDS = ("logged", "selector", "single", "best", "limits")
AGAINST = ("time", "cost")
FIGURES = ("quality", "time_s", "cost_usd")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """The queries of one model, or of one domain. Means are None where they are unknown."""

    name: str
    queries: int
    quality: float | None
    time_s: float | None
    cost_usd: float | None
    """US dollars a query."""
    chosen: Mapping[str, int]
    """Of a domain: queries by model."""


@dataclass(frozen=True)
class Outcome:
    """Expected against logged, where the log did the same."""

    figure: str
    """One of `FIGURES`."""
    rows: int
    expected: float
    realised: float
    ci95: Interval
    """Of realised - expected."""


@dataclass(frozen=True)
class Policy:
    """One way to choose, on the whole log."""

    name: str
    kind: str
    """One of `KINDS`."""
    queries: int
    quality: float | None
    """Expected mean."""
    time_s: float | None
    cost_usd: float | None
    models: tuple[Row, ...]
    domains: tuple[Row, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def model(self) -> str | None:
        """The one model that it always chooses."""
        return self.name.partition(":")[2] if self.kind == "single" else None

    def outcome(self, figure: str) -> Outcome | None:
        """What the log says of one figure."""
        return next((found for found in self.outcomes if found.figure == figure), None)


@dataclass(frozen=True)
class Point:
    """The best choices at one weight of quality."""

    weight: float
    quality: float
    time_s: float | None
    cost_usd: float | None
    shares: Mapping[str, float | None]


@dataclass(frozen=True)
class Sweep:
    """Many weights of quality against time or cost, in the order of their price."""

    against: str
    """One of `AGAINST`."""
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Limits:
    """What the user's own policy keeps to."""

    quality_weight: float
    budget_usd: float | None
    max_share: Mapping[str, float | None]
    nearest: Point | None
    """Of the sweep against time, whose weight training takes."""
    nearest_keeps: bool
    """Whether it keeps to the budget and the shares."""


@dataclass(frozen=True)
class Replay:
    """One run of `gpu-select replay`."""

    path: str
    log_file: str
    data_file: str
    encoder: str
    queries: int
    queries_in_records: int
    record_queries: int
    models: tuple[str, ...]
    check: Outcome
    """Of the best expected choices on the records themselves, each query held out."""
    policies: tuple[Policy, ...]
    sweeps: tuple[Sweep, ...]
    limits: Limits | None

    def of_kind(self, kind: str) -> list[Policy]:
        """The policies of one kind, the best first."""
        return sorted((p for p in self.policies if p.kind == kind), key=lambda p: -(p.quality or 0))


def read_replay(path: str) -> Replay:
    """Read and check a replay file.

    Raises:
        InputError, FileFormatError, MissingDependencyError: as `read_document`; a field is missing, of the wrong
            kind or out of range.
    """
    document = read_document(path, "gpu_select.replay")
    policies: list[Policy] = []
    for fields in document.objects("policies"):
        policy = _policy(fields)
        if any(policy.name == other.name for other in policies):
            raise fields.error("name", "no policy twice", policy.name)
        policies.append(policy)
    if not policies:
        raise document.error("policies", "at least one policy", [])
    check = document.inner("check")
    limits = document.maybe_inner("limits")
    return Replay(
        path=path,
        log_file=document.text("log_file"),
        data_file=document.text("data_file"),
        encoder=document.text("encoder"),
        queries=document.count("queries"),
        queries_in_records=document.count("queries_in_records"),
        record_queries=document.count("record_queries"),
        models=document.texts("models", distinct=True),
        check=_outcome("quality", check, check.count("queries")),
        policies=tuple(policies),
        sweeps=tuple(
            Sweep(fields.choice("against", AGAINST), tuple(_point(p) for p in fields.objects("points")))
            for fields in document.objects("sweeps")
        ),
        limits=None if limits is None else _limits(limits),
    )


def _policy(fields: Fields) -> Policy:
    return Policy(
        name=fields.text("name"),
        kind=fields.choice("kind", KINDS),
        queries=fields.count("queries"),
        quality=fields.maybe_number("quality", 0, 1),
        time_s=fields.maybe_number("time_s", 0),
        cost_usd=fields.maybe_number("cost_usd", 0),
        models=tuple(_row(row, row.text("model"), {}) for row in fields.objects("models")),
        domains=tuple(_row(row, row.text("name"), _counts(row.inner("chosen"))) for row in fields.objects("domains")),
        outcomes=tuple(_outcome(o.choice("figure", FIGURES), o, o.count("rows")) for o in fields.objects("outcomes")),
    )


def _row(fields: Fields, name: str, chosen: Mapping[str, int]) -> Row:
    return Row(
        name,
        fields.count("queries"),
        fields.maybe_number("quality", 0, 1),
        fields.maybe_number("time_s", 0),
        fields.maybe_number("cost_usd", 0),
        chosen,
    )


def _counts(fields: Fields) -> dict[str, int]:
    return {model: fields.count(model) for model in fields.names()}


def _outcome(figure: str, fields: Fields, rows: int) -> Outcome:
    return Outcome(figure, rows, fields.number("expected", 0), fields.number("realised", 0), fields.interval("ci95"))


def _point(fields: Fields) -> Point:
    return Point(
        fields.number("weight", 0, 1),
        fields.number("quality", 0, 1),
        fields.maybe_number("time_s", 0),
        fields.maybe_number("cost_usd", 0),
        fields.numbers_by_name("shares"),
    )


def _limits(fields: Fields) -> Limits:
    nearest = fields.maybe_inner("nearest")
    return Limits(
        fields.number("quality_weight", 0, 1),
        fields.maybe_number("budget_usd", 0),
        fields.numbers_by_name("max_share"),
        None if nearest is None else _point(nearest),
        fields.flag("nearest_keeps"),
    )
