"""The files that decisions need: each loaded once, and compared with what the configuration says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from gpu_select.artifacts import Artifact, check_encoder, encoder_name, find_selector_files, load_selector
from gpu_select.config import AlgorithmConfig, DecisionConfig, RouterConfig
from gpu_select.config.sections import Problems
from gpu_select.domain_file import DOMAIN_FILE, DomainFile, read_domain_file
from gpu_select.errors import DimensionError, brief
from gpu_select.features import check_width
from gpu_select.selectors import Backend, KNNSelector, Selector
from gpu_select.wire import file_name

__all__ = ["DecisionArtifacts", "load_decision_artifacts"]


@dataclass(frozen=True, eq=False)
class DecisionArtifacts:
    """The selectors and the domain head of a configuration, on a device."""

    selectors: tuple[Selector, ...]
    """Each algorithm once, KNN once for each k."""
    selector_of: Mapping[str, int]
    """By decision name, which of them chooses; decisions without an algorithm are missing."""
    files: tuple[Artifact, ...]
    domain_path: Path | None
    """Where a domain head is looked for."""
    domain_file: DomainFile | None

    @property
    def encoder_name(self) -> str | None:
        """The encoder that the files were trained with, where one tells."""
        notes = [file.own for file in self.files] + ([self.domain_file.own] if self.domain_file else [])
        return next((name for name in map(encoder_name, notes) if name), None)

    def check_encoder(self, name: str, fingerprint: str, dim: int) -> None:
        """Refuse an encoder that the files were not trained with.

        Raises:
            EncoderMismatchError, DimensionError: naming the file.
        """
        for file in self.files:
            file.check_encoder(name, fingerprint)
            check_width(file.selector.dim, dim, file.path)
        if self.domain_file is not None and self.domain_path is not None:
            check_encoder(self.domain_path, self.domain_file.own, name, fingerprint)
            width = self.domain_file.weight_Cd.shape[1]
            if width != dim:
                raise DimensionError(
                    f"embedding dimension mismatch: {self.domain_path} has d = {width}, encoder {name} gives {dim}"
                )


def load_decision_artifacts(
    config: RouterConfig, *, device: torch.device, backend: Backend = "torch"
) -> DecisionArtifacts:
    """Load and check what decisions need.

    Args:
        config: from `read_config`.
        device: where the selectors go.
        backend: what searches KNN's rows.

    Raises:
        InputError, FileFormatError: a file breaks its format.
        ConfigError: a file is missing, or a parameter or model disagrees with its file; all of it at once.
    """
    folder = config.models_path
    problems = Problems(config.path)
    files = _load_files(config, problems, device, backend)
    selectors: dict[tuple[str, int | None], Selector] = {}
    selector_of: dict[str, int] = {}
    for decision in config.decisions:
        artifact = files.get(decision.algorithm.type) if decision.algorithm else None
        if decision.algorithm is None or artifact is None:
            continue
        _compare(decision, decision.algorithm, artifact, problems)
        selector = artifact.selector
        k = decision.algorithm.k
        if isinstance(selector, KNNSelector) and k is not None and k != selector.n_neighbors:
            selector = selector.with_neighbors(k)
        key = decision.algorithm.type, getattr(selector, "n_neighbors", None)
        selectors.setdefault(key, selector)
        selector_of[decision.name] = list(selectors).index(key)
    problems.raise_if_any()
    domain_path = None if folder is None else Path(folder) / DOMAIN_FILE
    has_head = domain_path is not None and os.path.exists(domain_path)
    domain_file = read_domain_file(domain_path) if domain_path is not None and has_head else None
    return DecisionArtifacts(tuple(selectors.values()), selector_of, tuple(files.values()), domain_path, domain_file)


def _load_files(
    config: RouterConfig, problems: Problems, device: torch.device, backend: Backend
) -> dict[str, Artifact]:
    """The files of the algorithms in use, by algorithm."""
    wanted: dict[str, str] = {}
    for decision in config.decisions:
        if decision.algorithm is not None:
            wanted.setdefault(decision.algorithm.type, f"{decision.where}.algorithm.type")
    folder = config.models_path
    if not wanted or folder is None:
        return {}
    paths = find_selector_files(folder)
    files = {}
    for algorithm, where in wanted.items():
        if algorithm in paths:
            files[algorithm] = load_selector(paths[algorithm], algorithm=algorithm, device=device, backend=backend)
        else:
            problems.add(
                where,
                f"pretrained model not found: {folder} holds no {file_name(algorithm)} (train it: gpu-select train "
                f"--data-file RECORDS.jsonl --output-dir {folder} --algorithm {algorithm})",
            )
    return files


def _compare(decision: DecisionConfig, algorithm: AlgorithmConfig, artifact: Artifact, problems: Problems) -> None:
    """What a decision says of its selector's file that the file does not bear out."""
    for field in fields(algorithm):
        wanted, has = getattr(algorithm, field.name), artifact.parameters.get(field.name)
        # any k can be honoured; without an RBF part, gamma shapes nothing
        if field.name in ("type", "k") or wanted is None or has is None or wanted == has:
            continue
        if field.name == "num_clusters" and wanted == _noted(artifact, "options", "kmeans", "clusters"):
            continue  # of so many, some came out empty
        problems.add(
            f"{decision.where}.algorithm.{algorithm.type}.{field.name}",
            f"expected {has}, with which {artifact.path} was trained, got {wanted}: leave it out, or train again",
        )
    chosen = artifact.selector.models
    noted = _noted(artifact, "data", "models")
    # a model may have been in training without being the best anywhere: it comes last
    known = {*chosen, *(name for name in (noted if isinstance(noted, list) else []) if isinstance(name, str))}
    expected = f"expected a model that {artifact.path} knows ({', '.join(sorted(known))})"
    unknown = [i for i, model in enumerate(decision.models) if model not in known]
    for i in unknown:
        problems.add(f"{decision.where}.modelRefs[{i}].model", f"{expected}, got {brief(decision.models[i])}")
    if not unknown and not set(chosen) & set(decision.models):
        problems.add(
            f"{decision.where}.modelRefs",
            f"expected a model that {artifact.path} chooses for some query ({', '.join(chosen)}), got only others",
        )


def _noted(artifact: Artifact, *keys: str) -> object:
    """What stands at a place in a file's own note, None where there is no such place."""
    value: object = artifact.own
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
