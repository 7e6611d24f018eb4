"""FAISS as the search backend of KNN: a flat index on CPU or GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_select.errors import MissingDependencyError

__all__ = ["FlatSearch"]

_MOST_INDEXES = 16
"""Candidate sets whose index is kept; each index is a copy of its vectors."""


def _faiss() -> Any:
    try:
        import faiss  # after torch, or their OpenMP runtimes clash
    except ImportError as error:
        raise MissingDependencyError(
            "faiss", "the KNN backend faiss", "'gpu-select[faiss-cpu]' or '[faiss-gpu]'"
        ) from error
    return faiss


class FlatSearch:
    """`Search` of knn_flat.py over FAISS flat indexes: one over all vectors, one for each candidate set in use.

    Args:
        vectors_UD: (U, D) float32.
    """

    def __init__(self, vectors_UD: Tensor) -> None:
        self._faiss = _faiss()
        self._vectors_UD = np.ascontiguousarray(vectors_UD.cpu().numpy())
        self._indexes: dict[tuple[torch.device, bytes], tuple[Any, Tensor]] = {}
        self._resources: Any = None

    def __call__(self, x_bD: Tensor, k: int, n: int, allowed_bU: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Search`."""
        if allowed_bU is None:
            allowed_bU = torch.ones(1, len(self._vectors_UD), dtype=torch.bool).expand(len(x_bD), -1)
        approx_bn = x_bD.new_full((len(x_bD), n), torch.inf)
        vector_bn = torch.zeros((len(x_bD), n), dtype=torch.int64, device=x_bD.device)
        sets_SU, set_b = torch.unique(allowed_bU, dim=0, return_inverse=True)
        for s, allowed_U in enumerate(sets_SU):
            rows = (set_b == s).nonzero().squeeze(1)
            index, members = self._index(allowed_U, x_bD.device)
            m = min(n, len(members))
            if not m:  # FAISS refuses to look for nothing
                continue
            squared, found = self._search(index, x_bD[rows], m)
            squared -= x_bD[rows].square().sum(dim=1, keepdim=True)
            approx_bn[rows, :m] = squared
            vector_bn[rows, :m] = members[found]
        return approx_bn, vector_bn

    def _index(self, allowed_U: Tensor, device: torch.device) -> tuple[Any, Tensor]:
        key = (device, np.packbits(allowed_U.cpu().numpy()).tobytes())
        if key not in self._indexes:
            if len(self._indexes) == _MOST_INDEXES:
                self._indexes.clear()
            members = allowed_U.cpu().nonzero().squeeze(1)
            index = self._faiss.IndexFlatL2(self._vectors_UD.shape[1])
            index.add(self._vectors_UD[members.numpy()])
            if device.type == "cuda":
                if not hasattr(self._faiss, "StandardGpuResources"):
                    raise MissingDependencyError(
                        "faiss-gpu", "the KNN backend faiss on CUDA", "'gpu-select[faiss-gpu]'"
                    )
                # the index works in these for as long as it lives, and FAISS does not own them
                self._resources = self._resources or self._faiss.StandardGpuResources()
                index = self._faiss.index_cpu_to_gpu(self._resources, device.index or 0, index)
            self._indexes[key] = index, members.to(device)
        return self._indexes[key]

    def _search(self, index: Any, x_bD: Tensor, n: int) -> tuple[Tensor, Tensor]:
        # GPU indexes take and return host arrays through this interface; the copies are part of what FAISS costs
        squared, found = index.search(np.ascontiguousarray(x_bD.cpu().numpy()), n)
        return torch.from_numpy(squared).to(x_bD.device), torch.from_numpy(found).to(x_bD.device)
