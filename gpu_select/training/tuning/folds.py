"""Cross-validation: who is held out when, and how well choices made that way do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.records import OutcomeTable, query_digests
from gpu_select.training.utility import Advantages, best_model, centred, utilities

__all__ = ["FoldedData", "assign_folds", "best_of_domains", "best_single"]


def assign_folds(queries: list[str], n_folds: int, *, seed: int) -> NDArray[np.int64]:
    """(Q,) the fold that holds a query out; texts that differ only in spaces and letter case share theirs."""
    _, group_Q = np.unique(query_digests(queries), return_inverse=True)
    order_G = np.random.default_rng(seed).permutation(group_Q.max() + 1)
    return np.asarray(order_G[group_Q.reshape(-1)] % n_folds)


@dataclass(frozen=True, eq=False)
class FoldedData:
    """A table, its features, and which fold holds each query out."""

    features_QD: Tensor
    quality_QM: NDArray[np.float64]
    utility_QM: NDArray[np.float64]
    domain_Q: NDArray[np.int64]
    """By name: two names may share a slot of the one-hot."""
    fold_Q: NDArray[np.int64]
    seed: int

    @classmethod
    def of(
        cls, features_QD: Tensor, table: OutcomeTable, *, n_folds: int, quality_weight: float, seed: int
    ) -> FoldedData:
        """The data of a table; features_QD is (Q, D) float32 on the device to tune on."""
        fold_Q = assign_folds(table.queries, n_folds, seed=seed)
        utility_QM = utilities(table, quality_weight)
        return cls(features_QD, table.quality_QM, utility_QM, table.domain_groups(), fold_Q, seed)

    @property
    def n_folds(self) -> int:
        """The number of folds."""
        return int(self.fold_Q.max()) + 1

    def rows(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The queries that are learned from, and those that are held out."""
        return np.flatnonzero(self.fold_Q != fold), np.flatnonzero(self.fold_Q == fold)

    def gains(self, fold: int) -> Advantages:
        """Gains as known while a fold is held out: (Q, M), NaN in it."""
        return centred(np.where((self.fold_Q == fold)[:, None], np.nan, self.utility_QM))


def best_single(data: FoldedData) -> NDArray[np.int64]:
    """(Q,) for each query the model that is best on average where its fold is not looked at."""
    choice_Q = np.empty(len(data.fold_Q), np.int64)
    for fold in range(data.n_folds):
        choice_Q[data.fold_Q == fold] = data.gains(fold).mean_M.argmax()
    return choice_Q


def best_of_domains(data: FoldedData) -> NDArray[np.int64]:
    """(Q,) the same by domain, shrunk as the lookup table is that selector files carry."""
    choice_Q = np.empty(len(data.fold_Q), np.int64)
    n_domains = int(data.domain_Q.max()) + 1
    for fold in range(data.n_folds):
        gains = data.gains(fold)
        best_G = best_model(gains.of_groups(data.domain_Q, np.tile(gains.mean_M, (n_domains, 1))), gains.mean_M)
        held_out = data.rows(fold)[1]
        choice_Q[held_out] = best_G[data.domain_Q[held_out]]
    return choice_Q
