"""Support vector machines by sequential minimal optimisation, all problems over the same rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Kernel", "solve"]

_FULL_GRAM_ROWS = 20_000
"""Up to here the kernel matrix is kept whole (1.6 GB in float32); beyond, a working set's rows are computed."""
_EXACT_GRAM_ROWS = 8192
"""Up to here it is kept in float64 as well (0.5 GB): many more problems follow on the same rows."""
_WORKING_ROWS = 4096
_BLOCK_ELEMENTS = 1 << 24
_STRIPE = 1024

_LANE = 64
"""Rows are padded to a multiple of this, so that a CPU finds the largest element lane by lane, ten times as fast."""
_CPU_STATE = 1 << 18
"""Elements of one of the inner loop's arrays on a CPU: with more problems at once they would leave the cache."""

_CPU_PROBLEMS = 16
"""Fewer problems than this share a CPU thread."""

_WORTH_STARTING_FULL = 0.04
_CHECK_EVERY = 64
_MAX_ROUNDS = 200
_MAX_ITERATIONS = 1_000_000
"""In one round, of each problem."""
_CLOSEST = 1e-6
"""Squared distances are taken to be at least this for rows of unit norm, as float32 has no better ones."""


class Kernel:
    """Rows of a kernel matrix: exp(-gamma ||x - y||^2), or x . y when gamma is None.

    Args:
        features_QD: (Q, D) float32, rows of norms about 1.
        gamma: width of the RBF kernel; None for the linear one.
    """

    def __init__(self, features_QD: Tensor, gamma: float | None) -> None:
        self.gamma = gamma
        self.dtype = torch.float32 if features_QD.device.type == "mps" else torch.float64
        self._features_QD = features_QD.float()
        self._exact_QD = features_QD.to(self.dtype)
        norms_Q = self._exact_QD.square().sum(dim=1)
        self.diagonal_Q = norms_Q if gamma is None else torch.ones_like(norms_Q)
        self._exact_QQ = self._whole(self._exact_QD) if len(self) <= _EXACT_GRAM_ROWS else None
        self.gram_QW: Tensor | None = None
        if len(self) <= _FULL_GRAM_ROWS:
            self.gram_QW = self._features_QD.new_zeros((len(self), _padded(len(self))))
            self.gram_QW[:, : len(self)] = self._whole(self._features_QD) if self._exact_QQ is None else self._exact_QQ

    def __len__(self) -> int:
        return len(self._features_QD)

    def rows(self, index_R: Tensor) -> Tensor:
        """(R, W) float32 rows of the kernel matrix, as a new tensor padded with zeros to whole lanes."""
        rows_RW = self._features_QD.new_zeros((len(index_R), _padded(len(self))))
        for block_b, out_bW in zip(torch.split(index_R, self._block), torch.split(rows_RW, self._block), strict=True):
            out_bW[:, : len(self)] = self._between(self._features_QD[block_b], self._features_QD)
        return rows_RW

    def product(self, beta_PQ: Tensor, *, fast: bool = False) -> Tensor:
        """(P, Q) beta @ kernel matrix: from float32 rows if it is to be fast, else exactly."""
        if fast and self.gram_QW is not None:
            return (beta_PQ.float() @ self.gram_QW)[:, : len(self)].to(self.dtype)
        if self._exact_QQ is not None:
            return beta_PQ @ self._exact_QQ
        x_QD = self._features_QD if fast else self._exact_QD
        beta_PQ = beta_PQ.to(x_QD.dtype)
        blocks = [beta_PQ @ self._between(x_bD, x_QD).T for x_bD in torch.split(x_QD, self._block)]
        return torch.cat(blocks, dim=1).to(self.dtype)

    @property
    def _block(self) -> int:
        return max(1, _BLOCK_ELEMENTS // len(self))

    def _whole(self, x_QD: Tensor) -> Tensor:
        """(Q, Q), of which only one triangle is computed."""
        gram_QQ = x_QD.new_empty((len(x_QD), len(x_QD)))
        for begin in range(0, len(x_QD), _STRIPE):
            end = begin + _STRIPE
            stripe_br = self._between(x_QD[begin:end], x_QD[begin:])
            gram_QQ[begin:end, begin:] = stripe_br
            gram_QQ[end:, begin:end] = stripe_br[:, len(stripe_br) :].T
        return gram_QQ

    def _between(self, x_bD: Tensor, y_QD: Tensor) -> Tensor:
        if self.gamma is None:
            return x_bD @ y_QD.T
        norms_b1, norms_Q = x_bD.square().sum(dim=1, keepdim=True), y_QD.square().sum(dim=1)
        exponent_bQ = torch.addmm(norms_Q, x_bD, y_QD.T, beta=-self.gamma, alpha=2 * self.gamma)
        return exponent_bQ.sub_(self.gamma * norms_b1).clamp_(max=0).exp_()


def _padded(size: int) -> int:
    return -(-size // _LANE) * _LANE


def solve(
    kernel: Kernel, sign_PQ: Tensor, cost_PQ: Tensor, *, tolerance: float = 1e-4, start_PQ: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Solve P soft-margin SVM duals that share their rows.

    Each minimises 1/2 b'Kb - s'b over the signed coefficients b = s * alpha with 0 <= alpha <= cost and sum(b) = 0,
    where s is the sign of a row. Rows of cost 0 take no part.

    Args:
        kernel: over the Q rows.
        sign_PQ: (P, Q), +1 or -1.
        cost_PQ: (P, Q), upper bound of each alpha: C times the row's weight.
        tolerance: largest violation of the optimality conditions allowed, recomputed in float64 at the end. LIBSVM's
            1e-3 leaves decision values up to 4e-3 from the exact ones; 1e-4 brings them within 1e-3 at hardly any cost.
        start_PQ: (P, Q) coefficients to start from, such as ten times the result for a tenth of C; what breaks a
            condition is put right first. The result does not depend on it beyond the tolerance, the time does.

    Returns:
        (P, Q) signed coefficients and (P,) rho, so that f(x) = sum_q b_q K(x, x_q) - rho. A problem with rows of one
        sign only has no support vectors and rho = -sign.

    Source:
        Fan, Chen and Lin (2005), Working set selection using second order information, JMLR 6; rho as in LIBSVM.
    """
    sign_PQ, cost_PQ = sign_PQ.to(kernel.dtype), cost_PQ.to(kernel.dtype)
    lower_PQ, upper_PQ = (-cost_PQ).where(sign_PQ < 0, 0.0), cost_PQ.where(sign_PQ > 0, 0.0)
    if start_PQ is None:
        beta_PQ, error_PQ = _start(kernel, sign_PQ, lower_PQ, upper_PQ)
    else:
        beta_PQ = _feasible(start_PQ.to(kernel.dtype), lower_PQ, upper_PQ)
        error_PQ = sign_PQ - kernel.product(beta_PQ, fast=True)
    open_p = torch.arange(len(beta_PQ), device=beta_PQ.device)
    for _ in range(_MAX_ROUNDS):
        # kernel rows are float32, so the running errors drift: aim a little below what is asked for
        improve = partial(_improved, kernel, beta_PQ, error_PQ, lower_PQ, upper_PQ, 0.9 * tolerance)
        for part_p, improved_pQ in _each(improve, open_p, kernel):
            beta_PQ[part_p] = improved_pQ
        error_PQ[open_p] = sign_PQ[open_p] - kernel.product(beta_PQ[open_p])
        up_P, down_P = _extremes(beta_PQ, error_PQ, lower_PQ, upper_PQ)
        open_p = (up_P - down_P > tolerance).nonzero().squeeze(1)
        if not len(open_p):
            break
    return beta_PQ, -_intercept(beta_PQ, error_PQ, lower_PQ, upper_PQ, sign_PQ, up_P, down_P)


def _start(kernel: Kernel, sign_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor) -> tuple[Tensor, Tensor]:
    """(P, Q) coefficients and errors to start from: all at their bounds, or zero where that is far too much.

    Where labels are noisy, most of them end at their bounds: it takes half as many steps to move the others away.
    """
    full_PQ = _feasible(lower_PQ + upper_PQ, lower_PQ, upper_PQ)
    value_PQ = kernel.product(full_PQ, fast=True)
    # the best multiple of it
    share_P = (sign_PQ * full_PQ).sum(dim=1) / (value_PQ * full_PQ).sum(dim=1)
    taken_P1 = (share_P > _WORTH_STARTING_FULL)[:, None]
    return full_PQ.where(taken_P1, 0.0), sign_PQ - value_PQ.where(taken_P1, 0.0)


def _feasible(beta_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor) -> Tensor:
    """Within the bounds, and of sum 0: what is too much goes first from those furthest from their bound."""
    # what was at a bound, and was multiplied, may miss the new one by the last bit
    beta_PQ = (beta_PQ * (1 + 1e-6 if beta_PQ.dtype == torch.float32 else 1 + 1e-12)).clamp(lower_PQ, upper_PQ)
    excess_P1 = beta_PQ.sum(dim=1, keepdim=True)
    size_PQ = torch.where(beta_PQ.sign() == excess_P1.sign(), beta_PQ.abs(), 0.0)
    share_PQ = size_PQ / torch.maximum(upper_PQ, -lower_PQ).clamp(min=torch.finfo(beta_PQ.dtype).tiny)
    order_PQ = share_PQ.argsort(dim=1)
    sorted_PQ = size_PQ.gather(1, order_PQ)
    before_PQ = sorted_PQ.cumsum(dim=1) - sorted_PQ
    taken_PQ = (excess_P1.abs() - before_PQ).clamp(min=0.0).minimum(sorted_PQ)
    beta_PQ = beta_PQ - excess_P1.sign() * torch.zeros_like(beta_PQ).scatter_(1, order_PQ, taken_PQ)
    # with one sign only all of it is too much, exactly
    return beta_PQ.where(((beta_PQ < 0).any(dim=1) & (beta_PQ > 0).any(dim=1))[:, None], 0.0)


def _extremes(beta_PQ: Tensor, error_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) the largest error among coefficients that can grow, the smallest among those that can shrink."""
    up_P = error_PQ.masked_fill(beta_PQ >= upper_PQ, -torch.inf).amax(dim=1)
    down_P = error_PQ.masked_fill(beta_PQ <= lower_PQ, torch.inf).amin(dim=1)
    return up_P, down_P


def _each(improve: Callable[[Tensor], Tensor], open_p: Tensor, kernel: Kernel) -> Iterable[tuple[Tensor, Tensor]]:
    """Parts of the problems and their new coefficients."""
    if kernel.gram_QW is None:
        parts = torch.split(open_p, _WORKING_ROWS // 64)
        return zip(parts, map(improve, parts), strict=True)
    if open_p.device.type != "cpu":
        return [(open_p, improve(open_p))]
    threads = torch.get_num_threads()
    most = max(1, _CPU_STATE // len(kernel))
    parts = torch.split(open_p, max(min(_CPU_PROBLEMS, most), min(most, -(-len(open_p) // threads))))
    # a thread a part: thousands of short operations would wait for each other's threads, above all on a busy machine
    try:
        with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(zip(parts, pool.map(torch.inference_mode()(improve), parts), strict=True))
    finally:
        torch.set_num_threads(threads)


def _improved(
    kernel: Kernel,
    beta_PQ: Tensor,
    error_PQ: Tensor,
    lower_PQ: Tensor,
    upper_PQ: Tensor,
    aim: float,
    part_p: Tensor,
) -> Tensor:
    """(p, Q) coefficients of some problems within the aim, as far as float32 rows can tell."""
    state = (beta_PQ[part_p], error_PQ[part_p], lower_PQ[part_p], upper_PQ[part_p])
    if kernel.gram_QW is not None:
        return _descended(kernel.gram_QW, kernel.diagonal_Q, *state, aim)
    return _by_working_sets(kernel, *state, aim)


def _by_working_sets(
    kernel: Kernel, beta_PQ: Tensor, error_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor, aim: float
) -> Tensor:
    """The same without the kernel matrix: descend on the worst rows of all problems, take in others, and so on.

    Half of the rows, the newest, stay for the next time.

    Source:
        Joachims (1999), Making large-scale SVM learning practical; Wen et al. (2018), ThunderSVM, JMLR 19.
    """
    working_U = torch.empty(0, dtype=torch.int64, device=beta_PQ.device)
    rows_UW = kernel.rows(working_U)
    for _ in range(_MAX_ROUNDS):
        up_P, down_P = _extremes(beta_PQ, error_PQ, lower_PQ, upper_PQ)
        open_p = (up_P - down_P > aim).nonzero().squeeze(1)
        if not len(open_p):
            break
        beta_pQ, error_pQ, lower_pQ, upper_pQ = (x[open_p] for x in (beta_PQ, error_PQ, lower_PQ, upper_PQ))
        fresh_u = _violators(beta_pQ, error_pQ, lower_pQ, upper_pQ, working_U)
        working_U = torch.cat([fresh_u, working_U])[:_WORKING_ROWS]
        rows_UW = torch.cat([kernel.rows(fresh_u), rows_UW[: len(working_U) - len(fresh_u)]])
        gram_UV = pad(rows_UW[:, working_U], (0, _padded(len(working_U)) - len(working_U)))
        before_pU, error_pU, lower_pU, upper_pU = (x[:, working_U] for x in (beta_pQ, error_pQ, lower_pQ, upper_pQ))
        # most of what an early working set could still gain is lost again to the next
        gap = max(aim, 0.1 * float((up_P - down_P).max()))
        after_pU = _descended(gram_UV, kernel.diagonal_Q[working_U], before_pU, error_pU, lower_pU, upper_pU, gap)
        beta_PQ[open_p[:, None], working_U] = after_pU
        error_PQ[open_p] -= (after_pU - before_pU).float() @ rows_UW[:, : len(kernel)]
    return beta_PQ


def _violators(beta_PQ: Tensor, error_PQ: Tensor, lower_PQ: Tensor, upper_PQ: Tensor, working_U: Tensor) -> Tensor:
    """(U,) rows outside the working set that violate the conditions most, half as many as it may hold."""
    most = max(1, min(_WORKING_ROWS // 4 // len(beta_PQ), beta_PQ.shape[1]))
    chosen_Q = torch.zeros(beta_PQ.shape[1], dtype=torch.bool, device=beta_PQ.device)
    for error, stuck_PQ in ((error_PQ, beta_PQ >= upper_PQ), (-error_PQ, beta_PQ <= lower_PQ)):
        top = error.masked_fill(stuck_PQ, -torch.inf).index_fill(1, working_U, -torch.inf).topk(most, dim=1)
        chosen_Q[top.indices[top.values > -torch.inf]] = True
    return chosen_Q.nonzero().squeeze(1)


def _descended(
    gram_QW: Tensor,
    diagonal_Q: Tensor,
    beta_PQ: Tensor,
    error_PQ: Tensor,
    lower_PQ: Tensor,
    upper_PQ: Tensor,
    aim: float,
) -> Tensor:
    """(P, Q) coefficients after pairs of them have moved, one pair a problem at a time, until every gap is in the aim.

    Args:
        gram_QW: (Q, W) float32, padded to whole lanes. What is P x W elements is float32, too; the coefficients, of
            which each step touches two a problem, are not.
    """
    n_rows, width = len(diagonal_Q), gram_QW.shape[1]
    whole = (0, width - n_rows)
    result_PQ = beta_PQ.clone()
    live_p = torch.arange(len(beta_PQ), device=beta_PQ.device)
    # lower case p: the problems that are still open
    error_pW = pad(error_PQ.float(), whole)
    state_pW3 = torch.stack([pad(x_PQ, whole) for x_PQ in (beta_PQ, lower_PQ, upper_PQ)], dim=2)
    cannot_grow_pW = torch.zeros_like(error_pW).masked_fill_(state_pW3[..., 0] >= state_pW3[..., 2], -torch.inf)
    cannot_shrink_pW = torch.zeros_like(error_pW).masked_fill_(state_pW3[..., 0] <= state_pW3[..., 1], torch.inf)
    half_W = pad((0.5 * (diagonal_Q + _CLOSEST * diagonal_Q.amax().clamp(min=1.0))).float(), whole, value=1.0)
    direction_21 = torch.tensor([[1.0], [-1.0]], dtype=beta_PQ.dtype, device=beta_PQ.device)
    row_i_pW, row_j_pW, gap_pW, gain_pW = (torch.empty_like(error_pW) for _ in range(4))
    start_p = width * live_p
    for iteration in range(_MAX_ITERATIONS):
        up_p, i_p = _largest(torch.add(error_pW, cannot_grow_pW, out=gain_pW))
        torch.sub(up_p[:, None], torch.add(error_pW, cannot_shrink_pW, out=gap_pW), out=gap_pW)
        open_p = gap_pW.amax(dim=1) > aim
        if iteration % _CHECK_EVERY == 0:
            n_open = int(open_p.sum())
            if 4 * n_open <= 3 * len(open_p):
                result_PQ[live_p] = state_pW3[:, :n_rows, 0]
                if not n_open:
                    break
                live_p, i_p, start_p = live_p[open_p], i_p[open_p], start_p[:n_open]
                error_pW, gap_pW, cannot_grow_pW, cannot_shrink_pW = (
                    x_pW[open_p] for x_pW in (error_pW, gap_pW, cannot_grow_pW, cannot_shrink_pW)
                )
                state_pW3, open_p = state_pW3[open_p], open_p[open_p]
                row_i_pW, row_j_pW, gain_pW = (torch.empty_like(error_pW) for _ in range(3))
        torch.index_select(gram_QW, 0, i_p, out=row_i_pW)
        # a step gains gap^2 / (2 * curve); its root has the same maximum
        half_curve_pW = torch.sub(half_W, row_i_pW, out=gain_pW).add_(half_W.index_select(0, i_p)[:, None])
        gain_p, j_p = _largest(half_curve_pW.rsqrt_().mul_(gap_pW))
        torch.index_select(gram_QW, 0, j_p, out=row_j_pW)
        at_j_p = start_p + j_p
        at_2p = torch.cat([start_p + i_p, at_j_p])
        step_p = gain_p.square() / gap_pW.view(-1).index_select(0, at_j_p).mul_(2)
        # i grows, j shrinks
        beta_2p, lower_2p, upper_2p = state_pW3.view(-1, 3).index_select(0, at_2p).view(2, -1, 3).unbind(dim=2)
        bound_2p = torch.stack([upper_2p[0], lower_2p[1]])
        room_2p = (bound_2p - beta_2p).abs_()
        step_p = torch.minimum(step_p, room_2p.amin(dim=0)).where(open_p, 0.0)
        # exactly at the bound, or the last bit would be left to move for ever
        moved_2p = torch.where(step_p >= room_2p, bound_2p, torch.addcmul(beta_2p, direction_21, step_p))
        state_pW3.view(-1).index_copy_(0, 3 * at_2p, moved_2p.view(-1))
        full_2p, empty_2p = moved_2p >= upper_2p, moved_2p <= lower_2p
        cannot_grow_pW.view(-1).index_copy_(0, at_2p, torch.where(full_2p, -torch.inf, 0.0).float().view(-1))
        cannot_shrink_pW.view(-1).index_copy_(0, at_2p, torch.where(empty_2p, torch.inf, 0.0).float().view(-1))
        error_pW.addcmul_(row_i_pW.sub_(row_j_pW), step_p.float()[:, None], value=-1)
    else:
        result_PQ[live_p] = state_pW3[:, :n_rows, 0]
    return result_PQ


def _largest(x_PW: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) the largest element of each row, and where it is."""
    if x_PW.device.type != "cpu":
        return x_PW.max(dim=1)
    lanes_RL = x_PW.view(-1, _LANE)
    lanes = lanes_RL.shape[0] // x_PW.shape[0]
    largest_P, lane_P = lanes_RL.amax(dim=1).view(-1, lanes).max(dim=1)
    begin_P = torch.arange(0, len(lanes_RL), lanes)
    within_P = lanes_RL.index_select(0, begin_P + lane_P).argmax(dim=1)
    return largest_P, torch.add(within_P, lane_P, alpha=_LANE)


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
