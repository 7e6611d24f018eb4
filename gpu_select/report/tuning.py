"""What `gpu-select tune` writes beside its settings, as checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_select.report.fields import Fields, read_document

__all__ = ["Setting", "Trial", "Tuning", "read_tuning"]

Interval = tuple[float, float]
Setting = str | float | bool | None


@dataclass(frozen=True)
class Trial:
    """One way to train, scored on held-out folds."""

    algorithm: str
    settings: Mapping[str, Setting]
    quality: float
    """Mean over held-out queries."""
    utility: float
    gain: float
    """Quality minus that of the best single model."""
    gain_ci95: Interval
    folds: tuple[float, ...]
    """Quality a fold."""
    chosen: bool


@dataclass(frozen=True)
class Tuning:
    """One run of `gpu-select tune`."""

    path: str
    data_file: str
    encoder: str
    queries: int
    models: tuple[str, ...]
    folds: int
    seed: int
    quality_weight: float
    best_single: str
    best_single_quality: float
    oracle: float
    per_domain: float | None
    random: float
    chosen: Mapping[str, Mapping[str, Setting]]
    """Settings by algorithm."""
    trials: tuple[Trial, ...]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Those that were tried, in the file's order."""
        return tuple(dict.fromkeys(trial.algorithm for trial in self.trials))

    def of(self, algorithm: str) -> tuple[Trial, ...]:
        """The trials of one algorithm, the best first."""
        return tuple(sorted((t for t in self.trials if t.algorithm == algorithm), key=lambda t: -t.quality))


def read_tuning(path: str) -> Tuning:
    """Read and check a tuning file.

    Raises:
        InputError, FileFormatError, MissingDependencyError: as `read_document`; a field is missing, of the wrong
            kind or out of range.
    """
    document = read_document(path, "gpu_select.tuning")
    baselines = document.inner("baselines")
    single = baselines.inner("best_single")
    chosen = document.inner("chosen")
    trials = tuple(_trial(fields) for fields in document.objects("trials"))
    if not trials:
        raise document.error("trials", "at least one trial", [])
    return Tuning(
        path=path,
        data_file=document.text("data_file"),
        encoder=document.text("encoder"),
        queries=document.count("queries"),
        models=document.texts("models", distinct=True),
        folds=document.count("folds"),
        seed=document.count("seed"),
        quality_weight=document.number("quality_weight", 0, 1),
        best_single=single.text("model"),
        best_single_quality=single.number("quality"),
        oracle=baselines.number("oracle"),
        per_domain=baselines.maybe_number("per_domain"),
        random=baselines.number("random"),
        chosen={name: chosen.scalars_by_name(name) for name in chosen.names()},
        trials=trials,
    )


def _trial(fields: Fields) -> Trial:
    return Trial(
        algorithm=fields.text("algorithm"),
        settings=fields.scalars_by_name("settings"),
        quality=fields.number("quality"),
        utility=fields.number("utility"),
        gain=fields.number("gain"),
        gain_ci95=fields.interval("gain_ci95"),
        folds=fields.numbers("folds"),
        chosen=fields.flag("chosen"),
    )
