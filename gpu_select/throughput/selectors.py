"""Selectors of chosen size, for measuring where none is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select.artifacts import selector_of
from gpu_select.domains import N_DOMAINS
from gpu_select.encoder import Encoder, embed
from gpu_select.errors import ConfigError
from gpu_select.router import Router
from gpu_select.throughput.corpus import read_corpus
from gpu_select.throughput.queries import cut_queries
from gpu_select.wire import (
    ALGORITHMS,
    KMeansFile,
    KNNFile,
    LinearLayer,
    MLPFile,
    RBFClassifier,
    ReLULayer,
    SelectorFile,
    SVMFile,
)

__all__ = ["random_document", "random_router"]

_N_MODELS = 6
_MODELS = [f"model-{m}" for m in range(_N_MODELS)]
_NEIGHBORS = 5
_CLUSTERS = 64
_GAMMA = 1.0
_HIDDEN = 512
_NOISE = 0.5
_BLOCK = 65_536
_SAMPLE, _SAMPLE_TOKENS, _SAMPLE_BYTES = 256, 24, 4 * 2**20
"""Queries whose embeddings the selector's vectors are spread around."""
_SUPPORT_SHARE = 2 / 3
"""Of the training queries that become support vectors of one machine."""


def random_router(encoder: Encoder, algorithm: str, rows: int, *, seed: int = 0) -> Router:
    """A router with a selector that `random_document` describes, on the encoder's device.

    Args:
        encoder: any.
        algorithm, rows, seed: as for `random_document`.
    Raises:
        ConfigError: as there.
    """
    document = random_document(encoder, algorithm, rows, seed=seed)
    return Router(encoder, selector_of(document).to(encoder.device))


def random_document(encoder: Encoder, algorithm: str, rows: int, *, seed: int = 0) -> SelectorFile:
    """What a selector file would hold after training on so many queries, for six made-up models.

    Args:
        encoder: its embeddings of a few texts are what the selector's vectors are spread around.
        algorithm: knn (5 neighbours), kmeans (64 clusters at most), svm (RBF; two thirds of the rows are support
            vectors of each machine) or mlp (512 hidden units, whatever the rows).
        rows: training queries.
        seed: the same one gives the same selector.
    Raises:
        ConfigError: another algorithm, or no rows.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigError("selector", algorithm, f"one of {', '.join(ALGORITHMS)}")
    if rows < 1:
        raise ConfigError("rows", rows, "an integer >= 1")
    if algorithm == "kmeans":
        rows = min(rows, _CLUSTERS)
    sample = cut_queries(read_corpus(_SAMPLE_BYTES), encoder.tokenizer, _SAMPLE, _SAMPLE_TOKENS, seed=seed + 1)
    features_ND = _spread(embed(encoder, sample.texts).vectors, rows, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    # models share the space in slices, and each owns something
    directions_DM = torch.randn(features_ND.shape[1], _N_MODELS, generator=generator)
    owner_N = torch.cat([block @ directions_DM for block in torch.split(features_ND, _BLOCK)]).argmax(dim=1)
    owner_N[:_N_MODELS] = torch.arange(min(rows, _N_MODELS))
    if algorithm == "mlp":
        return _random_mlp(features_ND.shape[1], directions_DM, generator)
    labels = [_MODELS[m] for m in owner_N.tolist()]
    if algorithm == "knn":
        qualities_N = 1000 * torch.rand(rows, generator=generator, dtype=torch.float64)
        return KNNFile(_NEIGHBORS, features_ND.numpy(), labels, qualities_N.numpy())
    if algorithm == "kmeans":
        return KMeansFile(features_ND.numpy(), labels)
    unit_ND = functional.normalize(features_ND, dim=1)
    n_support = max(1, round(_SUPPORT_SHARE * rows))
    parts = []
    for m, model in enumerate(_MODELS):
        chosen_S = torch.randperm(rows, generator=generator)[:n_support]
        alpha_S = torch.where(owner_N[chosen_S] == m, 1.0, -1.0 / (_N_MODELS - 1))
        alpha_S = alpha_S.double() * torch.rand(n_support, generator=generator, dtype=torch.float64)
        alpha_S -= alpha_S.mean()  # as in a solved machine, where they add up to zero
        parts.append(RBFClassifier(model, alpha_S.numpy(), unit_ND[chosen_S].numpy(), 0.0, _GAMMA))
    return SVMFile(_MODELS, "rbf", _GAMMA, rbf_classifiers=parts)


def _random_mlp(dim: int, directions_DM: Tensor, generator: torch.Generator) -> MLPFile:
    """Hidden units of random directions, each for the models that lie in its direction."""
    hidden_HD = torch.randn(_HIDDEN, dim, generator=generator) / dim**0.5
    out_MH = (hidden_HD @ directions_DM).T
    return MLPFile(_MODELS, [LinearLayer(hidden_HD.numpy()), ReLULayer(), LinearLayer(out_MH.contiguous().numpy())])


def _spread(embeddings_Ed: Tensor, rows: int, *, seed: int) -> Tensor:
    """(rows, d + 14) features: embeddings with noise of half their length, unit again, and a domain each."""
    generator = torch.Generator().manual_seed(seed)
    d = embeddings_Ed.shape[1]
    features_ND = torch.zeros(rows, d + N_DOMAINS)
    for start in range(0, rows, _BLOCK):
        block = features_ND[start : start + _BLOCK]
        chosen_B = torch.randint(len(embeddings_Ed), (len(block),), generator=generator)
        noise_Bd = torch.randn(len(block), d, generator=generator) * (_NOISE / d**0.5)
        block[:, :d] = functional.normalize(embeddings_Ed[chosen_B] + noise_Bd, dim=1)
        domain_B = torch.randint(N_DOMAINS, (len(block),), generator=generator)
        block[torch.arange(len(block)), d + domain_B] = 1
    return features_ND
