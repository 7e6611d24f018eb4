"""What a user would write without this project: sentence-transformers, numpy, scikit-learn and the json module."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier

from gpu_select.domains import DEFAULT_DOMAIN, WIRE_ORDER
from gpu_select.wire import BatchNormLayer, KMeansFile, KNNFile, LinearLayer, MLPFile, SelectorFile, SVMFile

__all__ = ["Peer", "decider"]

Decide = Callable[[NDArray[np.float32]], list[str]]
"""(B, D) features -> the model of each query."""

_TRIED = {"cpu": (16, 32, 64), "cuda": (32, 128, 512)}
"""Batch sizes that are tried; 32 is what sentence-transformers takes by default."""

_TRIAL_QUERIES = {"cpu": 96, "cuda": 2048}


class Peer:
    """An encoder and selectors.

    Args:
        folder: the model's files, or a hub id.
        device, dtype: where and in what the encoder computes; selection is scikit-learn's, on the CPU in float32.
        documents: selector files by algorithm.
    """

    def __init__(self, folder: str, device: str, dtype: torch.dtype, documents: dict[str, SelectorFile]) -> None:
        self.model = SentenceTransformer(folder, device=device, model_kwargs={"dtype": dtype})
        self.deciders = {name: decider(document) for name, document in documents.items()}
        self.batch_size = 32
        self.trials: dict[int, float] = {}
        self.device = device

    def tune(self, source: str) -> None:
        """Take the batch size that is fastest on the first queries of a log."""
        texts = [row["query"] for row in read(source)[: _TRIAL_QUERIES[self.device]]]
        self.encode(texts[:32])  # warms up
        for size in _TRIED[self.device]:
            self.batch_size = size
            start = time.perf_counter()
            self.encode(texts)
            self.trials[size] = time.perf_counter() - start
        self.batch_size = min(self.trials, key=self.trials.__getitem__)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        embeddings: Any = self.model.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(embeddings, np.float32)

    def route(self, source: str, targets: dict[str, str]) -> tuple[float, dict[str, float]]:
        """Route a log with some selectors, to a file each, embedding it once.

        Returns:
            The seconds of reading and embedding, and for each selector those of selecting and writing.
        """
        start = time.perf_counter()
        rows = read(source)
        features = np.hstack([self.encode([row["query"] for row in rows]), one_hot(rows)])
        shared = time.perf_counter() - start
        own = {}
        for name, target in targets.items():
            start = time.perf_counter()
            models = self.deciders[name](features)
            with open(target, "w", encoding="utf-8") as stream:
                for row, model in zip(rows, models, strict=True):
                    stream.write(json.dumps({**row, "model": model}) + "\n")
            own[name] = time.perf_counter() - start
        return shared, own


def read(source: str) -> list[dict[str, Any]]:
    with open(source, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def one_hot(rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    slots = {name: slot for slot, name in enumerate(WIRE_ORDER)}
    other = slots[DEFAULT_DOMAIN]
    return np.eye(len(slots), dtype=np.float32)[[slots.get(row["domain"], other) for row in rows]]


def decider(document: SelectorFile) -> Decide:
    """A selector file through scikit-learn."""
    if isinstance(document, KNNFile):
        return _knn(document)
    if isinstance(document, KMeansFile):
        return _kmeans(document)
    return _mlp(document) if isinstance(document, MLPFile) else _svm(document)


def _knn(document: KNNFile) -> Decide:
    k = min(document.k, len(document.labels))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(document.embeddings_ND)
    names, label_N = np.unique(document.labels, return_inverse=True)
    n = len(label_N)
    quality_N = np.full(n, 0.5) if document.qualities_N is None else np.maximum(document.qualities_N, 0.01)
    speed_N = np.ones(n)
    if document.latencies_ns_N is not None:
        latency_N = document.latencies_ns_N.astype(float)
        speed_N = 1 - (latency_N - latency_N.min()) / max(latency_N.max() - latency_N.min(), 1)
    weight_N = 0.9 * quality_N + 0.1 * speed_N

    def decide(features: NDArray[np.float32]) -> list[str]:
        nearest_Bk = search.kneighbors(features, return_distance=False)
        votes_BM = np.zeros((len(features), len(names)))
        np.add.at(votes_BM, (np.arange(len(features))[:, None], label_N[nearest_Bk]), weight_N[nearest_Bk])
        return names[votes_BM.argmax(axis=1)].tolist()

    return decide


def _kmeans(document: KMeansFile) -> Decide:
    centroids = document.centroids_KD
    model = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids)
    model.cluster_centers_ = centroids
    return lambda features: [document.cluster_models[k] for k in model.predict(features)]


def _mlp(document: MLPFile) -> Decide:
    """Linear layers with ReLU between them: what MLPClassifier can hold."""
    linear = [layer for layer in document.layers if isinstance(layer, LinearLayer)]
    assert not any(isinstance(layer, BatchNormLayer) for layer in document.layers)
    model = MLPClassifier(document.hidden_sizes, max_iter=1)
    names = np.array(document.model_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step of training makes the attributes; then they get our numbers
        model.fit(np.zeros((len(names), document.feature_dim)), np.arange(len(names)))
    model.coefs_ = [layer.weight_OI.T for layer in linear]
    model.intercepts_ = [np.zeros(len(layer.weight_OI)) if layer.bias_O is None else layer.bias_O for layer in linear]
    return lambda features: names[model.predict(features)].tolist()


def _svm(document: SVMFile) -> Decide:
    assert not document.linear_classifiers
    parts = document.rbf_classifiers

    def decide(features: NDArray[np.float32]) -> list[str]:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        values = [rbf_kernel(unit, part.support_vectors_SD, part.gamma) @ part.alpha_S - part.rho for part in parts]
        return [parts[best].model_name for best in np.argmax(values, axis=0)]

    return decide
