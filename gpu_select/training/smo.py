"""Support vector machines by sequential minimal optimisation, all problems over the same rows at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Kernel", "solve"]

_FULL_GRAM_ROWS = 16_384
"""Up to here the kernel matrix is kept whole (1 GB in float32); beyond, rows are computed as they are needed."""

_CHECK_EVERY = 64
_MAX_ITERATIONS = 10_000_000
_BLOCK_ELEMENTS = 1 << 24


class Kernel:
    """Rows of a kernel matrix over unit vectors: exp(-gamma ||x - y||^2), or x . y when gamma is None.

    Args:
        features_QD: (Q, D) float32, rows of unit norm.
        gamma: width of the RBF kernel; None for the linear one.
    """

    def __init__(self, features_QD: Tensor, gamma: float | None) -> None:
        self.gamma = gamma
        self.dtype = torch.float32 if features_QD.device.type == "mps" else torch.float64
        self._features_QD = features_QD.to(self.dtype)
        self._norms_Q = self._features_QD.square().sum(dim=1)
        self.diagonal_Q = self._norms_Q if gamma is None else torch.ones_like(self._norms_Q)
        self._gram_QQ: Tensor | None = None
        if len(features_QD) <= _FULL_GRAM_ROWS:
            self._gram_QQ = torch.cat([block_bQ.float() for block_bQ in self._blocks()])

    def __len__(self) -> int:
        return len(self._features_QD)

    def rows(self, index_P: Tensor) -> Tensor:
        """(P, Q) rows of the kernel matrix."""
        if self._gram_QQ is not None:
            return self._gram_QQ[index_P].to(self.dtype)
        return self._between(self._features_QD[index_P], self._norms_Q[index_P])

    def product(self, beta_PQ: Tensor) -> Tensor:
        """(P, Q) beta @ kernel matrix, in full precision whatever `rows` keeps."""
        return torch.cat([beta_PQ @ block_bQ.T for block_bQ in self._blocks()], dim=1)

    def _blocks(self) -> Iterator[Tensor]:
        rows = max(1, _BLOCK_ELEMENTS // len(self))
        for x_bD, norms_b in zip(torch.split(self._features_QD, rows), torch.split(self._norms_Q, rows), strict=True):
            yield self._between(x_bD, norms_b)

    def _between(self, x_bD: Tensor, norms_b: Tensor) -> Tensor:
        products_bQ = x_bD @ self._features_QD.T
        if self.gamma is None:
            return products_bQ
        distances_bQ = (norms_b[:, None] - 2 * products_bQ + self._norms_Q).clamp_(min=0)
        return distances_bQ.mul_(-self.gamma).exp_()


def solve(kernel: Kernel, sign_PQ: Tensor, cost_PQ: Tensor, *, tolerance: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Solve P soft-margin SVM duals that share their rows.

    Each minimises 1/2 b'Kb - s'b over the signed coefficients b = s * alpha with 0 <= alpha <= cost and sum(b) = 0,
    where s is the sign of a row. Rows of cost 0 take no part.

    Args:
        kernel: over the Q rows.
        sign_PQ: (P, Q), +1 or -1.
        cost_PQ: (P, Q), upper bound of each alpha: C times the row's weight.
        tolerance: largest violation of the optimality conditions allowed, recomputed in float64 at the end. LIBSVM's
            1e-3 leaves decision values up to 4e-3 from the exact ones; 1e-4 brings them within 1e-3 at hardly any cost.

    Returns:
        (P, Q) signed coefficients and (P,) rho, so that f(x) = sum_q b_q K(x, x_q) - rho. A problem with rows of one
        sign only has no support vectors and rho = -sign.

    Source:
        Fan, Chen and Lin (2005), Working set selection using second order information, JMLR 6; rho as in LIBSVM.
    """
    sign_PQ, cost_PQ = sign_PQ.to(kernel.dtype), cost_PQ.to(kernel.dtype)
    lower_PQ, upper_PQ = (-cost_PQ).where(sign_PQ < 0, 0.0), cost_PQ.where(sign_PQ > 0, 0.0)
    beta_PQ = torch.zeros_like(cost_PQ)
    error_PQ = sign_PQ.clone()  # s - K b: what is left to explain
    done = 0
    while True:
        done += _descend(kernel, beta_PQ, error_PQ, lower_PQ, upper_PQ, tolerance, _MAX_ITERATIONS - done)
        error_PQ = sign_PQ - kernel.product(beta_PQ)
        up_P, down_P = _extremes(beta_PQ, error_PQ, lower_PQ, upper_PQ)
        if done >= _MAX_ITERATIONS or not bool((up_P - down_P > tolerance).any()):
            return beta_PQ, -_intercept(beta_PQ, error_PQ, lower_PQ, upper_PQ, sign_PQ, up_P, down_P)


def _extremes(beta_PQ: Tensor, error_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) the largest error among coefficients that can grow, the smallest among those that can shrink."""
    up_P = error_PQ.masked_fill(beta_PQ >= upper_PQ, -torch.inf).amax(dim=1)
    down_P = error_PQ.masked_fill(beta_PQ <= lower_PQ, torch.inf).amin(dim=1)
    return up_P, down_P


def _descend(
    kernel: Kernel,
    beta_PQ: Tensor,
    error_PQ: Tensor,
    lower_PQ: Tensor,
    upper_PQ: Tensor,
    tolerance: float,
    most: int,
) -> int:
    """Iterate in place until every problem is within the tolerance; returns the number of iterations."""
    n_problems = len(beta_PQ)
    problem_P = torch.arange(n_problems, device=beta_PQ.device)
    # kernel rows may be float32, so the running errors drift: aim a little below what is asked for
    aim = 0.9 * tolerance
    for iteration in range(most):
        can_grow_PQ, can_shrink_PQ = beta_PQ < upper_PQ, beta_PQ > lower_PQ
        up_P, i_P = error_PQ.masked_fill(~can_grow_PQ, -torch.inf).max(dim=1)
        row_i_PQ = kernel.rows(i_P)
        gap_PQ = (up_P[:, None] - error_PQ).masked_fill_(~can_shrink_PQ, 0.0).clamp_(min=0.0)
        if iteration % _CHECK_EVERY == 0 and not bool((gap_PQ.amax(dim=1) > aim).any()):
            return iteration
        curve_PQ = (kernel.diagonal_Q[i_P][:, None] + kernel.diagonal_Q - 2 * row_i_PQ).clamp_(min=1e-12)
        j_P = (gap_PQ.square() / curve_PQ).argmax(dim=1)
        step_P = gap_PQ[problem_P, j_P] / curve_PQ[problem_P, j_P]
        step_P = torch.minimum(step_P, (upper_PQ - beta_PQ)[problem_P, i_P])
        step_P = torch.minimum(step_P, (beta_PQ - lower_PQ)[problem_P, j_P])
        step_P = step_P.where(gap_PQ.amax(dim=1) > aim, 0.0)
        beta_PQ[problem_P, i_P] += step_P
        beta_PQ[problem_P, j_P] -= step_P
        error_PQ -= step_P[:, None] * (row_i_PQ - kernel.rows(j_P))
    return most


def _intercept(
    beta_PQ: Tensor,
    error_PQ: Tensor,
    lower_PQ: Tensor,
    upper_PQ: Tensor,
    sign_PQ: Tensor,
    up_P: Tensor,
    down_P: Tensor,
) -> Tensor:
    """(P,) mean error over free support vectors; without any, the middle of what the conditions allow."""
    free_PQ = (beta_PQ > lower_PQ) & (beta_PQ < upper_PQ)
    n_free_P = free_PQ.sum(dim=1)
    mean_P = (error_PQ * free_PQ).sum(dim=1) / n_free_P.clamp(min=1)
    takes_part_PQ = upper_PQ > lower_PQ
    only_sign_P = (sign_PQ * takes_part_PQ).sum(dim=1).sign()
    middle_P = torch.where(torch.isfinite(up_P) & torch.isfinite(down_P), (up_P + down_P) / 2, only_sign_P)
    return torch.where(n_free_P > 0, mean_P, middle_P)
