"""Rows are kept once, those of equal tail together, whatever their hashes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_select.selectors import knn_groups
from gpu_select.selectors.knn_groups import TailGroups, distinct_by_tail

ROWS = st.tuples(st.integers(1, 50), st.integers(1, 4)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, -1.0, 1e-40, 3e38]))
)


@pytest.mark.parametrize("collide", [False, True])
@given(rows_ND=ROWS, n_tail=st.integers(0, 4))
def test_each_different_row_once_and_tails_together(collide, rows_ND, n_tail):
    n_tail = min(n_tail, rows_ND.shape[1])
    rows = torch.from_numpy(rows_ND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_groups, "_BLOCK_ROWS", 7)
        if collide:
            patch.setattr(knn_groups, "_hashes", lambda rows, n_tail: (torch.zeros(len(rows)).long(),) * 2)
        vectors_UD, vector_N, count_U = distinct_by_tail(rows, n_tail)
    assert torch.equal(vectors_UD[vector_N], rows)
    assert len({tuple(vector) for vector in vectors_UD.tolist()}) == len(vectors_UD)
    assert torch.equal(count_U, vector_N.bincount(minlength=len(vectors_UD)))
    tails = [tuple(vector[len(vector) - n_tail :]) for vector in vectors_UD.tolist()]
    changes = sum(a != b for a, b in itertools.pairwise(tails))
    assert changes == len(set(tails)) - 1


def test_no_vector_outside_the_nearest_group_is_closer_than_the_bound():
    generator = torch.Generator().manual_seed(1)
    tails_GT = torch.rand(9, 3, generator=generator) * 10.0 ** torch.randint(-3, 4, (9, 1), generator=generator)
    vectors_UD = torch.cat([torch.randn(90, 2, generator=generator), tails_GT.repeat_interleave(10, dim=0)], dim=1)
    groups = TailGroups.of(vectors_UD, 3)
    assert groups is not None
    assert groups.bounds == tuple(range(0, 91, 10))
    x_bD = torch.cat([vectors_UD[::7], vectors_UD.roll(13, dims=0) * 1.1])
    group_b, beyond_b = groups(x_bD)
    squared_bU = torch.cdist(x_bD.double(), vectors_UD.double()).square()
    other_bU = torch.arange(90) // 10 != group_b[:, None]
    assert (squared_bU.masked_fill(~other_bU, torch.inf).amin(dim=1) >= beyond_b).all()
    tail_bU = torch.cdist(x_bD[:, 2:].double(), vectors_UD[:, 2:].double()).square()
    nearest_b = tail_bU.masked_fill(other_bU, torch.inf).amin(dim=1)
    assert (nearest_b <= tail_bU.amin(dim=1) + 1e-6).all()
