"""From packed token vectors to features: pool, normalise, append the one-hot domain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gpu_select_kernels.dispatch import Impl, resolve_impl

__all__ = ["PoolingName", "pool_features"]

PoolingName = Literal["last", "mean", "cls"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def pool_features(
    hidden_TD: Tensor,
    offsets_B1: Tensor,
    domain_B: Tensor | None = None,
    *,
    n_domains: int = 0,
    pooling: PoolingName,
    impl: Impl = "auto",
) -> Tensor:
    """One feature vector a sequence: its pooled vector scaled to unit norm, then the one-hot of its domain.

    A row's bits depend on its own sequence alone. Nothing here waits for the device.

    Args:
        hidden_TD: (T, D) float32, float16 or bfloat16, the sequences' tokens one after another; D at most 8192.
        offsets_B1: (B + 1,) int32 or int64 on the same device; sequence b is the rows offsets[b] to offsets[b + 1],
            at least one. Not checked, as that would wait for the device.
        domain_B: (B,) int64 on the same device; none where n_domains is 0. One outside the domains has no 1.
        n_domains: width of the one-hot part; 0 gives plain unit embeddings.
        pooling: the last token, the mean of all, or the first.
        impl: which implementation runs.
    Returns:
        (B, D + n_domains) float32. Sums run in float32, token after token in the reference; a zero vector stays one.
    Raises:
        ValueError: an unknown pooling, or shapes or dtypes other than these.
    """
    _check(hidden_TD, offsets_B1, domain_B, n_domains, pooling)
    if resolve_impl(impl, hidden_TD) == "triton":
        from gpu_select_kernels import pool_triton

        return pool_triton.pool_features(hidden_TD, offsets_B1, domain_B, n_domains=n_domains, pooling=pooling)
    return _reference(hidden_TD, offsets_B1, domain_B, n_domains, pooling)


def _reference(
    hidden_TD: Tensor, offsets_B1: Tensor, domain_B: Tensor | None, n_domains: int, pooling: PoolingName
) -> Tensor:
    if pooling == "last":
        pooled_BD = hidden_TD.index_select(0, offsets_B1[1:] - 1).float()
    elif pooling == "cls":
        pooled_BD = hidden_TD.index_select(0, offsets_B1[:-1]).float()
    else:
        # the mean points where the sum points, and only the direction is kept
        sums = _sums_by_product if hidden_TD.device.type == "mps" else _sums
        pooled_BD = sums(hidden_TD.float(), offsets_B1)
    unit_BD = functional.normalize(pooled_BD, dim=1)
    if domain_B is None:
        return unit_BD
    slots = torch.arange(n_domains, device=domain_B.device)
    return torch.cat([unit_BD, (domain_B[:, None] == slots).float()], dim=1)


def _sums(hidden_TD: Tensor, offsets_B1: Tensor) -> Tensor:
    # takes a sequence's tokens in their order; products with a mask and atomic additions would not
    return torch.segment_reduce(hidden_TD, "sum", offsets=offsets_B1, axis=0, unsafe=True)


def _sums_by_product(hidden_TD: Tensor, offsets_B1: Tensor) -> Tensor:
    """For MPS, which has no segment_reduce: (B, T) membership times the tokens."""
    token_T = torch.arange(len(hidden_TD), device=hidden_TD.device)
    member_BT = (token_T >= offsets_B1[:-1, None]) & (token_T < offsets_B1[1:, None])
    return member_BT.to(hidden_TD.dtype) @ hidden_TD


def _check(
    hidden_TD: Tensor, offsets_B1: Tensor, domain_B: Tensor | None, n_domains: int, pooling: PoolingName
) -> None:
    if pooling not in ("last", "mean", "cls"):
        raise ValueError(f"pooling: expected last, mean or cls, got {pooling!r}")
    if hidden_TD.ndim != 2 or hidden_TD.dtype not in _FLOATS or not 1 <= hidden_TD.shape[1] <= 8192:
        raise ValueError(
            f"hidden_TD: expected (T, D <= 8192) float32, float16 or bfloat16, "
            f"got {tuple(hidden_TD.shape)} {hidden_TD.dtype}"
        )
    if offsets_B1.ndim != 1 or offsets_B1.shape[0] < 1 or offsets_B1.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"offsets_B1: expected (B + 1,) int32 or int64, got {tuple(offsets_B1.shape)} {offsets_B1.dtype}"
        )
    if (domain_B is None) != (n_domains == 0):
        raise ValueError(
            f"domain_B: expected a tensor if and only if n_domains > 0, "
            f"got {'none' if domain_B is None else 'one'} with n_domains = {n_domains}"
        )
    if domain_B is not None and (domain_B.dtype != torch.int64 or domain_B.shape != (offsets_B1.shape[0] - 1,)):
        raise ValueError(
            f"domain_B: expected ({offsets_B1.shape[0] - 1},) int64, got {tuple(domain_B.shape)} {domain_B.dtype}"
        )
