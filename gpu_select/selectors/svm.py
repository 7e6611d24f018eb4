"""SVM: the model whose decision function is largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gpu_select_kernels.dispatch import Impl, resolve_impl
from gpu_select_kernels.rbf import Prepared, prepare_vectors, rbf_decision
from gpu_select_kernels.rowwise import rowwise
from torch import Tensor, nn

from gpu_select.selectors.base import Selector, best_per_model, distinct_rows
from gpu_select.selectors.fixed_linear import FixedLinear

__all__ = ["LinearPart", "RBFPart", "SVMSelector"]

_BLOCK_ELEMENTS = 1 << 24
"""Kernel values held at once: 64 MB."""


@dataclass(frozen=True, eq=False)
class LinearPart:
    """f(x) = weights . x - rho. weights_D: (D,) float64."""

    model: str
    weights_D: Tensor
    rho: float


@dataclass(frozen=True, eq=False)
class RBFPart:
    """f(x) = sum_i alpha_i exp(-gamma ||x - support_vector_i||^2) - rho. alpha_S: (S,), support_vectors_SD: (S, D)."""

    model: str
    alpha_S: Tensor
    support_vectors_SD: Tensor
    rho: float
    gamma: float


class SVMSelector(Selector):
    """One or more decision functions a model, all evaluated on x / ||x||; linear ones come first at a tie.

    Classifiers trained on the same queries share support vectors. Each distinct one is kept once, with its coefficient
    for every classifier of the same gamma, so that the whole decision is two matrix products and one exponential. On
    CUDA these are one kernel, which takes the vectors in a layout of its own: twice their memory, from the first batch.

    Args:
        linear: linear classifiers, of D weights each.
        rbf: RBF classifiers, of D-dimensional support vectors each.

    Attributes:
        impl: which implementation runs.

    Source:
        Cortes and Vapnik (1995), doi:10.1007/BF00994018; one classifier a model (one against the rest).
    """

    algorithm = "svm"
    impl: Impl = "auto"
    derived = ("_prepared",)
    place_L: Tensor
    rho_F: Tensor
    owner_F: Tensor

    def __init__(self, linear: Sequence[LinearPart], rbf: Sequence[RBFPart]) -> None:
        names = [part.model for part in linear] + [part.model for part in rbf]
        models = list(dict.fromkeys(names))
        dim = len(linear[0].weights_D) if linear else rbf[0].support_vectors_SD.shape[1]
        super().__init__(models, dim)
        self.register_buffer("owner_F", torch.tensor([models.index(name) for name in names]))
        self.one_part_a_model = len(names) == len(models)
        weights_LD = torch.stack([part.weights_D.float() for part in linear]) if linear else torch.empty(0, dim)
        weights_UD, place_L = distinct_rows(weights_LD)
        self.linear_values = FixedLinear(weights_UD, weights_UD.new_zeros(len(weights_UD)), scale=1.0)
        self.register_buffer("place_L", place_L)
        rho_F = [part.rho for part in linear] + [part.rho for part in rbf]
        self.register_buffer("rho_F", torch.tensor(rho_F, dtype=torch.float32))
        self.rbf_gammas = tuple(part.gamma for part in rbf)
        self.gammas = tuple(sorted(set(self.rbf_gammas)))
        self.norms_less_products, self.weighted_sums = nn.ModuleList(), nn.ModuleList()
        for g, gamma in enumerate(self.gammas):
            vectors_SD, coefficients_SR = _shared(rbf, gamma)
            coefficients_US, place_R = distinct_rows(coefficients_SR.T)
            norms_S = vectors_SD.double().square().sum(dim=1)
            self.norms_less_products.append(FixedLinear(vectors_SD, norms_S.float(), scale=-2.0))
            self.weighted_sums.append(FixedLinear(coefficients_US, torch.zeros(len(coefficients_US)), scale=1.0))
            self.register_buffer(f"place_{g}", place_R)
        self._prepared: list[Prepared | None] | None = None

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32 decision values."""
        norm_B1 = torch.linalg.vector_norm(features_BD, dim=1, keepdim=True)
        # the engine leaves a (nearly) zero vector as it is
        x_BD = torch.where(norm_B1 > 1e-10, features_BD / norm_B1, features_BD)
        values_BF: Tensor = self.linear_values(x_BD)[:, self.place_L]
        if self.gammas and resolve_impl(self.impl, x_BD) == "triton":
            values_BF = torch.cat([values_BF, self._fused_rbf(x_BD)], dim=1)
        elif self.gammas:
            widest = max(len(linear.get_buffer("weight_ND")) for linear in self.norms_less_products)
            rows = max(1, _BLOCK_ELEMENTS // widest)
            blocks = [x_BD] if torch.compiler.is_exporting() else torch.split(x_BD, rows)
            rbf = [self._rbf(x_bD) for x_bD in blocks] or [x_BD.new_empty(0, self._n_rbf())]
            values_BF = torch.cat([values_BF, torch.cat(rbf)], dim=1)
        values_BF = values_BF - self.rho_F
        if self.one_part_a_model:
            return values_BF
        return best_per_model(values_BF, self.owner_F, len(self.models), candidates_BM)

    def _n_rbf(self) -> int:
        return len(self.owner_F) - len(self.place_L)

    def _rbf(self, x_BD: Tensor) -> Tensor:
        out_BR = x_BD.new_zeros(x_BD.shape[0], self._n_rbf())
        square_B1 = torch.linalg.vector_norm(x_BD, dim=1, keepdim=True).square()
        for g, gamma in enumerate(self.gammas):
            distances_BS = self.norms_less_products[g](x_BD)
            # rounding can take a distance of zero below it
            exponents_BS = distances_BS.add_(square_B1).clamp_(min=0).mul_(-gamma)
            kernel_BS = rowwise(torch.exp, exponents_BS) if self.deterministic else exponents_BS.exp_()
            out_BR += self.weighted_sums[g](kernel_BS)[:, self.get_buffer(f"place_{g}")]
        return out_BR

    def _fused_rbf(self, x_BD: Tensor) -> Tensor:
        fixed = [
            (vectors.get_buffer("weight_ND"), vectors.get_buffer("bias_N"), sums.get_buffer("weight_ND").T.contiguous())
            for vectors, sums in zip(self.norms_less_products, self.weighted_sums, strict=True)
        ]
        if self._prepared is None:
            self._prepared = [prepare_vectors(*tensors, impl="triton") for tensors in fixed]
        out_BR = x_BD.new_zeros(x_BD.shape[0], self._n_rbf())
        for g, (gamma, tensors, prepared) in enumerate(zip(self.gammas, fixed, self._prepared, strict=True)):
            values_BU = rbf_decision(x_BD, *tensors, gamma, prepared=prepared, impl="triton")
            out_BR += values_BU[:, self.get_buffer(f"place_{g}")]
        return out_BR


def _shared(rbf: Sequence[RBFPart], gamma: float) -> tuple[Tensor, Tensor]:
    """Distinct support vectors (S, D) and their coefficients (S, R) for the classifiers of one gamma.

    Columns of classifiers with another gamma are zero.
    """
    mine = [r for r, part in enumerate(rbf) if part.gamma == gamma]
    tables = {id(rbf[r].support_vectors_SD): rbf[r].support_vectors_SD for r in mine}  # classifiers may share one
    vectors_SD, index = torch.unique(torch.cat([x.float() for x in tables.values()]), dim=0, return_inverse=True)
    place_of = dict(zip(tables, torch.split(index, [len(x) for x in tables.values()]), strict=True))
    coefficients_SR = torch.zeros(len(vectors_SD), len(rbf), dtype=torch.float64)
    for r in mine:
        place_S = place_of[id(rbf[r].support_vectors_SD)]
        coefficients_SR[:, r].index_add_(0, place_S, rbf[r].alpha_S.double())
    return vectors_SD, coefficients_SR.float()
