"""Outcome table + features -> the contents of selector files, and of the domain head's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable, RecordCounts, pack_digests, query_digests
from gpu_select.training.domain_head import fit_domain_head
from gpu_select.training.kmeans import fit_kmeans
from gpu_select.training.knn import fit_knn
from gpu_select.training.mlp import MLPSettings, fit_mlp
from gpu_select.training.settings import KMeansSettings, KNNSettings, SVMSettings, TrainOptions, read_settings
from gpu_select.training.svm import fit_svm
from gpu_select.training.utility import domain_models, utilities
from gpu_select.wire import ALGORITHMS, SelectorFile

__all__ = [
    "KMeansSettings",
    "KNNSettings",
    "MLPSettings",
    "SVMSettings",
    "TrainOptions",
    "fit",
    "fit_domain_head",
    "provenance",
    "read_settings",
]


def fit(
    algorithm: str, features_QD: Tensor, table: OutcomeTable, options: TrainOptions, own: dict[str, Any]
) -> SelectorFile:
    """Train one selector.

    Args:
        algorithm: "knn", "kmeans", "svm" or "mlp".
        features_QD: (Q, D) float32 on the device to train on, row q for the table's query q.
        table: Q queries x M models.
        options: see there.
        own: what the file says under its "gpu_select" key.

    Returns:
        The file's contents; the selector is whatever they describe.
    """
    data = features_QD, table.models, utilities(table, options.quality_weight), table.domain_groups()
    document: SelectorFile
    if algorithm == "knn":
        document = fit_knn(*data, options.knn, seed=options.seed)
    elif algorithm == "kmeans":
        document = fit_kmeans(*data, options.kmeans, seed=options.seed)
    elif algorithm == "svm":
        document = fit_svm(*data, options.svm, seed=options.seed)
    elif algorithm == "mlp":
        document = fit_mlp(*data, options.mlp, seed=options.seed)
    else:
        raise ConfigError("algorithm", algorithm, f"one of {', '.join(ALGORITHMS)}")
    return replace(document, own=own)


def provenance(
    *, encoder_name: str, fingerprint: str, dim: int, table: OutcomeTable, counts: RecordCounts, options: TrainOptions
) -> dict[str, Any]:
    """What a file says about itself: encoder, domain order, options, data. No times or paths: same data, same bytes."""
    return {
        "encoder": {"name": encoder_name, "fingerprint": fingerprint, "dim": dim},
        "domains": list(WIRE_ORDER),
        "options": options.as_mapping(),
        "data": {
            "records": counts.records - counts.skipped,
            "queries": counts.queries,
            "models": table.models,
            "query_digests": pack_digests(query_digests(table.queries)),
        },
        "domain_models": domain_models(table, utilities(table, options.quality_weight)),
    }
