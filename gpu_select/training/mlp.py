"""Training of MLP: a committee of small networks for expected utility, merged into one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_select.training.estimate import Regression
from gpu_select.training.utility import centred
from gpu_select.wire import DropoutLayer, LinearLayer, MLPFile, MLPLayer, ReLULayer

__all__ = ["MLPSettings", "fit_mlp", "fit_networks"]

_LEAST_FOLDS = 8
"""A member is stopped by an eighth of the queries, or less with more members."""
_LEAST_STEPS = 16
"""Steps an epoch, where there are queries for them: few queries come in smaller batches."""
_LEAST_BATCH = 16
_LEAST_STEPS_IN_ALL = 200
"""With 120 simulated queries, 80 steps reach half of what can be gained over the best single model, 240 all of it."""


@dataclass(frozen=True)
class MLPSettings:
    """What shapes a network and its training."""

    hidden_sizes: tuple[int, ...] = (64,)
    """Units of each hidden layer of one member; the file's layers hold all members side by side."""
    members: int = 8
    """Networks whose mean decides. Each leaves out a part of the queries, whose expected gains tell when to stop."""
    dropout: float = 0.2
    """Share of hidden units that a training step leaves out."""
    learning_rate: float = 2e-3
    """Of AdamW, falling to zero over the epochs in a straight line."""
    weight_decay: float = 0.1
    """Of AdamW, on weights."""
    batch_size: int = 256
    """Queries a step at most; fewer where there are few queries."""
    epochs: int = 20
    """Passes over the queries; more where they are so few that there would be less than 200 steps."""
    label_gamma: float = 2.0
    """Width of the kernel in the regression that says what is to be gained."""
    label_ridge: float = 3.0
    """That regression's ridge."""


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network: linear layers with ReLU between them."""

    layers: list[tuple[Tensor, Tensor]]
    """Weights (O, I) and biases (O,), float32."""

    def scores(self, features_BD: Tensor) -> Tensor:
        """(B, M) outputs for (B, D) features on the same device; the largest one is the decision."""
        x_BW = features_BD
        for i, (weight_OI, bias_O) in enumerate(self.layers):
            x_BW = torch.addmm(bias_O, x_BW.relu() if i else x_BW, weight_OI.T)
        return x_BW


def fit_mlp(
    features_QD: Tensor,
    models: list[str],
    utility_QM: NDArray[np.float64],
    domain_Q: NDArray[np.int64],
    settings: MLPSettings,
    *,
    seed: int,
) -> MLPFile:
    """Train a committee for expected utility.

    Single outcomes are mostly chance, so what counts is what models are expected to gain, by regressions over other
    queries. For every k, a query's loss has the cross-entropy of choosing one of its k best models, times the lead of
    the k-th over the next one: with two models, cross-entropy weighted by what is at stake. Two models that do alike
    are one choice in it. (The expected gain itself, of choosing by the softmax, is no good as a loss: it has hardly a
    gradient once one model is chosen everywhere.)

    Args:
        features_QD: (Q, D) float32 on the device to train on.
        models: M names.
        utility_QM: (Q, M), NaN where a model did not answer; at least one number a query.
        domain_Q: (Q,) the domain of each query, by name.
        settings: see there.
        seed: the same one gives the same file; torch's global generators are left alone.

    Source:
        Zadrozny, Langford and Abe (2003), doi:10.1109/ICDM.2003.1250950, learning from examples weighted by their cost;
        Breiman (1996), doi:10.1007/BF00058655, committees whose members leave out a part of the data; Loshchilov and
        Hutter (2019), arXiv:1711.05101, AdamW.
    """
    everything_1Q = torch.ones((1, len(features_QD)), dtype=torch.bool)
    regression = Regression(features_QD, domain_Q, settings.label_gamma, seed=seed)
    expected_QM = regression.fit(centred(utility_QM), settings.label_ridge).held_out_QM
    (network,) = fit_networks(features_QD, expected_QM[None], settings, seed=seed, rows_PQ=everything_1Q)
    layers: list[MLPLayer] = []
    for weight_OI, bias_O in network.layers:
        if layers:
            layers += [ReLULayer(), DropoutLayer(settings.dropout)]
        layers.append(LinearLayer(weight_OI.cpu().contiguous().numpy(), bias_O.cpu().double().numpy()))
    return MLPFile(models, layers, settings.dropout)


def fit_networks(
    features_QD: Tensor, expected_PQM: NDArray[np.float64], settings: MLPSettings, *, seed: int, rows_PQ: Tensor
) -> list[Network]:
    """Train P committees at once, each on its own rows: one for each fold of a cross-validation.

    All of them go through the same batches, so that a layer of all members is one matrix product.

    Args:
        features_QD, settings, seed: as for `fit_mlp`.
        expected_PQM: (P, Q, M) what each expects models to gain on a query.
        rows_PQ: (P, Q) bool, the rows that each may learn from.

    Returns:
        P networks on the features' device.
    """
    device, (n_rows, dim) = features_QD.device, features_QD.shape
    generator = torch.Generator().manual_seed(seed)
    trainer = _Trainer(settings, len(rows_PQ), dim, expected_PQM.shape[2], generator, device)
    # what a problem may not learn from counts nothing in it
    gain_PQM = torch.zeros(expected_PQM.shape)
    for gain_QM, expected_QM, rows_Q in zip(gain_PQM, expected_PQM, rows_PQ, strict=True):
        gain_QM[rows_Q] = torch.from_numpy(_of_unit_size(expected_QM[rows_Q.numpy()])).float()
    gain_PQM = gain_PQM.to(device)
    order_PQM, lead_PQM = _ranked(gain_PQM)
    # each member leaves out one part of the queries
    fold_Q = torch.randperm(n_rows, generator=generator) % max(settings.members, _LEAST_FOLDS)
    learns_KQ = (fold_Q != torch.arange(settings.members)[:, None]).float().to(device)
    held_out = [(fold_Q == k).nonzero()[:, 0].to(device) for k in range(settings.members)]
    # unit vectors as numbers of about 1, at which the usual initial weights and step sizes work
    scale = (dim / 2) ** 0.5
    x_QD = features_QD * scale
    batch = min(settings.batch_size, max(_LEAST_BATCH, n_rows // _LEAST_STEPS))
    n_steps = -(-n_rows // batch)
    n_epochs = max(settings.epochs, -(-_LEAST_STEPS_IN_ALL // n_steps))
    for epoch in range(n_epochs):
        order_Q = torch.randperm(n_rows, generator=generator).to(device)
        for step, rows_b in enumerate(torch.split(order_Q, batch)):
            remaining = 1 - (epoch * n_steps + step) / (n_epochs * n_steps)
            trainer.step(x_QD[rows_b], order_PQM[:, rows_b], lead_PQM[:, rows_b], learns_KQ[:, rows_b], remaining)
        trainer.keep_best(_value(trainer, x_QD, gain_PQM, held_out))
    return trainer.networks(scale)


class _Trainer:
    """P committees of K members: their parameters, one step, and the best of the epochs so far."""

    def __init__(
        self,
        settings: MLPSettings,
        n_problems: int,
        dim: int,
        n_models: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.shape = n_problems, settings.members
        n_nets = n_problems * settings.members
        sizes = [dim, *settings.hidden_sizes, n_models]
        self.weights, self.biases = [], []
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            weight_KIO = torch.randn((settings.members, n_in, n_out), generator=generator) * (2 / n_in) ** 0.5
            # outputs of zero: where there is nothing to learn all models tie
            weight_KIO = weight_KIO * (i < len(sizes) - 2)
            weight_GIO = weight_KIO.repeat(n_problems, 1, 1).to(device)
            # the first layer of all members is one product
            self.weights.append(weight_GIO.permute(1, 0, 2).flatten(1).contiguous() if i == 0 else weight_GIO)
            self.biases.append(torch.zeros((n_nets, 1, n_out), device=device))
        self.best = [x.clone() for x in self._parameters()]
        self.best_value_P = torch.full((n_problems,), -torch.inf, device=device)
        for parameter in self._parameters():
            parameter.requires_grad_()
        groups = [
            {"params": self.weights, "weight_decay": settings.weight_decay},
            {"params": self.biases, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99), fused=True)
        # the same units are left out in all problems, so that each goes as it would alone
        self.noise = torch.Generator(device=device).manual_seed(generator.initial_seed())

    def _parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def outputs(self, x_BD: Tensor) -> Tensor:
        """(P * K, B, M) with units left out."""
        h_BGW = (x_BD @ self.weights[0]).view(len(x_BD), *self.biases[0].shape[::2])
        h_GBW: Tensor = h_BGW.transpose(0, 1) + self.biases[0]
        for weight_GIO, bias_G1O in zip(self.weights[1:], self.biases[1:], strict=True):
            h_GBW = h_GBW.relu()
            if self.settings.dropout:
                kept_KBW = torch.rand((self.shape[1], *h_GBW.shape[1:]), generator=self.noise, device=h_GBW.device)
                kept_KBW = (kept_KBW >= self.settings.dropout) / (1 - self.settings.dropout)
                h_GBW = (h_GBW.view(*self.shape, *h_GBW.shape[1:]) * kept_KBW).view(h_GBW.shape)
            h_GBW = torch.baddbmm(bias_G1O, h_GBW, weight_GIO)
        return h_GBW

    @torch.no_grad()
    def outputs_of_member(self, member: int, x_BD: Tensor) -> Tensor:
        """(P, B, M) of one member of each committee, with all units."""
        n_problems, n_members = self.shape
        first_DPW = self.weights[0].view(len(self.weights[0]), n_problems, n_members, -1)[:, :, member]
        h_BPW = (x_BD @ first_DPW.flatten(1)).view(len(x_BD), *first_DPW.shape[1:])
        h_PBW: Tensor = h_BPW.transpose(0, 1) + self.biases[0][member::n_members]
        for weight_GIO, bias_G1O in zip(self.weights[1:], self.biases[1:], strict=True):
            h_PBW = torch.baddbmm(bias_G1O[member::n_members], h_PBW.relu(), weight_GIO[member::n_members])
        return h_PBW

    def step(self, x_BD: Tensor, order_PBM: Tensor, lead_PBM: Tensor, learns_KB: Tensor, remaining: float) -> None:
        """One step of all members on a batch.

        Args:
            x_BD: features.
            order_PBM, lead_PBM: from `_ranked`.
            learns_KB: 1 where a member learns from a query, else 0.
            remaining: of the learning rate.
        """
        outputs_GBM = self.outputs(x_BD)
        log_odds_PKBM = outputs_GBM.view(*self.shape, *outputs_GBM.shape[1:]).log_softmax(dim=3)
        # of choosing one of the best k, for every k
        best_PKBM = log_odds_PKBM.gather(3, order_PBM[:, None].expand_as(log_odds_PKBM)).logcumsumexp(dim=3)
        loss_PKB = -(best_PKBM * lead_PBM[:, None]).sum(dim=3)
        loss = (loss_PKB * learns_KB).sum() / len(x_BD)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * remaining
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def keep_best(self, value_P: Tensor) -> None:
        """Keep the parameters of the problems whose value has grown. Nothing here waits for the device."""
        better_P = value_P > self.best_value_P
        self.best_value_P = torch.where(better_P, value_P, self.best_value_P)
        better_G = better_P.repeat_interleave(self.shape[1])
        for i, (best, now) in enumerate(zip(self.best, self._parameters(), strict=True)):
            if i == 0:
                columns = better_G.repeat_interleave(now.shape[1] // len(better_G))
                self.best[i] = torch.where(columns, now, best)
            else:
                self.best[i] = torch.where(better_G[:, None, None], now, best)

    def networks(self, scale: float) -> list[Network]:
        """Each committee as one network: layers side by side, the last one the mean."""
        n_problems, n_members = self.shape
        weights, biases = self.best[: len(self.weights)], self.best[len(self.weights) :]
        # (P, K, O, I), the first layer scaled for the features as they are
        first = weights[0].view(len(weights[0]), n_problems, n_members, -1).permute(1, 2, 3, 0) * scale
        others = [weight_GIO.view(*self.shape, *weight_GIO.shape[1:]).mT for weight_GIO in weights[1:]]
        out = []
        for p in range(n_problems):
            layers = []
            for i, weight_PKOI in enumerate([first, *others]):
                weight_KOI = weight_PKOI[p]
                bias_KO = biases[i][p * n_members : (p + 1) * n_members, 0]
                if i < len(others):
                    bias_O = bias_KO.flatten()
                    weight_OI = torch.block_diag(*weight_KOI) if i else weight_KOI.flatten(0, 1)  # type: ignore[no-untyped-call]
                else:
                    bias_O = bias_KO.mean(dim=0)
                    weight_OI = weight_KOI.transpose(0, 1).flatten(1) / n_members if i else weight_KOI.mean(dim=0)
                layers.append((weight_OI, bias_O))
            out.append(Network(layers))
        return out


@torch.no_grad()
def _value(trainer: _Trainer, x_QD: Tensor, gain_PQM: Tensor, held_out: list[Tensor]) -> Tensor:
    """(P,) what is gained by the choices of the member that has not learned from a query."""
    value_P = gain_PQM.new_zeros(len(gain_PQM))
    for member, rows_B in enumerate(held_out):
        outputs_PBM = trainer.outputs_of_member(member, x_QD[rows_B])
        chosen_PB1 = outputs_PBM.argmax(dim=2, keepdim=True)
        value_P += gain_PQM[:, rows_B].gather(2, chosen_PB1).sum(dim=(1, 2))
    return value_P


def _of_unit_size(expected_QM: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, M) what choosing a model gains over the query's mean, of unit size."""
    gain_QM: NDArray[np.float64] = expected_QM - expected_QM.mean(axis=1, keepdims=True)
    size = np.sqrt(np.mean(gain_QM**2)) if gain_QM.size else 0.0
    return gain_QM / size if size > 1e-12 else np.zeros_like(gain_QM)


def _ranked(gain_PQM: Tensor) -> tuple[Tensor, Tensor]:
    """(P, Q, M) models, the best first, and (P, Q, M) what each gains over the next one; 0 for the last."""
    sorted_PQM, order_PQM = gain_PQM.sort(dim=2, descending=True, stable=True)
    return order_PQM, sorted_PQM - torch.cat([sorted_PQM[..., 1:], sorted_PQM[..., -1:]], dim=2)
