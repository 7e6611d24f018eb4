"""KNN: the rows closest to the query vote, each for its model, with a weight made of quality and speed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpu_select.domains import N_DOMAINS
from gpu_select.selectors.base import Selector, exact_float32, rounded
from gpu_select.selectors.knn_search import Backend, RowIndex

__all__ = ["KNNSelector"]


class KNNSelector(Selector):
    """Score = sum of the votes of the k closest rows; a candidate list restricts the search to its models' rows.

    A row votes with 0.9 * max(quality, 0.01) + 0.1 * (1 - (latency - min) / max(max - min, 1 ns)), minimum and maximum
    over all rows; a missing quality is 0.5, no latencies at all mean a speed of 1.

    Args:
        embeddings_ND: (N, D) float32, finite, not normalised.
        labels: N model names.
        n_neighbors: k >= 1; with fewer rows, all of them vote.
        qualities_N: (N,) float64, any range.
        latencies_ns_N: (N,) int64.
        votes_N: (N,) float64, finite and positive: what a row votes with, in place of the rule above.
        backend: "torch" or "faiss"; both give the same rows.

    Source:
        Dudani (1976), doi:10.1109/TSMC.1976.5408784 (distance-free weights here: each row brings its own).
    """

    algorithm = "knn"
    label_N: Tensor
    votes_N: Tensor
    weight_N: Tensor
    unit: Tensor
    grid: Tensor

    def __init__(
        self,
        embeddings_ND: Tensor,
        labels: Sequence[str],
        *,
        n_neighbors: int,
        qualities_N: Tensor | None = None,
        latencies_ns_N: Tensor | None = None,
        votes_N: Tensor | None = None,
        backend: Backend = "torch",
    ) -> None:
        position = {name: m for m, name in enumerate(dict.fromkeys(labels))}
        super().__init__(list(position), embeddings_ND.shape[1])
        label_N = torch.tensor([position[name] for name in labels])
        # row N stands for "none": it votes for the first model with weight 0
        self.register_buffer("label_N", torch.cat([label_N, label_N.new_zeros(1)]))
        if votes_N is None:
            votes_N = _vote_weights(len(labels), qualities_N, latencies_ns_N)
        # float64 as the integers of the same bits, which MPS has, too, and which no change of dtype rounds
        self.register_buffer("votes_N", votes_N.view(torch.int64))
        self._set_neighbors(n_neighbors)
        self.index = RowIndex(embeddings_ND, label_N, len(position), backend, n_tail=N_DOMAINS)

    def with_neighbors(self, n_neighbors: int) -> KNNSelector:
        """The selector of the same rows with another k. Both share the rows' memory."""
        other = copy.copy(self)
        other._buffers = self._buffers.copy()
        other._set_neighbors(n_neighbors)
        return other

    def _set_neighbors(self, n_neighbors: int) -> None:
        self.n_neighbors = n_neighbors
        votes_N = self.votes_N.cpu().view(torch.float64)
        terms = min(n_neighbors, len(votes_N))
        # As whole multiples of a power of two, whose sums float64 holds exactly: equal sets of votes give equal sums in
        # any order, and a microsecond more or less still counts.
        most = float(votes_N.max()) * terms
        unit = 2.0 ** (math.ceil(math.log2(most)) - 52)
        # Sums that only rounding tells apart, as those of 0.55 + 0.5 and 2 x 0.525, are equal; far below a microsecond.
        grid = max(2.0**-33, unit * 2.0 ** (terms.bit_length() + 6))
        weight_N = (votes_N / unit).round().long()
        device = self.label_N.device
        self.register_buffer("weight_N", torch.cat([weight_N, weight_N.new_zeros(1)]).to(device))
        # powers of two, which float32 holds exactly
        self.register_buffer("unit", torch.tensor(unit, device=device))
        self.register_buffer("grid", torch.tensor(grid, device=device))

    def neighbors(self, features_BD: Tensor, candidates_BM: Tensor | None = None) -> Tensor:
        """(B, k) int64, the rows that vote, ascending; N where fewer rows belong to candidates."""
        with exact_float32():
            rows_Bk: Tensor = self.index(features_BD, self.n_neighbors, candidates_BM)
        return rows_Bk

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32 sums of votes."""
        rows_Bk = self.neighbors(features_BD, candidates_BM)
        votes_Bk = self.weight_N[rows_Bk].to(torch.float32 if features_BD.device.type == "mps" else torch.float64)
        zeros_BM = votes_Bk.new_zeros(features_BD.shape[0], len(self.models))
        sums_BM = zeros_BM.scatter_add(1, self.label_N[rows_Bk], votes_Bk)
        return rounded((sums_BM * (self.unit / self.grid)).round() * self.grid)


def _vote_weights(n_rows: int, qualities_N: Tensor | None, latencies_ns_N: Tensor | None) -> Tensor:
    if qualities_N is None:
        qualities_N = torch.full((n_rows,), 0.5, dtype=torch.float64)
    speed_N = torch.ones(n_rows, dtype=torch.float64)
    if latencies_ns_N is not None:
        latency_N = latencies_ns_N.double()  # the difference of two int64 may not be one
        speed_N = 1 - (latency_N - latency_N.min()) / (latency_N.max() - latency_N.min()).clamp(min=1)
    return 0.9 * qualities_N.double().clamp(min=0.01) + 0.1 * speed_N
