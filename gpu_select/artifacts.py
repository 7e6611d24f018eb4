"""A folder of standard JSON files <-> selectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpu_select.errors import EncoderMismatchError, FileFormatError, InputError, brief
from gpu_select.selectors import (
    Backend,
    BatchNorm,
    KMeansSelector,
    KNNSelector,
    Linear,
    LinearPart,
    MLPSelector,
    RBFPart,
    ReLU,
    Selector,
    SVMSelector,
)
from gpu_select.wire import (
    ALGORITHMS,
    BatchNormLayer,
    DropoutLayer,
    KMeansFile,
    KNNFile,
    LinearLayer,
    MLPFile,
    MLPLayer,
    SelectorFile,
    file_name,
    read_selector_file,
)

__all__ = ["Artifact", "check_encoder", "encoder_name", "find_selector_files", "load_selector", "selector_of"]


@dataclass(frozen=True, eq=False)
class Artifact:
    """A selector and what its file tells about where it comes from."""

    path: Path
    selector: Selector
    own: dict[str, Any]
    """What stands under the file's own "gpu_select" key; empty for files of other programs."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """What shapes the selector, under the names that configurations have for it: k of KNN, num_clusters of KMeans,
    kernel and gamma of SVM."""

    @property
    def encoder_name(self) -> str | None:
        """The encoder the file was trained with, where it tells."""
        return encoder_name(self.own)

    def check_encoder(self, name: str, fingerprint: str) -> None:
        """Refuse an encoder other than the one the file was trained with, where the file tells.

        Raises:
            EncoderMismatchError: naming both encoders.
            FileFormatError: the file's note on its encoder is not one of ours.
        """
        check_encoder(self.path, self.own, name, fingerprint)


def encoder_name(own: Mapping[str, Any]) -> str | None:
    """The encoder that a file of ours was trained with, where its own note tells."""
    encoder = own.get("encoder")
    name = encoder.get("name") if isinstance(encoder, dict) else None
    return name if isinstance(name, str) else None


def check_encoder(path: Path, own: Mapping[str, Any], name: str, fingerprint: str) -> None:
    """Refuse an encoder other than the one that a file was trained with, where its own note tells.

    Args:
        path: the file, for errors.
        own: its note.
        name, fingerprint: of the encoder in use.

    Raises:
        EncoderMismatchError: naming both encoders.
        FileFormatError: the note on its encoder is not one of ours.
    """
    encoder = own.get("encoder")
    if encoder is None:
        return
    if not isinstance(encoder, dict) or not all(isinstance(encoder.get(k), str) for k in ("name", "fingerprint")):
        raise FileFormatError(path, "gpu_select.encoder", "an object with name and fingerprint", brief(encoder))
    if encoder["fingerprint"] != fingerprint:
        raise EncoderMismatchError.between(path, (encoder["name"], encoder["fingerprint"]), (name, fingerprint))


def find_selector_files(folder: str | Path) -> dict[str, Path]:
    """The selector files of a folder by algorithm, plain or .gz.

    Raises:
        InputError: the folder is missing or holds none.
    """
    found = {}
    for algorithm in ALGORITHMS:
        for ending in ("", ".gz", ".zst"):
            path = Path(folder) / (file_name(algorithm) + ending)
            if os.path.exists(path):  # pathlib's raises for a name that is too long
                found[algorithm] = path
                break
    if not found:
        names = ", ".join(map(file_name, ALGORITHMS))
        raise InputError(
            f"pretrained model not found: {folder} holds none of {names} "
            f"(train them: gpu-select train --data-file RECORDS.jsonl --output-dir {folder})"
        )
    return found


def load_selector(
    path: str | Path, *, algorithm: str | None = None, device: str | torch.device = "cpu", backend: Backend = "torch"
) -> Artifact:
    """Read one selector file and put the selector on a device.

    Args:
        path: the file, or a folder together with `algorithm`.
        algorithm: "knn", "kmeans", "svm" or "mlp"; for a file, by default whatever it holds.
        device: a torch device.
        backend: what searches KNN's rows.

    Raises:
        InputError: no such file.
        FileFormatError: the file breaks the format.
    """
    path = Path(path)
    # what is missing and not called a file is a folder still to be filled
    is_folder = os.path.isdir(path) or not (os.path.exists(path) or ".json" in path.name)
    if is_folder and algorithm is not None:
        path = find_selector_files(path).get(algorithm, path / file_name(algorithm))
    document = read_selector_file(path, algorithm)
    selector = selector_of(document, backend=backend).to(device)
    return Artifact(path, selector, document.own, _parameters(document))


def selector_of(document: SelectorFile, *, backend: Backend = "torch") -> Selector:
    """The selector that a checked document describes, on the CPU."""
    if isinstance(document, KNNFile):
        return KNNSelector(
            torch.from_numpy(document.embeddings_ND),
            document.labels,
            n_neighbors=document.k,
            qualities_N=None if document.qualities_N is None else torch.from_numpy(document.qualities_N),
            latencies_ns_N=None if document.latencies_ns_N is None else torch.from_numpy(document.latencies_ns_N),
            backend=backend,
        )
    if isinstance(document, KMeansFile):
        return KMeansSelector(torch.from_numpy(document.centroids_KD), document.cluster_models)
    if isinstance(document, MLPFile):
        layers = [_layer(layer) for layer in document.layers if not isinstance(layer, DropoutLayer)]
        return MLPSelector(document.model_names, layers)
    return SVMSelector(
        [LinearPart(p.model_name, torch.from_numpy(p.weights_D), p.rho) for p in document.linear_classifiers],
        [
            RBFPart(p.model_name, torch.from_numpy(p.alpha_S), torch.from_numpy(p.support_vectors_SD), p.rho, p.gamma)
            for p in document.rbf_classifiers
        ],
    )


def _parameters(document: SelectorFile) -> dict[str, object]:
    if isinstance(document, KNNFile):
        return {"k": document.k}
    if isinstance(document, KMeansFile):
        return {"num_clusters": len(document.centroids_KD)}
    if isinstance(document, MLPFile):
        return {}
    gammas = sorted({classifier.gamma for classifier in document.rbf_classifiers})
    if not gammas:
        return {"kernel": "linear"}  # whatever kernel_type says: the classifiers decide
    return {"kernel": "rbf", "gamma": gammas[0] if len(gammas) == 1 else gammas}


def _layer(layer: MLPLayer) -> Linear | BatchNorm | ReLU:
    if isinstance(layer, LinearLayer):
        bias_O = None if layer.bias_O is None else torch.from_numpy(layer.bias_O)
        return Linear(torch.from_numpy(layer.weight_OI), bias_O)
    if isinstance(layer, BatchNormLayer):
        return BatchNorm(
            torch.from_numpy(layer.weight_W),
            torch.from_numpy(layer.bias_W),
            torch.from_numpy(layer.running_mean_W),
            torch.from_numpy(layer.running_var_W),
            layer.eps,
        )
    return ReLU()
