from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from gpu_select_kernels import packed_product
from gpu_select_kernels.rowwise import rowwise
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.encoder.linear import Linear

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3}
"""Largest error against float64, as a share of the largest number."""


class Operations(TorchDispatchMode):
    """Notes what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def made(O: int, I: int, dtype: torch.dtype = torch.float32, bias: bool = True) -> Linear:  # noqa: E741
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(O, I, generator=generator).to(dtype)
    return Linear(weight, torch.randn(O, generator=generator).to(dtype) if bias else None)


def inputs(N: int, I: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:  # noqa: E741
    return torch.randn(N, I, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(linear: Linear, x_NI: Tensor, *, gelu: bool = False, add_NO: Tensor | None = None) -> Tensor:
    bias = None if linear.bias is None else linear.bias.double()
    out = functional.linear(x_NI.double(), linear.weight.double(), bias)
    out = functional.gelu(out) if gelu else out
    return out if add_NO is None else out + add_NO.double()


def close(got: Tensor, wanted: Tensor) -> None:
    largest = wanted.abs().max().item()
    torch.testing.assert_close(got.double(), wanted, atol=TOLERANCE[got.dtype] * largest, rtol=0)


@pytest.fixture(params=["onednn", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of a product on the CPU."""
    if request.param == "plain":
        monkeypatch.setattr(packed_product, "supports", lambda dtype: False)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("N", "O", "I"), [(1, 5, 3), (37, 50, 23), (16, 64, 96), (0, 5, 3)])
def test_against_float64(path: str, N: int, O: int, I: int, bias: bool, tile: int | None, dtype: torch.dtype) -> None:  # noqa: E741
    linear = made(O, I, dtype, bias)
    linear.tile = tile
    x, add = inputs(N, I, dtype), inputs(N, O, dtype, seed=2)
    for options in ({}, {"gelu": True}, {"add_NO": add}):
        kept = add.clone()
        with Operations() as operations:
            out = linear(x, **options)
        assert (out.shape, out.dtype) == ((N, O), dtype)
        if N:
            close(out, exact(linear, x, **options))
            one_dnn = any("_linear_pointwise" in name for name in operations.names)
            assert one_dnn == (path == "onednn" and packed_product.supports(dtype))
        assert add.equal(kept)


def test_float64_and_float16_take_the_plain_path() -> None:
    for dtype in (torch.float64, torch.float16):
        linear = made(5, 3).to(dtype)
        with Operations() as operations:
            out = linear(inputs(4, 3, dtype))
        assert not any("_linear_pointwise" in name for name in operations.names)
        torch.testing.assert_close(out.double(), exact(linear, inputs(4, 3, dtype)), atol=1e-2, rtol=0)


def test_weights_are_packed_once() -> None:
    linear = made(50, 23)
    with Operations() as operations:
        for n in (3, 7, 3):
            linear(inputs(n, 23))
    assert sum("_reorder_linear_weight" in name for name in operations.names) == packed_product.supports(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"gelu": True}, {"add": True}])
def test_tiles_give_a_row_the_same_bits_wherever_it_stands(
    path: str, options: dict[str, bool], dtype: torch.dtype
) -> None:
    linear = made(67, 41, dtype)
    linear.tile = 8
    x, sums = inputs(30, 41, dtype), inputs(30, 67, dtype, seed=2)

    def run(rows: Tensor) -> Tensor:
        return linear(x[rows], gelu="gelu" in options, add_NO=sums[rows] if "add" in options else None)

    whole = run(torch.arange(30))
    for rows in (torch.arange(30).flip(0), torch.arange(0, 30, 3), torch.tensor([29]), torch.arange(5, 22)):
        assert run(rows).equal(whole[rows])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [64, 96, 70, 4096])
def test_rowwise_gives_a_row_the_same_bits_wherever_it_stands(width: int, threads: int) -> None:
    torch.set_num_threads(threads)  # the fixture one_thread sets it back
    x = inputs(1200 if width < 4096 else 30, width)
    for function in (functional.silu, lambda part: functional.silu(part[:, : width // 2])):
        whole = rowwise(function, x)
        torch.testing.assert_close(whole, function(x), atol=1e-6, rtol=1e-6)
        for rows in (slice(7, 8), slice(3, 29), slice(1, None, 3)):
            assert rowwise(function, x[rows].clone()).equal(whole[rows])
        assert rowwise(function, x[:0]).shape == function(x[:0]).shape


@pytest.mark.parametrize(
    "move",
    [
        lambda linear: linear.to(torch.bfloat16),
        lambda linear: linear.to(torch.bfloat16).float(),
        lambda linear: linear.double(),
        lambda linear: linear.half(),
    ],
)
def test_another_dtype_drops_the_packed_weights(move: Any) -> None:
    linear = made(50, 23)
    linear(inputs(3, 23))
    moved = move(linear)
    fresh = Linear(moved.weight, moved.bias)
    x = inputs(3, 23, moved.weight.dtype)
    assert moved(x).equal(fresh(x))


def test_another_device_drops_the_packed_weights() -> None:
    linear = made(50, 23)
    linear(inputs(3, 23))
    assert linear.to("meta")._packed is None
    assert linear(torch.empty(3, 23, device="meta"), gelu=True).shape == (3, 50)


def test_copies_and_pickles_hold_the_weights_once() -> None:
    linear = made(50, 23)
    linear.tile = 4
    x = inputs(6, 23)
    out = linear(x)
    buffer = io.BytesIO()
    torch.save(linear, buffer)
    buffer.seek(0)
    again = [copy.deepcopy(linear), pickle.loads(pickle.dumps(linear)), torch.load(buffer, weights_only=False)]  # noqa: S301
    for other in again:
        assert other._packed is None
        assert other.tile == 4
        assert other(x).equal(out)
    assert set(linear.state_dict()) == {"weight", "bias"}
    assert not any(parameter.requires_grad for parameter in linear.parameters())


@pytest.mark.parametrize("options", [{}, {"gelu": True}, {"add": True}])
def test_the_compiler_sees_plain_operations(options: dict[str, bool]) -> None:
    linear = made(50, 23)
    x, add = inputs(7, 23), inputs(7, 50, seed=2)
    linear(x)  # weights are packed already
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Any:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    arguments = {"gelu": "gelu" in options, "add_NO": add if "add" in options else None}
    torch._dynamo.reset()
    compiled = torch.compile(linear, backend=backend, fullgraph=True)
    close(compiled(x, **arguments), exact(linear, x, **arguments))
    assert targets
    assert not any("mkldnn" in target for target in targets)
    torch._dynamo.reset()
