"""The bootstrap over queries: intervals of means, all from one set of resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["intervals"]

_N_RESAMPLES = 2000
_MAX_GROUPS = 10_000
_BLOCK = 50


def intervals(values_CQ: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """95 % percentile intervals of C means over Q queries.

    A query keeps its place in all columns, so a column of differences is a paired comparison. Beyond 10,000 queries,
    as many random groups of queries are drawn instead of single ones: sums of equally many independent queries vary as
    the queries do, and the work no longer grows.

    Args:
        values_CQ: (C, Q), NaN where a query does not count.
        seed: the same seed and number of queries give the same resamples.

    Returns:
        (C, 2) low and high; NaN for a column without values.

    Source:
        Efron (1979), doi:10.1214/aos/1176344552.
    """
    rng = np.random.default_rng(seed)
    n_queries = values_CQ.shape[1]
    known_CQ = np.isfinite(values_CQ)
    n_groups = min(n_queries, _MAX_GROUPS)
    group_Q = np.arange(n_queries)
    if n_groups < n_queries:
        group_Q = rng.permutation(n_queries) % n_groups
    sums_GC = _grouped(np.where(known_CQ, values_CQ, 0.0), group_Q, n_groups)
    counts_GC = _grouped(known_CQ.astype(float), group_Q, n_groups)
    means = []
    for _ in range(_N_RESAMPLES // _BLOCK):
        drawn = rng.integers(0, n_groups, size=(_BLOCK, n_groups)) + n_groups * np.arange(_BLOCK)[:, None]
        weights_RG = np.bincount(drawn.ravel(), minlength=_BLOCK * n_groups).reshape(_BLOCK, n_groups).astype(float)
        totals_RC = weights_RG @ counts_GC
        means.append(
            np.divide(weights_RG @ sums_GC, totals_RC, out=np.full_like(totals_RC, np.nan), where=totals_RC > 0)
        )
    means_RC = np.concatenate(means)
    out_C2 = np.full((len(values_CQ), 2), np.nan)
    some_C = known_CQ.any(axis=1)
    if some_C.any():
        out_C2[some_C] = np.nanpercentile(means_RC[:, some_C], [2.5, 97.5], axis=0).T
    return out_C2


def _grouped(values_CQ: NDArray[np.float64], group_Q: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    if n_groups == len(group_Q):
        return values_CQ.T  # one query a group
    return np.stack([np.bincount(group_Q, values_Q, minlength=n_groups) for values_Q in values_CQ], axis=1)
