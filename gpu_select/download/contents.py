"""What a downloaded file holds: it is loaded as the command that uses it would load it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpu_select.domain_file import DOMAIN_FILE, read_domain_file
from gpu_select.errors import brief
from gpu_select.files import strip_compression
from gpu_select.records import read_outcomes
from gpu_select.wire import (
    ALGORITHMS,
    KMeansFile,
    KNNFile,
    MLPFile,
    SelectorFile,
    SVMFile,
    file_name,
    read_selector_file,
)

__all__ = ["MAX_BYTES", "Contents", "FileKind", "kind_of", "load_contents"]

FileKind = Literal["selector", "records", "domain head"]

MAX_BYTES: dict[FileKind, int] = {"selector": 4 << 30, "records": 16 << 30, "domain head": 64 << 20}
"""Larger ones are not downloaded: no reader of theirs takes them."""

_SHOWN_MODELS = 8


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    facts: dict[str, Any]
    """For programs: kind, models, and what else there is to count."""
    words: str
    """The same for people, on one line."""
    warnings: list[str] = field(default_factory=list)


def kind_of(name: str) -> FileKind | None:
    """What a file of that name holds; None for nothing of ours."""
    stem = strip_compression(name)[0].lower()
    if stem.endswith(".jsonl"):
        return "records"
    if stem.endswith(".json"):
        return "selector"
    return "domain head" if name.rpartition("/")[2] == DOMAIN_FILE else None


def load_contents(path: Path, name: str, shown: str) -> Contents:
    """Load a file and look what is in it.

    Args:
        path: where it is; ends like `name`, which says how it is compressed.
        name: what it is called in its repository; selectors with a standard name have to be of that algorithm.
        shown: what warnings call it.

    Raises:
        GpuSelectError: it cannot be loaded; names `path`.
    """
    kind = kind_of(name)
    if kind == "records":
        return _records(path, shown)
    if kind == "selector":
        return _selector(path, name)
    assert kind == "domain head", name
    head = read_domain_file(path)
    dim = head.weight_Cd.shape[1]
    facts = {"kind": kind, "domains": list(head.domains), "embedding_dim": dim}
    return Contents(facts, f"domain head, {len(head.domains)} domains, embedding dimension {dim}")


def _records(path: Path, shown: str) -> Contents:
    table, counts = read_outcomes(path)
    facts = {
        "kind": "records",
        "records": counts.records,
        "usable_records": counts.records - counts.skipped - counts.failed_calls,
        "queries": counts.queries,
        "models": table.models,
    }
    words = f"{counts.records:,} records, {counts.queries:,} queries, {_models(table.models)}"
    return Contents(facts, words, counts.warnings(shown))


def _selector(path: Path, name: str) -> Contents:
    from gpu_select.artifacts import encoder_name, selector_of

    stem = strip_compression(name.rpartition("/")[2])[0]
    algorithm = next((algorithm for algorithm in ALGORITHMS if file_name(algorithm) == stem), None)
    document = read_selector_file(path, algorithm)
    selector = selector_of(document)
    title, details = _details(document)
    facts = {"kind": selector.algorithm, "models": list(selector.models), "feature_dim": selector.dim, **details}
    encoder = encoder_name(document.own)
    if encoder is not None:
        facts["encoder"] = encoder
    words = [title, *(f"{key.replace('_', ' ')} {_number(value)}" for key, value in details.items())]
    words += [f"feature dimension {selector.dim}", _models(selector.models)]
    if encoder is not None:
        words.append(f"trained with encoder {_printable(encoder)}")
    return Contents(facts, ", ".join(words))


def _details(document: SelectorFile) -> tuple[str, dict[str, Any]]:
    if isinstance(document, KNNFile):
        return "KNN", {"k": document.k, "rows": len(document.embeddings_ND)}
    if isinstance(document, KMeansFile):
        return "KMeans", {"clusters": len(document.centroids_KD)}
    if isinstance(document, MLPFile):
        return "MLP", {"hidden_sizes": document.hidden_sizes}
    assert isinstance(document, SVMFile)
    n_vectors = sum(len(classifier.alpha_S) for classifier in document.rbf_classifiers)
    n_classifiers = len(document.linear_classifiers) + len(document.rbf_classifiers)
    return "SVM", {"classifiers": n_classifiers, "support_vectors": n_vectors}


def _number(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"


def _models(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    return f"{len(names)} models: {', '.join(map(_printable, names[:_SHOWN_MODELS]))}{more}"


def _printable(name: str) -> str:
    """A name from a file, so that it cannot steer a terminal."""
    return name if name.isprintable() and len(name) <= 60 else brief(name, 60)
