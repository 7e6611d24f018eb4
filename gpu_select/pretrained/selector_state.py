"""A fitted selector as parameters and tensors, and the selector back from them, which may come from anywhere.

The tensors are those of its `state_dict`. What a selector derives from others is derived again and has to come out the
same, so that no file can make one that its own code could not have made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_select.errors import FileFormatError, brief
from gpu_select.pretrained.config import CONFIG_FILE, SavedConfig
from gpu_select.selectors import (
    Backend,
    BatchNorm,
    KMeansSelector,
    KNNSelector,
    Linear,
    LinearPart,
    MLPSelector,
    RBFPart,
    ReLU,
    Selector,
    SVMSelector,
)
from gpu_select.selectors.fixed_linear import FixedLinear
from gpu_select.wire import MAX_MAGNITUDE

__all__ = ["parameters_of", "selector_of"]

_MOST_NUMBERS = 1 << 31
"""Of a table that a selector is made from: a small file can ask for the same row again and again."""


def parameters_of(selector: Selector) -> dict[str, Any]:
    """What `selector_of` needs beside models, D and tensors; goes into JSON."""
    if isinstance(selector, KNNSelector):
        return {"n_neighbors": selector.n_neighbors}
    if isinstance(selector, SVMSelector):
        return {"rbf_gammas": list(selector.rbf_gammas)}
    if isinstance(selector, MLPSelector):
        kinds = {FixedLinear: "linear", torch.nn.ReLU: "relu"}
        return {"layers": [kinds.get(type(step), "scale") for step in selector.steps]}
    return {}


def selector_of(
    folder: Path, config: SavedConfig, tensors: Mapping[str, Tensor], *, backend: Backend = "torch"
) -> Selector:
    """The selector of a saved router, on the CPU.

    Args:
        folder: where config and tensors come from, for errors.
        config: of the router.
        tensors: of the selector, under the names of its `state_dict`.
        backend: what searches KNN's rows.

    Raises:
        FileFormatError: parameters or tensors are missing, or are none that a selector can have.
    """
    state = _State(folder, config, tensors)
    selector = _MAKERS[config.algorithm](state, backend)
    if selector.models != config.models:
        raise state.bad_parameter("models", "the order in which the tensors have them", list(config.models))
    again = selector.state_dict()
    for name in sorted(again.keys() ^ tensors.keys()):
        raise state.bad(name, "no such tensor" if name in tensors else "a tensor", "one" if name in tensors else "none")
    for name, tensor in again.items():
        given = tensors[name]
        if (given.dtype, given.shape) != (tensor.dtype, tensor.shape):
            raise state.bad(name, _shown(tensor), _shown(given))
        same = torch.allclose(given, tensor, rtol=1e-5, atol=0) if tensor.is_floating_point() else given.equal(tensor)
        if not same:
            raise state.bad(name, "what follows from the other tensors", "other numbers: the file is damaged")
    return selector


@dataclass(frozen=True)
class _State:
    """Parameters and tensors that are checked as they are read."""

    folder: Path
    config: SavedConfig
    tensors: Mapping[str, Tensor]

    def bad(self, name: str, expected: str, got: str) -> FileFormatError:
        return FileFormatError(self.folder / "model.safetensors", f"selector.{name}", expected, got)

    def bad_parameter(self, name: str, expected: str, got: object) -> FileFormatError:
        return FileFormatError(self.folder / CONFIG_FILE, f"selector.{name}", expected, brief(got))

    def parameter(self, name: str, expected: str, is_good: Callable[[Any], bool]) -> Any:
        value = self.config.parameters.get(name)
        if not is_good(value):
            raise self.bad_parameter(name, expected, value)
        return value

    def floats(self, name: str, *shape: int | None) -> Tensor:
        """Finite float32 of a shape, of which None is any size from 1 on."""
        tensor = self._tensor(name, torch.float32, shape)
        if not (tensor.abs() <= MAX_MAGNITUDE).all():  # NaN fails, too
            raise self.bad(name, f"finite numbers of at most {MAX_MAGNITUDE:g} in magnitude", "another one")
        return tensor

    def numbers(self, name: str, *shape: int | None, below: int) -> Tensor:
        """Whole numbers from 0 to below."""
        tensor = self._tensor(name, torch.int64, shape)
        if tensor.numel() and (int(tensor.min()) < 0 or int(tensor.max()) >= below):
            raise self.bad(name, f"numbers from 0 to {below - 1}", "another one")
        return tensor

    def bits(self, name: str, size: int) -> Tensor:
        """(size,) positive float64 that stand as int64."""
        tensor = self._tensor(name, torch.int64, (size,)).view(torch.float64)
        if not ((tensor > 0) & (tensor <= MAX_MAGNITUDE)).all():
            raise self.bad(name, f"the bits of positive numbers up to {MAX_MAGNITUDE:g}", "others")
        return tensor

    def models_at(self, place_F: Tensor) -> list[str]:
        return [self.config.models[place] for place in place_F.tolist()]

    def rows(self, name: str, table_UX: Tensor, place_F: Tensor) -> Tensor:
        """Rows of a table, some of them more than once."""
        if len(place_F) * table_UX.shape[1] > _MOST_NUMBERS:
            raise self.bad(name, f"at most {_MOST_NUMBERS:,} numbers in all rows", f"{len(place_F):,} rows")
        return table_UX[place_F]

    def _tensor(self, name: str, dtype: torch.dtype, shape: Sequence[int | None]) -> Tensor:
        tensor = self.tensors.get(name)
        expected = (
            f"{str(dtype).removeprefix('torch.')} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
        )
        if tensor is None:
            raise self.bad(name, expected, "none")
        fits = len(tensor.shape) == len(shape) and all(
            size >= 1 if wanted is None else size == wanted for size, wanted in zip(tensor.shape, shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            raise self.bad(name, expected, _shown(tensor))
        return tensor


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _knn(state: _State, backend: Backend) -> Selector:
    k = state.parameter("n_neighbors", "an integer >= 1", lambda value: type(value) is int and value >= 1)
    label_N1 = state.numbers("label_N", None, below=len(state.config.models))
    N = len(label_N1) - 1
    vectors_UD = state.floats("index.flat.smallest.all.weight_ND", None, state.config.dim)
    rows_UR = state.numbers("index.rows_UR", len(vectors_UD), None, below=N + 1)
    vector_P, place_P = (rows_UR < N).nonzero(as_tuple=True)
    row_P = rows_UR[vector_P, place_P]
    if N < 1 or not row_P.sort().values.equal(torch.arange(N)):
        raise state.bad("index.rows_UR", f"each of {N} rows once", "other rows")
    vector_N = torch.empty(N, dtype=torch.int64).scatter_(0, row_P, vector_P)
    return KNNSelector(
        state.rows("index.rows_UR", vectors_UD, vector_N),
        state.models_at(label_N1[:-1]),
        n_neighbors=k,
        votes_N=state.bits("votes_N", N),
        backend=backend,
    )


def _kmeans(state: _State, backend: Backend) -> Selector:
    centroids_UD = state.floats("products_less_norms.weight_ND", None, state.config.dim)
    place_K = state.numbers("place_K", None, below=len(centroids_UD))
    owner_K = state.numbers("owner_K", len(place_K), below=len(state.config.models))
    return KMeansSelector(state.rows("place_K", centroids_UD, place_K), state.models_at(owner_K))


def _svm(state: _State, backend: Backend) -> Selector:
    def is_good(value: Any) -> bool:
        return isinstance(value, list) and all(
            type(gamma) in (int, float) and 0 < gamma <= MAX_MAGNITUDE for gamma in value
        )

    gammas = [float(gamma) for gamma in state.parameter("rbf_gammas", "a list of numbers > 0", is_good)]
    owner_F = state.numbers("owner_F", None, below=len(state.config.models))
    rho_F = state.floats("rho_F", len(owner_F)).tolist()
    names, L, D = state.models_at(owner_F), len(owner_F) - len(gammas), state.config.dim
    if L < 0:
        raise state.bad_parameter("rbf_gammas", f"at most {len(owner_F)} numbers", gammas)
    linear = []
    if L:
        weights_UD = state.floats("linear_values.weight_ND", None, D)
        place_L = state.numbers("place_L", L, below=len(weights_UD))
        weights_LD = state.rows("place_L", weights_UD, place_L)
        linear = [LinearPart(names[f], weights_LD[f].double(), rho_F[f]) for f in range(L)]
    rbf: dict[int, RBFPart] = {}
    for g, gamma in enumerate(sorted(set(gammas))):
        vectors_SD = state.floats(f"norms_less_products.{g}.weight_ND", None, D)
        coefficients_US = state.floats(f"weighted_sums.{g}.weight_ND", None, len(vectors_SD))
        place_R = state.numbers(f"place_{g}", len(gammas), below=len(coefficients_US))
        alpha_RS = state.rows(f"place_{g}", coefficients_US, place_R)
        for r, own in enumerate(gammas):
            if own == gamma:
                rbf[r] = RBFPart(names[L + r], alpha_RS[r], vectors_SD, rho_F[L + r], gamma)
    return SVMSelector(linear, [rbf[r] for r in range(len(gammas))])


def _mlp(state: _State, backend: Backend) -> Selector:
    kinds: list[str] = state.parameter(
        "layers",
        "a list of linear, relu and scale, with one linear at least",
        lambda value: (
            isinstance(value, list)
            and 1 <= len(value) <= 1000
            and all(kind in ("linear", "relu", "scale") for kind in value)
            and "linear" in value
        ),
    )
    last = len(kinds) - 1 - kinds[::-1].index("linear")
    layers: list[Linear | BatchNorm | ReLU] = []
    width = state.config.dim
    for i, kind in enumerate(kinds):
        if kind == "linear":
            weight_OI = state.floats(f"steps.{i}.weight_ND", None, width)
            bias_O = state.floats(f"steps.{i}.bias_N", len(weight_OI))
            if i == last:
                place_M = state.numbers("place_M", len(state.config.models), below=len(weight_OI))
                weight_OI, bias_O = state.rows("place_M", weight_OI, place_M), bias_O[place_M]
            width = len(weight_OI)
            layers.append(Linear(weight_OI, bias_O))
        elif kind == "scale":
            scale_W, shift_W = state.floats(f"steps.{i}.scale_W", width), state.floats(f"steps.{i}.shift_W", width)
            zeros_W = torch.zeros(width, dtype=torch.float64)
            layers.append(BatchNorm(scale_W.double(), shift_W.double(), zeros_W, zeros_W + 1, 0.0))
        else:
            layers.append(ReLU())
    return MLPSelector(state.config.models, layers)


_MAKERS: dict[str, Callable[[_State, Backend], Selector]] = {
    "knn": _knn,
    "kmeans": _kmeans,
    "svm": _svm,
    "mlp": _mlp,
}
