"""Pooled features: the definition in float64, the same bits in any batch, clear errors."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels import pool
from gpu_select_kernels.pool import pool_features

POOLINGS = ["last", "mean", "cls"]
IMPLS = ["torch", "triton"]


def packed(lengths, D, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden_TD = torch.randn(sum(lengths), D, generator=generator) + 0.3
    offsets_B1 = torch.tensor([0, *lengths]).cumsum(0)
    domain_B = torch.randint(0, 14, (len(lengths),), generator=generator)
    return hidden_TD.to(dtype), offsets_B1, domain_B


def by_definition(hidden_TD, offsets_B1, domain_B, pooling, n_domains=14):
    """Float64, sequence by sequence."""
    rows = []
    for b, domain in enumerate(domain_B.tolist()):
        tokens = hidden_TD[offsets_B1[b] : offsets_B1[b + 1]].double()
        pooled = {"last": tokens[-1], "mean": tokens.mean(0), "cls": tokens[0]}[pooling]
        rows.append(torch.cat([pooled / pooled.norm(), torch.eye(n_domains, dtype=torch.float64)[domain]]))
    return torch.stack(rows)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("lengths", "D", "dtype", "index"),
    [
        ([1], 1, torch.float32, torch.int64),
        ([5, 1, 70, 3], 100, torch.float32, torch.int32),
        ([2, 17, 1], 384, torch.float16, torch.int64),
        ([9, 4], 1038, torch.float32, torch.int32),
        ([3], 8192, torch.float16, torch.int32),
    ],
)
def test_features_are_those_of_the_definition(lengths, D, dtype, index, pooling, impl):
    hidden_TD, offsets_B1, domain_B = packed(lengths, D, dtype)
    found = pool_features(hidden_TD, offsets_B1.to(index), domain_B, n_domains=14, pooling=pooling, impl=impl)
    assert found.dtype == torch.float32
    expected = by_definition(hidden_TD, offsets_B1, domain_B, pooling)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_rows_bits_do_not_depend_on_the_other_sequences(pooling, impl):
    lengths = [3, 41, 1, 200, 7]
    hidden_TD, offsets_B1, domain_B = packed(lengths, 300, torch.float32)
    together = pool_features(hidden_TD, offsets_B1, domain_B, n_domains=14, pooling=pooling, impl=impl)
    for b, length in enumerate(lengths):
        alone = pool_features(
            hidden_TD[offsets_B1[b] : offsets_B1[b + 1]].clone(),
            torch.tensor([0, length]),
            domain_B[b : b + 1],
            n_domains=14,
            pooling=pooling,
            impl=impl,
        )
        assert torch.equal(alone[0], together[b])


@pytest.mark.parametrize("impl", IMPLS)
def test_without_domains_it_gives_plain_unit_embeddings(impl):
    hidden_TD, offsets_B1, domain_B = packed([4, 6], 33, torch.float32)
    plain = pool_features(hidden_TD, offsets_B1, pooling="mean", impl=impl)
    with_domains = pool_features(hidden_TD, offsets_B1, domain_B, n_domains=14, pooling="mean", impl=impl)
    assert plain.shape == (2, 33)
    assert torch.equal(plain, with_domains[:, :33])


@pytest.mark.parametrize("impl", IMPLS)
def test_a_zero_vector_stays_one_and_a_nan_stays_visible(impl):
    hidden_TD = torch.zeros(3, 20)
    hidden_TD[2, 7] = torch.nan
    found = pool_features(hidden_TD, torch.tensor([0, 2, 3]), pooling="mean", impl=impl)
    assert torch.equal(found[0], torch.zeros(20))
    assert found[1].isnan().all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_may_be_strided_and_a_batch_empty(pooling, impl):
    hidden_TD, offsets_B1, domain_B = packed([4, 6], 40, torch.float32)
    wide_TD = torch.cat([hidden_TD, hidden_TD + 1], dim=1)
    for view in (wide_TD[:, :40], hidden_TD.T.contiguous().T):
        found = pool_features(view, offsets_B1, domain_B, n_domains=14, pooling=pooling, impl=impl)
        expected = pool_features(hidden_TD, offsets_B1, domain_B, n_domains=14, pooling=pooling, impl=impl)
        assert torch.equal(found, expected)
    empty = pool_features(hidden_TD[:0], torch.zeros(1, dtype=torch.int64), pooling=pooling, impl=impl)
    assert empty.shape == (0, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "pooling: expected last, mean or cls, got 'max'"),
        ({"hidden_TD": torch.zeros(4, 3, dtype=torch.float64)}, r"hidden_TD: expected .* got \(4, 3\) torch.float64"),
        ({"hidden_TD": torch.zeros(1, 8193)}, r"hidden_TD: expected .*8192.* got \(1, 8193\)"),
        ({"offsets_B1": torch.zeros(3)}, r"offsets_B1: expected .* int64, got \(3,\) torch.float32"),
        ({"n_domains": 0}, "domain_B: expected a tensor if and only if n_domains > 0, got one with n_domains = 0"),
        ({"domain_B": torch.zeros(5, dtype=torch.int64)}, r"domain_B: expected \(2,\) int64, got \(5,\)"),
        ({"impl": "cuda"}, "impl: expected auto, torch or triton, got 'cuda'"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    hidden_TD, offsets_B1, domain_B = packed([1, 3], 3, torch.float32)
    arguments = {"hidden_TD": hidden_TD, "offsets_B1": offsets_B1, "domain_B": domain_B, "n_domains": 14}
    with pytest.raises(ValueError, match=message):
        pool_features(**{**arguments, "pooling": "mean", **change})


def test_the_sums_for_mps_are_those_of_segment_reduce():
    hidden_TD, offsets_B1, _ = packed([5, 1, 70, 3], 100, torch.float32)
    torch.testing.assert_close(pool._sums_by_product(hidden_TD, offsets_B1), pool._sums(hidden_TD, offsets_B1))
