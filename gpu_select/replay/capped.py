"""At most so many rows a model: the assignment of most value, exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["assign_capped"]

_PRECISION = 1e-12
"""Of the largest value: smaller gains are rounding."""


def assign_capped(value_QM: Tensor, cap_M: Tensor, choice_Q: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange rows between models until the limits hold and no exchange gains anything.

    The models are the nodes of a small graph; an edge is the least that moving one row from one model to another
    loses. Rows move along a cheapest path, all that tie at once: as long as that gains something, then from models that
    have too many to models that have room. Either keeps the assignment the best one for the numbers of rows that its
    models have. So the last one is the optimum, and the transportation problem's linear program has no better one.

    Args:
        value_QM: (Q, M) float64, finite.
        cap_M: (M,) int64, most rows a model; together at least Q.
        choice_Q: (Q,) to start from, an argmax of value - price for some prices of the models. The better the prices,
            the sooner it is done.

    Returns:
        (Q,) the assignment, and (M,) float64 what one more row with each model would gain.

    Source:
        Ahuja, Magnanti and Orlin (1993), Network flows, chapter 9, successive shortest paths.
    """
    choice_Q = choice_Q.clone()
    n_models = len(cap_M)
    precision = _PRECISION * float(value_QM.abs().max())
    loss_QM = value_QM.gather(1, choice_Q[:, None]) - value_QM
    edge_MM = np.full((n_models, n_models), np.inf)
    room_M = (cap_M - torch.bincount(choice_Q, minlength=n_models)).cpu().numpy()
    changed = list(range(n_models))
    while True:
        for m in changed:
            rows = (choice_Q == m).nonzero().squeeze(1)
            edge_MM[m] = loss_QM[rows].amin(dim=0).cpu().numpy() if len(rows) else np.inf
            edge_MM[m, m] = 0
        far_MM, via_MM = _shortest_paths(edge_MM, precision)
        to_room_MM = np.where(room_M > 0, far_MM, np.inf)
        nearest_M, target_M = to_room_MM.min(axis=1), to_room_MM.argmin(axis=1)
        if not nearest_M.min() < -precision:
            if room_M.min() >= 0:
                # where there is no room anywhere, only differences count
                worth_M = nearest_M.clip(0) if (room_M > 0).any() else far_MM[:, 0] - far_MM[:, 0].min()
                return choice_Q, torch.from_numpy(worth_M).to(value_QM.device)
            nearest_M = np.where(room_M < 0, nearest_M, np.inf)
        source = int(nearest_M.argmin())
        path = [source]
        while path[-1] != target_M[source]:
            path.append(int(via_MM[path[-1], target_M[source]]))
        tied = [
            ((choice_Q == a) & (loss_QM[:, b] == float(edge_MM[a, b]))).nonzero().squeeze(1) for a, b in pairwise(path)
        ]
        most = -room_M[source] if room_M[source] < 0 else len(choice_Q)
        n_moved = int(min(most, room_M[path[-1]], *map(len, tied)))
        for rows, b in zip(tied, path[1:], strict=True):
            moved = rows[:n_moved]
            choice_Q[moved] = b
            loss_QM[moved] = value_QM[moved, b][:, None] - value_QM[moved]
        room_M[source] += n_moved
        room_M[path[-1]] -= n_moved
        changed = path


def _shortest_paths(edge_MM: NDArray[np.float64], precision: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Length of the shortest path between every two nodes, and the node after the first on it (Floyd, 1962)."""
    far_MM, via_MM = edge_MM, np.tile(np.arange(len(edge_MM)), (len(edge_MM), 1))
    for k in range(len(edge_MM)):
        through_MM = far_MM[:, k : k + 1] + far_MM[k]
        shorter_MM = through_MM < far_MM - precision  # what is shorter by rounding alone could lead around in circles
        far_MM = np.where(shorter_MM, through_MM, far_MM)
        via_MM = np.where(shorter_MM, via_MM[:, k : k + 1], via_MM)
    return far_MM, via_MM
