"""What all selectors share: (B, D) features in, (B, M) scores out, the highest score among the candidates wins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from gpu_select.derived import Deriving
from gpu_select.errors import CandidateError, DimensionError

__all__ = ["Choice", "Selector", "best_per_model", "choose", "distinct_rows", "exact_float32", "rounded", "with_winner"]


_TILE = 256
"""Queries that a deterministic selector scores at once."""


class Choice(NamedTuple):
    """One decision a query."""

    model: Tensor
    """(B,) int64, an index into the selector's `models`."""
    score: Tensor
    """(B,) float32, the chosen model's score."""
    margin: Tensor
    """(B,) float32, how far the runner-up lies behind; infinite where there is no other candidate."""


class Selector(Deriving):
    """A fitted selector. Ties go to the model that comes first in `models`.

    Attributes:
        algorithm: the name that the file format gives it.
        models: the M model names, in the order in which ties are decided.
        dim: D, the width of the features it takes.
        deterministic: whether a query's scores have the same bits in whatever batch it is, at some cost of speed.
    """

    algorithm: str
    deterministic: bool = False

    def __init__(self, models: Sequence[str], dim: int) -> None:
        super().__init__()
        self.models = tuple(models)
        self.dim = dim

    def forward(self, features_BD: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Score every model for every query.

        Args:
            features_BD: (B, D) float32, on the selector's device.
            candidates: (M,) or (B, M) bool; by default all models.

        Returns:
            (B, M) float32; the largest is the decision, -inf where a model is no candidate.

        Raises:
            DimensionError: the features are not (B, D).
        """
        if features_BD.ndim != 2 or features_BD.shape[1] != self.dim:
            raise DimensionError(
                f"features: expected shape (B, {self.dim}) for this {self.algorithm} file, "
                f"got {tuple(features_BD.shape)}"
            )
        mask_BM = None
        if candidates is not None:
            mask_BM = candidates.expand(features_BD.shape[0], len(self.models))
        with exact_float32():
            scores = self._scores_in_tiles if self.deterministic else self.scores
            scores_BM = scores(features_BD.float(), mask_BM)
        return scores_BM if mask_BM is None else scores_BM.masked_fill(~mask_BM, -torch.inf)

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32 scores; candidates matter here only where they change what is searched."""
        raise NotImplementedError

    def _scores_in_tiles(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        # libraries choose the order of their sums by the shape, so every query goes through the same one
        tiles = _tiles(features_BD)
        masks: Sequence[Tensor | None] = [None] * len(tiles)
        if candidates_BM is not None:
            masks = _tiles(candidates_BM)
        parts = [self.scores(tile, mask) for tile, mask in zip(tiles, masks, strict=True)]
        return torch.cat(parts)[: len(features_BD)]

    def candidate_mask(self, names: Sequence[str]) -> Tensor:
        """(M,) bool, true for the named models.

        Raises:
            CandidateError: no name at all, or one that the selector does not know.
        """
        if not names:
            raise CandidateError(f"candidates: expected at least one of {', '.join(self.models)}, got none")
        for name in names:
            if name not in self.models:
                raise CandidateError(f"candidates: expected names out of {', '.join(self.models)}, got {name!r}")
        mask_M = torch.tensor([model in names for model in self.models])
        if (
            self.device.type == "cuda"
        ):  # only a copy from pinned memory does not wait for what the device still has to do
            return mask_M.pin_memory().to(self.device, non_blocking=True)
        return mask_M.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the selector's numbers are."""
        return next(self.buffers()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def moved(tensor: Tensor) -> Tensor:
            # selection is float32, whatever dtype a router is moved to
            out = fn(tensor)
            return out if out.dtype == tensor.dtype else tensor.to(out.device)

        return super()._apply(moved, recurse)


def _tiles(x_BX: Tensor) -> tuple[Tensor, ...]:
    """Tiles of equal height, the last one filled up with its last row: one of zeros is as far from all rows of unit
    length, and to search it exactly takes as long as a thousand others.
    """
    return torch.split(torch.cat([x_BX, x_BX[-1:].expand(-len(x_BX) % _TILE, -1)]), _TILE)


def choose(scores_BM: Tensor) -> Choice:
    """The best model of each row, the first one at a tie. No host sync.

    Args:
        scores_BM: (B, M) float32 with at least one finite score a row.
    """
    model_B = scores_BM.argmax(dim=1)
    score_B = scores_BM.gather(1, model_B[:, None]).squeeze(1)
    runner_up_B = scores_BM.scatter(1, model_B[:, None], -torch.inf).amax(dim=1)
    return Choice(model_B, score_B, score_B - runner_up_B)


def best_per_model(
    scores_BF: Tensor,
    owner_F: Tensor,
    n_models: int,
    candidates_BM: Tensor | None = None,
    less_B1: Tensor | None = None,
) -> Tensor:
    """Reduce scores of F parts (centroids, classifiers) to their models: the best part counts, the first at a tie.

    The format breaks ties by part, not by model. So where the best parts of several candidate models tie, those that
    come later are lowered by one unit in the last place: the largest score is then the owner of the first such part.

    Args:
        scores_BF: (B, F) float32.
        owner_F: (F,) int64, the model of each part; every model owns at least one.
        n_models: M.
        candidates_BM: (B, M) bool; by default all models.
        less_B1: (B, 1) float32, what all scores of a query are to be lowered by, without a pass over all parts.

    Returns:
        (B, M) float32.
    """
    if candidates_BM is not None:
        scores_BF = scores_BF.masked_fill(~candidates_BM[:, owner_F], -torch.inf)
    best_BM = scores_BF.new_full((scores_BF.shape[0], n_models), -torch.inf)
    best_BM = best_BM.scatter_reduce(1, owner_F.expand_as(scores_BF), scores_BF, "amax")
    return with_winner(best_BM, owner_F[scores_BF.argmax(dim=1)], less_B1)


def with_winner(best_BM: Tensor, winner_B: Tensor, less_B1: Tensor | None = None) -> Tensor:
    """Lower what ties with the winner by one unit in the last place.

    Args:
        best_BM: (B, M) float32, the best part of each model.
        winner_B: (B,) int64, the model that owns the first of the best parts.
        less_B1: (B, 1) float32, what all scores of a query are to be lowered by before.

    Returns:
        (B, M) float32.
    """
    winner_B1 = winner_B[:, None]
    if less_B1 is not None:
        best_BM = best_BM - less_B1  # before the ties are broken: it rounds, and may make new ones
    loses_BM = torch.arange(best_BM.shape[1], device=best_BM.device) != winner_B1
    tied_BM = loses_BM & (best_BM == best_BM.gather(1, winner_B1))
    return torch.where(tied_BM, torch.nextafter(best_BM, best_BM.new_full((), -torch.inf)), best_BM)


def rounded(scores_BM: Tensor) -> Tensor:
    """float32 scores with the decisions of the float64 ones.

    A score that only rounding makes as large as the best one is lowered by one unit in the last place; exact ties stay.
    """
    rounded_BM = scores_BM.float()
    best_B1, winner_B1 = scores_BM.max(dim=1, keepdim=True)
    tied_BM = (rounded_BM == rounded_BM.gather(1, winner_B1)) & (scores_BM < best_B1)
    return torch.where(tied_BM, torch.nextafter(rounded_BM, rounded_BM.new_full((), -torch.inf)), rounded_BM)


def distinct_rows(rows_FX: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows in order of first appearance, (U, X), and the place of each row among them, (F,) int64.

    A matrix product may round equal columns differently. Where an exact tie between them must be seen, each different
    one is multiplied once.
    """
    sorted_UX, row_F = torch.unique(rows_FX, dim=0, return_inverse=True)
    order_F = torch.arange(len(rows_FX))
    first_U = order_F.new_full((len(sorted_UX),), len(rows_FX)).scatter_reduce(0, row_F, order_F, "amin")
    first_U, place_F = torch.unique(first_U[row_F], return_inverse=True)
    return rows_FX[first_U], place_F


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """float32 products in float32, whatever the caller set: TF32 keeps 10 bits and would change decisions."""
    if torch.compiler.is_compiling():  # no graph can switch it: `FixedLinear` sees to it there
        yield
        return
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
