"""Exact nearest rows: a quick search proposes, an error bound says what is sure, float64 decides the rest."""

from __future__ import annotations

from typing import Literal

import torch
from gpu_select_kernels.knn import QUERY_TILE, pair_distances
from torch import Tensor

from gpu_select.derived import Deriving
from gpu_select.exporting import may_count
from gpu_select.selectors.knn_bins import BinSearch
from gpu_select.selectors.knn_flat import BFloat16Search, Float32Search, GroupedSearch, Search, has_fast_bfloat16
from gpu_select.selectors.knn_groups import TailGroups, distinct_by_tail
from gpu_select.selectors.knn_traced import TracedGroupedSearch

__all__ = ["Backend", "RowIndex"]

Backend = Literal["torch", "faiss"]

_SLACK = 16
"""Vectors proposed beyond the k asked for, so that a boundary of near-ties lies inside the proposal."""

_BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 2 << 30, "mps": 256 << 20}
"""Distances held at once. On a CPU they should stay near the cache."""

_PAIRS = 1 << 14
"""(query, vector) pairs compared at once in float64: 130 MB at D = 1024."""

_FEW_VECTORS = 2048
"""With fewer, neither bfloat16 nor groups have anything to win."""

_MANY_VECTORS = 1 << 15
"""From here on, all distances of a query take longer to write and to read on CUDA than to compute."""


class RowIndex(Deriving):
    """Finds the k rows closest to a query, the lower row first at equal distance, whatever the backend.

    Equal rows are kept once: files in the wild repeat every query once per model, and equal distances are what a
    float32 search cannot order.

    Args:
        embeddings_ND: (N, D) float32, finite.
        label_N: (N,) int64 in [0, n_labels); a query may be restricted to rows of some labels.
        n_labels: M.
        backend: what proposes neighbours: a matrix product and top-k in torch, or a flat FAISS index.
        n_tail: if few different values of the last `n_tail` dimensions occur, as with a one-hot, a query is searched
            among the rows of its value first. The rows found are the same.
    """

    derived = ("_quick",)
    rows_UR: Tensor
    count_U: Tensor
    count_UM: Tensor
    label_N: Tensor

    def __init__(
        self, embeddings_ND: Tensor, label_N: Tensor, n_labels: int, backend: Backend, n_tail: int = 0
    ) -> None:
        super().__init__()
        embeddings_ND = embeddings_ND.float() + 0.0  # -0.0 becomes 0.0: one number, one vector
        vectors_UD, vector_N, count_U = distinct_by_tail(embeddings_ND, n_tail)
        self.backend = backend
        # row lists, ascending, padded with N
        n_rows, n_vectors = len(embeddings_ND), len(vectors_UD)
        order_N = vector_N.argsort(stable=True)
        place_N = torch.arange(n_rows) - (count_U.cumsum(0) - count_U).repeat_interleave(count_U)
        rows_UR = torch.full((n_vectors, int(count_U.max())), n_rows)
        rows_UR[vector_N[order_N], place_N] = order_N
        count_UM = torch.zeros(n_vectors, n_labels)
        count_UM.index_put_((vector_N, label_N), torch.ones(n_rows), accumulate=True)
        large = n_vectors >= _FEW_VECTORS and backend == "torch"
        self.groups = TailGroups.of(vectors_UD, n_tail) if large else None
        self.flat = Float32Search(vectors_UD)
        self.register_buffer("rows_UR", rows_UR)
        self.register_buffer("count_U", count_U.float())
        self.register_buffer("count_UM", count_UM)
        self.register_buffer("label_N", torch.cat([label_N, label_N.new_zeros(1)]))  # row N stands for "none"
        self._quick: Search | None = None  # made where it is first needed
        if backend == "faiss":
            from gpu_select.selectors.knn_faiss import FlatSearch

            self._quick = FlatSearch(vectors_UD)  # at once, so that a missing package is an error at once

    @property
    def n_rows(self) -> int:
        """N."""
        return self.label_N.shape[0] - 1

    @property
    def n_vectors(self) -> int:
        """U."""
        return self.count_U.shape[0]

    def forward(self, features_BD: Tensor, k: int, labels_BM: Tensor | None = None) -> Tensor:
        """The k rows closest to each query by Euclidean distance.

        Args:
            features_BD: (B, D) float32, finite.
            k: rows wanted.
            labels_BM: (B, M) bool, the labels whose rows count; by default all.

        Returns:
            (B, min(k, N)) int64, rows in ascending order (not by distance); N stands for "none" where fewer rows count.
            On a CPU the rows are those of exact arithmetic. Elsewhere, where asking would stall the queue, a boundary
            at which more than 16 different vectors lie within float32 rounding of each other may be cut short.
        """
        k = min(k, self.n_rows)
        if torch.compiler.is_exporting():  # blocks would fix the number of queries
            return self._block(features_BD, k, labels_BM, _SLACK)
        n = min(k + _SLACK, self.n_vectors)
        budget = _BLOCK_BYTES.get(features_BD.device.type, _BLOCK_BYTES["cpu"])
        search = self._search(features_BD, n, masked=labels_BM is not None)
        # a float32 for every vector, or two bin searches, and a few tables over the proposed rows
        held = 2 * search.bytes_a_query if isinstance(search, BinSearch) else 4 * self.n_vectors
        n_queries = max(1, budget // max(held, 32 * n * self.rows_UR.shape[1]))
        if n_queries > QUERY_TILE:
            n_queries -= n_queries % QUERY_TILE
        if len(features_BD) > n_queries and self.groups and _on_cpu(features_BD):
            # blocks of one group each, or nearly so
            order_B = self.groups(features_BD)[0].argsort()
            rows_Bk = torch.empty((len(features_BD), k), dtype=torch.int64)
            for some_b in order_B.split(n_queries):
                mask_bM = None if labels_BM is None else labels_BM[some_b]
                rows_Bk[some_b] = self._block(features_BD[some_b], k, mask_bM, _SLACK)
            return rows_Bk
        blocks = torch.split(features_BD, n_queries)
        masks = torch.split(labels_BM, n_queries) if labels_BM is not None else [None] * len(blocks)
        return torch.cat([self._block(x_bD, k, mask_bM, _SLACK) for x_bD, mask_bM in zip(blocks, masks, strict=True)])

    def _search(self, x_bD: Tensor, n: int, *, masked: bool) -> Search:
        """What proposes n vectors on a device."""
        if self.backend == "faiss":
            if self._quick is None:
                from gpu_select.selectors.knn_faiss import FlatSearch

                self._quick = FlatSearch(self.flat.vectors)
            return self._quick
        if self.groups and may_count(x_bD):
            return TracedGroupedSearch(self.groups, self.flat)
        if _on_cpu(x_bD) and self.n_vectors >= _FEW_VECTORS:
            if self._quick is None:
                low = BFloat16Search(self.flat) if has_fast_bfloat16() else None
                self._quick = GroupedSearch(self.groups, self.flat, low or self.flat) if self.groups else low
            return self._quick or self.flat
        if x_bD.is_cuda and not torch.compiler.is_compiling() and not masked and self.n_vectors >= _MANY_VECTORS:
            if self._quick is None:
                self._quick = BinSearch(self.flat, self.groups)
            if isinstance(self._quick, BinSearch) and self._quick.can_take(n):
                return self._quick
        return self.flat

    def _block(self, x_bD: Tensor, k: int, labels_bM: Tensor | None, slack: int) -> Tensor:
        n = min(k + slack, self.n_vectors)
        allowed_bU = None if labels_bM is None else labels_bM.float() @ self.count_UM.T > 0
        on_cpu = _on_cpu(x_bD)
        search = self._search(x_bD, n, masked=labels_bM is not None)
        approx_bn, vector_bn = search(x_bD, min(k, n), n, allowed_bU)
        # the vector that completes k rows, and what float32 cannot tell from it
        if labels_bM is None:
            count_bn = self.count_U[vector_bn]
        else:
            count_bn = (self.count_UM[vector_bn] * labels_bM[:, None]).sum(dim=2)
        edge_b1 = (count_bn.cumsum(dim=1) < k).sum(dim=1, keepdim=True).clamp(max=n - 1)
        edge_b1 = approx_bn.gather(1, edge_b1)
        unsure_b1 = 2 * self.flat.error(x_bD)
        near_bn = (approx_bn >= edge_b1 - unsure_b1) & (approx_bn <= edge_b1 + unsure_b1)
        near_bn = near_bn & (approx_bn < torch.inf)  # infinite: not allowed, or a place that nothing was found for
        inside_bn = approx_bn < edge_b1 - unsure_b1
        proposal = (vector_bn, inside_bn, near_bn)
        if not on_cpu:
            return self._resolve(x_bD, k, labels_bM, *proposal)
        if labels_bM is None and self.rows_UR.shape[1] == 1:
            rows_bk = self.rows_UR[vector_bn[:, :k], 0].sort(dim=1).values
            todo = (near_bn.sum(dim=1) > 1).nonzero().squeeze(1)
            rows_bk[todo] = self._resolve(x_bD[todo], k, None, *(part[todo] for part in proposal))
        else:
            rows_bk = self._resolve(x_bD, k, labels_bM, *proposal)
        cut = near_bn[:, -1].nonzero().squeeze(1)
        if len(cut) and n < self.n_vectors:  # the near-ties may go on beyond what was proposed
            rows_bk[cut] = self._block(x_bD[cut], k, None if labels_bM is None else labels_bM[cut], 16 * slack)
        return rows_bk

    def _resolve(
        self,
        x_bD: Tensor,
        k: int,
        labels_bM: Tensor | None,
        vector_bn: Tensor,
        inside_bn: Tensor,
        near_bn: Tensor,
    ) -> Tensor:
        """The first k rows by (distance, row): vectors surely inside come first, near ones by their exact distance."""
        key_bn = self._exact(x_bD, vector_bn, near_bn).masked_fill(inside_bn, -torch.inf)
        rows_bnR = self.rows_UR[vector_bn]
        rows_bC = rows_bnR.flatten(1)
        key_bC = key_bn[:, :, None].expand_as(rows_bnR).flatten(1)
        counts_bC = rows_bC < self.n_rows
        if labels_bM is not None:
            counts_bC = counts_bC & labels_bM.gather(1, self.label_N[rows_bC])
        key_bC = key_bC.masked_fill(~counts_bC, torch.inf)
        rows_bC, by_row = rows_bC.sort(dim=1)
        key_bC = key_bC.gather(1, by_row)
        first_bk = key_bC.argsort(dim=1, stable=True)[:, :k]
        out_bk = torch.where(key_bC.gather(1, first_bk) < torch.inf, rows_bC.gather(1, first_bk), self.n_rows)
        return out_bk.sort(dim=1).values

    def _exact(self, x_bD: Tensor, vector_bn: Tensor, near_bn: Tensor) -> Tensor:
        """(b, n) squared distances in float64 (float32 on MPS) where `near_bn`, infinity elsewhere."""
        dtype = torch.float32 if x_bD.device.type == "mps" else torch.float64
        if not (_on_cpu(x_bD) or may_count(x_bD)):
            return pair_distances(x_bD, self.flat.vectors, vector_bn, near_bn, dtype=dtype)
        out_bn = torch.full(vector_bn.shape, torch.inf, dtype=dtype)
        query_P, place_P = near_bn.nonzero(as_tuple=True)
        blocks = [(query_P, place_P)]
        if not torch.compiler.is_exporting():  # a compiled program holds no differences, only their sums
            blocks = list(zip(torch.split(query_P, _PAIRS), torch.split(place_P, _PAIRS), strict=True))
        for query_p, place_p in blocks:
            difference_pD = x_bD[query_p].to(dtype) - self.flat.vectors[vector_bn[query_p, place_p]].to(dtype)
            out_bn[query_p, place_p] = difference_pD.square().sum(dim=1)
        return out_bn


def _on_cpu(x_bD: Tensor) -> bool:
    """Whether looking at the numbers costs nothing."""
    return x_bD.device.type == "cpu" and not torch.compiler.is_compiling()
