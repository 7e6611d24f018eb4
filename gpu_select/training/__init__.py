"""Outcome table + features -> the contents of a selector file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError
from gpu_select.records import OutcomeTable, RecordCounts, pack_digests, query_digests
from gpu_select.training.kmeans import fit_kmeans
from gpu_select.training.knn import fit_knn
from gpu_select.training.mlp import MLPSettings, fit_mlp
from gpu_select.training.svm import fit_svm
from gpu_select.training.utility import domain_models, utilities
from gpu_select.wire import ALGORITHMS, SelectorFile

__all__ = ["TrainOptions", "fit", "provenance"]


@dataclass(frozen=True)
class TrainOptions:
    """What shapes the selectors. Every problem is reported at once."""

    knn_k: int = 5
    """Rows that vote in KNN."""
    kmeans_clusters: int = 8
    """Clusters at most."""
    svm_kernel: Literal["rbf", "linear"] = "rbf"
    svm_gamma: float = 1.0
    """Width of the RBF kernel on unit vectors."""
    quality_weight: float = 0.9
    """w in utility = w * performance + (1 - w) * speed."""
    seed: int = 0
    """The same seed gives the same files, byte for byte."""

    def __post_init__(self) -> None:
        problems = [
            str(ConfigError(name, value, expected))
            for name, value, good, expected in (
                ("knn-k", self.knn_k, self.knn_k >= 1, "an integer >= 1"),
                ("kmeans-clusters", self.kmeans_clusters, self.kmeans_clusters >= 1, "an integer >= 1"),
                ("svm-kernel", self.svm_kernel, self.svm_kernel in ("rbf", "linear"), "rbf or linear"),
                ("svm-gamma", self.svm_gamma, 0 < self.svm_gamma < float("inf"), "a number > 0"),
                ("quality-weight", self.quality_weight, 0 <= self.quality_weight <= 1, "a number in [0, 1]"),
                ("seed", self.seed, 0 <= self.seed < 2**63, "an integer in [0, 2^63)"),
            )
            if not good
        ]
        if problems:
            raise ConfigError.joined(problems)


def fit(
    algorithm: str, features_QD: Tensor, table: OutcomeTable, options: TrainOptions, own: dict[str, Any]
) -> SelectorFile:
    """Train one selector.

    Args:
        algorithm: "knn", "kmeans" or "svm".
        features_QD: (Q, D) float32 on the device to train on, row q for the table's query q.
        table: Q queries x M models.
        options: see there.
        own: what the file says under its "gpu_select" key.

    Returns:
        The file's contents; the selector is whatever they describe.
    """
    utility_QM = utilities(table, options.quality_weight)
    document: SelectorFile
    if algorithm == "knn":
        document = fit_knn(features_QD, table.models, utility_QM, n_neighbors=options.knn_k)
    elif algorithm == "kmeans":
        document = fit_kmeans(
            features_QD, table.models, utility_QM, n_clusters=options.kmeans_clusters, seed=options.seed
        )
    elif algorithm == "svm":
        document = fit_svm(features_QD, table.models, utility_QM, kernel=options.svm_kernel, gamma=options.svm_gamma)
    elif algorithm == "mlp":
        document = fit_mlp(features_QD, table.models, utility_QM, MLPSettings(), seed=options.seed)
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
        "options": asdict(options),
        "data": {
            "records": counts.records - counts.skipped,
            "queries": counts.queries,
            "models": table.models,
            "query_digests": pack_digests(query_digests(table.queries)),
        },
        "domain_models": domain_models(table, utilities(table, options.quality_weight)),
    }
