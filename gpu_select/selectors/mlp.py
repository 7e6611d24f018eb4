"""MLP: the model whose output of a small neural network is largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpu_select.selectors.base import Selector, distinct_rows
from gpu_select.selectors.fixed_linear import FixedLinear

__all__ = ["BatchNorm", "Linear", "MLPSelector", "ReLU"]


@dataclass(frozen=True, eq=False)
class Linear:
    """y = weight x + bias. weight_OI: (O, I); bias_O: (O,), or None for zeros."""

    weight_OI: Tensor
    bias_O: Tensor | None = None


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """y = weight (x - mean) / sqrt(var + eps) + bias, each (W,) float64."""

    weight_W: Tensor
    bias_W: Tensor
    mean_W: Tensor
    var_W: Tensor
    eps: float


@dataclass(frozen=True)
class ReLU:
    """y = max(x, 0)."""


class MLPSelector(Selector):
    """A model's score is its output of the last layer; the first model wins a tie.

    Batch norm at inference is a scale and a shift of each unit. They go into the linear layer before or behind it, in
    float64, so that a decision is one matrix product a linear layer.

    Args:
        models: M names, one for each output of the last layer.
        layers: in order; the first linear one takes D inputs. Dropout does nothing at inference and is left out.

    Source:
        Ioffe and Szegedy (2015), arXiv:1502.03167, section 3.1: batch norm at inference is one affine map.
    """

    algorithm = "mlp"
    place_M: Tensor

    def __init__(self, models: Sequence[str], layers: Sequence[Linear | BatchNorm | ReLU]) -> None:
        affine = _folded(layers)
        last = max(i for i, layer in enumerate(affine) if isinstance(layer, Linear))
        first = next(layer for layer in affine if isinstance(layer, Linear))
        super().__init__(models, first.weight_OI.shape[1])
        self.steps = nn.ModuleList()
        for i, layer in enumerate(affine):
            if isinstance(layer, Linear):
                weight_OI, bias_O = layer.weight_OI.float(), _bias(layer).float()
                if i == last:
                    # a product may round equal columns differently, and the first of them has to win
                    rows_UX, place_M = distinct_rows(torch.cat([weight_OI, bias_O[:, None]], dim=1))
                    weight_OI, bias_O = rows_UX[:, :-1], rows_UX[:, -1].contiguous()
                    self.register_buffer("place_M", place_M)
                self.steps.append(FixedLinear(weight_OI, bias_O, scale=1.0))
            else:
                self.steps.append(nn.ReLU() if isinstance(layer, ReLU) else _ScaleAndShift(layer))
        self._last = last

    def scores(self, features_BD: Tensor, candidates_BM: Tensor | None) -> Tensor:
        """(B, M) float32 outputs of the last layer."""
        x_BW = features_BD
        for i, step in enumerate(self.steps):
            x_BW = step(x_BW)
            if i == self._last and x_BW.shape[1] < len(self.models):
                x_BW = x_BW[:, self.place_M]
        return x_BW


class _ScaleAndShift(nn.Module):
    scale_W: Tensor
    shift_W: Tensor

    def __init__(self, layer: BatchNorm) -> None:
        super().__init__()
        scale_W, shift_W = _scale_and_shift(layer)
        self.register_buffer("scale_W", scale_W.float())
        self.register_buffer("shift_W", shift_W.float())

    def forward(self, x_BW: Tensor) -> Tensor:
        return x_BW * self.scale_W + self.shift_W


def _folded(layers: Sequence[Linear | BatchNorm | ReLU]) -> list[Linear | BatchNorm | ReLU]:
    """The same function with batch norm inside of the linear layers next to it, wherever there is one."""
    out: list[Linear | BatchNorm | ReLU] = []
    for layer in layers:
        before = out[-1] if out else None
        if isinstance(layer, BatchNorm) and isinstance(before, Linear):
            scale_W, shift_W = _scale_and_shift(layer)
            weight_OI = before.weight_OI.double() * scale_W[:, None]
            out[-1] = Linear(weight_OI, _bias(before) * scale_W + shift_W)
        elif isinstance(layer, Linear) and isinstance(before, BatchNorm):
            scale_W, shift_W = _scale_and_shift(before)
            weight_OI = layer.weight_OI.double()
            out[-1] = Linear(weight_OI * scale_W, _bias(layer) + weight_OI @ shift_W)
        else:
            out.append(layer)
    return out


def _scale_and_shift(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    scale_W = layer.weight_W.double() / (layer.var_W.double() + layer.eps).sqrt()
    return scale_W, layer.bias_W.double() - layer.mean_W.double() * scale_W


def _bias(layer: Linear) -> Tensor:
    if layer.bias_O is None:
        return torch.zeros(len(layer.weight_OI), dtype=torch.float64)
    return layer.bias_O.double()
