"""What a router's engine decides from a standard JSON file: plain NumPy in float64, one query at a time.

Written from the description of the format alone and sharing nothing with the package, so that an error in one of the
two shows as a difference. Tests get it as the fixture `engine`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

GO_FIELD_TYPES = {
    "version": str,
    "training": dict,
    "input_dim": int,
    "k": int,
    "num_clusters": int,
    "centroids": list,
    "cluster_models": list,
    "cluster_stats": list,
    "kernel": str,
    "efficiency_weight": float,
    "gamma": float,
}
"""Names that the caller of the engine parses with a fixed type."""


@dataclass(frozen=True)
class Reading:
    """One file's answer to one query: the models in the engine's order of preference at ties, a number for each."""

    models: list[str]
    scores: np.ndarray
    """(M,) float64. KNN: summed votes, -inf for a model without one. KMeans: minus the squared distance of the
    model's nearest centroid. SVM: the largest decision value of the model's classifiers. MLP: the last layer's."""

    def chosen(self, candidates: Collection[str] | None = None) -> str:
        allowed = [candidates is None or model in candidates for model in self.models]
        return self.models[int(np.argmax(np.where(allowed, self.scores, -np.inf)))]


def _matrix(rows: Any) -> np.ndarray:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError("not a finite matrix")
    return matrix


def _integers(values: list[Any]) -> np.ndarray:
    if not all(type(value) is int for value in values):
        raise ValueError("counts must be integer literals")
    return np.array(values, dtype=np.int64)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


class Engine:
    """Reads files as an engine does, and refuses what one would stumble over."""

    def load(self, path: str | Path) -> dict[str, Any]:
        """The document at `path` (.json or .json.gz); ValueError where an engine would refuse or misread it."""
        content = Path(path).read_bytes()
        if str(path).endswith(".gz"):
            content = gzip.decompress(content)
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
        if document["trained"] is not True:
            raise ValueError("not trained")
        for name, kind in GO_FIELD_TYPES.items():
            if name in document and type(document[name]) is not kind and (kind, type(document[name])) != (float, int):
                raise ValueError(f"{name} has a type that the caller cannot parse")
        return document

    def readings(
        self, source: str | Path | dict[str, Any], features: np.ndarray, candidates: Collection[str] | None = None
    ) -> list[Reading]:
        """What a file (or a document) says of each row of (B, D) features. KNN searches among rows of candidates."""
        document = source if isinstance(source, dict) else self.load(source)
        features = np.asarray(features, dtype=np.float64)
        if document["algorithm"] == "knn":
            return self._knn(document, features, candidates)
        by_algorithm = {"kmeans": self._kmeans, "svm": self._svm, "mlp": self._mlp}
        return by_algorithm[document["algorithm"]](document, features)

    def decide(
        self, source: str | Path | dict[str, Any], features: np.ndarray, candidates: Collection[str] | None = None
    ) -> list[str]:
        """The model that a file (or a document) chooses for each row of (B, D) features."""
        return [reading.chosen(candidates) for reading in self.readings(source, features, candidates)]

    def _knn(self, document: dict[str, Any], features: np.ndarray, candidates: Collection[str] | None) -> list[Reading]:
        embeddings = _matrix(document["embeddings"])
        labels = document["labels"]
        n_rows = len(embeddings)
        qualities = np.array(document.get("qualities") or [0.5] * n_rows, dtype=np.float64)
        speeds = np.ones(n_rows)
        if document.get("latencies"):
            latencies = _integers(document["latencies"])
            spread = max(int(latencies.max()) - int(latencies.min()), 1)
            speeds = 1 - (latencies - latencies.min()) / spread
        if not len(labels) == len(qualities) == len(speeds) == n_rows or type(document["k"]) is not int:
            raise ValueError("the lists differ in length")
        weights = 0.9 * np.maximum(qualities, 0.01) + 0.1 * speeds
        models = list(dict.fromkeys(labels))
        readings = []
        for query in features:
            distances = ((embeddings - query) ** 2).sum(axis=1)
            nearest = np.argsort(distances, kind="stable")
            nearest = nearest[[candidates is None or labels[row] in candidates for row in nearest]][: document["k"]]
            scores = np.full(len(models), -np.inf)
            for row in np.sort(nearest):
                model = models.index(labels[row])
                scores[model] = weights[row] + (scores[model] if np.isfinite(scores[model]) else 0.0)
            readings.append(Reading(models, scores))
        return readings

    def _kmeans(self, document: dict[str, Any], features: np.ndarray) -> list[Reading]:
        centroids = _matrix(document["centroids"])
        owners = document["cluster_models"]
        if type(document["num_clusters"]) is not int or not document["num_clusters"] == len(centroids) == len(owners):
            raise ValueError("the number of clusters differs")
        readings = []
        for query in features:
            nearness = -((centroids - query) ** 2).sum(axis=1)
            # models by their nearest centroid, so that the first of equal models is the one with the lowest index
            order = np.argsort(-nearness, kind="stable")
            models = list(dict.fromkeys(owners[index] for index in order))
            readings.append(Reading(models, np.array([max(nearness[[o == m for o in owners]]) for m in models])))
        return readings

    def _svm(self, document: dict[str, Any], features: np.ndarray) -> list[Reading]:
        if document["kernel_type"] not in ("Rbf", "Linear") or not isinstance(document["gamma"], float | int):
            raise ValueError("kernel_type or gamma")
        classifiers = [*document["linear_classifiers"], *document["rbf_classifiers"]]
        vectors = [_matrix(c["support_vectors"]) if "alpha" in c else None for c in classifiers]
        weights = [np.array(c["alpha"] if "alpha" in c else c["weights"], dtype=np.float64) for c in classifiers]
        readings = []
        for query in features:
            norm = np.sqrt((query**2).sum())
            unit = query / norm if norm > 1e-10 else query
            values = []
            for classifier, vectors_SD, weight in zip(classifiers, vectors, weights, strict=True):
                point = unit
                if vectors_SD is not None:
                    point = np.exp(-classifier["gamma"] * ((vectors_SD - unit) ** 2).sum(axis=1))
                values.append(float(weight @ point) - classifier["rho"])
            order = np.argsort(-np.array(values), kind="stable")
            best: dict[str, float] = {}
            for index in order:
                best.setdefault(classifiers[index]["model_name"], values[index])
            readings.append(Reading(list(best), np.array(list(best.values()))))
        return readings

    def _mlp(self, document: dict[str, Any], features: np.ndarray) -> list[Reading]:
        models = document["model_names"]
        sizes = [document["feature_dim"], *document["hidden_sizes"], document["n_classes"]]
        if any(type(size) is not int for size in sizes) or sizes[-1] != len(models):
            raise ValueError("sizes")
        linear = [layer for layer in document["layers"] if layer["type"] == "linear"]
        if [[layer["in_features"], layer["out_features"]] for layer in linear] != list(map(list, pairwise(sizes))):
            raise ValueError("layers of other sizes than the document's")
        return [Reading(models, self._outputs(document["layers"], query)) for query in features]

    def _outputs(self, layers: list[dict[str, Any]], query: np.ndarray) -> np.ndarray:
        values = query
        for layer in layers:
            kind = layer["type"]
            if kind == "linear":
                weight = _matrix(layer["weight"])
                if weight.shape != (layer["out_features"], layer["in_features"]):
                    raise ValueError("a weight of another shape")
                values = weight @ values
                if layer["bias"] is not None:
                    values = values + np.array(layer["bias"], dtype=np.float64)
            elif kind == "batch_norm":
                names = "weight", "bias", "running_mean", "running_var"
                weight, bias, mean, var = (np.array(layer[name], dtype=np.float64) for name in names)
                if not layer["num_features"] == len(values) == len(weight) == len(bias) == len(mean) == len(var):
                    raise ValueError("a batch norm of another width")
                values = (values - mean) / np.sqrt(var + layer["eps"]) * weight + bias
            elif kind == "relu":
                values = np.where(values > 0, values, 0.0)
            elif kind != "dropout":
                raise ValueError(f"a layer of type {kind}")
        return values
