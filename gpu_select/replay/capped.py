"""At most so many rows a model: the assignment of most value, exactly."""

from __future__ import annotations

from itertools import pairwise

import torch
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
    models = range(len(cap_M))
    precision = _PRECISION * float(value_QM.abs().max())
    loss_QM = value_QM.gather(1, choice_Q[:, None]) - value_QM
    edge_MM = loss_QM.new_full((len(cap_M), len(cap_M)), torch.inf)
    room_M = (cap_M - torch.bincount(choice_Q, minlength=len(cap_M))).tolist()
    changed = list(models)
    while True:
        for m in changed:
            rows = (choice_Q == m).nonzero().squeeze(1)
            edge_MM[m] = loss_QM[rows].amin(dim=0) if len(rows) else torch.inf
            edge_MM[m, m] = 0
        far, via = _shortest_paths(edge_MM.tolist(), precision)
        targets = [m for m in models if room_M[m] > 0]
        nearest = {m: min(targets, key=far[m].__getitem__) for m in models if targets}
        source = min(nearest, key=lambda m: far[m][nearest[m]], default=0)
        if not targets or far[source][nearest[source]] >= -precision:
            if min(room_M) >= 0:
                return choice_Q, _worth(far, nearest).to(value_QM)
            source = min((m for m in models if room_M[m] < 0), key=lambda m: far[m][nearest[m]])
        target = nearest[source]
        path = [source]
        while path[-1] != target:
            path.append(via[path[-1]][target])
        tied = [((choice_Q == a) & (loss_QM[:, b] == edge_MM[a, b])).nonzero().squeeze(1) for a, b in pairwise(path)]
        most = -room_M[source] if room_M[source] < 0 else len(choice_Q)
        n_moved = min(most, room_M[target], *map(len, tied))
        for rows, b in zip(tied, path[1:], strict=True):
            moved = rows[:n_moved]
            choice_Q[moved] = b
            loss_QM[moved] = value_QM[moved, b][:, None] - value_QM[moved]
        room_M[source] += n_moved
        room_M[target] -= n_moved
        changed = path


def _shortest_paths(edges: list[list[float]], precision: float) -> tuple[list[list[float]], list[list[int]]]:
    """Length of the shortest path between every two nodes, and the node after the first on it (Floyd, 1962)."""
    nodes = range(len(edges))
    far = [row.copy() for row in edges]
    via = [list(nodes) for _ in nodes]
    for k in nodes:
        for a in nodes:
            for b in nodes:
                # what is shorter by rounding alone could lead around in circles
                if far[a][k] + far[k][b] < far[a][b] - precision:
                    far[a][b] = far[a][k] + far[k][b]
                    via[a][b] = via[a][k]
    return far, via


def _worth(far: list[list[float]], nearest: dict[int, int]) -> Tensor:
    """What a row gains that a model passes on to get room, for each model."""
    worth_M = torch.tensor([far[m][nearest.get(m, 0)] for m in range(len(far))], dtype=torch.float64)
    # where there is no room anywhere, only differences count
    return worth_M.clamp(min=0) if nearest else worth_M - worth_M.min()
