"""The gated activation: transformers' own block, float64, odd sizes."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.swiglu import swiglu

IMPLS = ["torch", "triton"]


def problem(T, n_columns, dtype):
    return (4 * torch.randn(T, 2 * n_columns, generator=torch.Generator().manual_seed(n_columns))).to(dtype)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("T", "n_columns"), [(1, 1), (7, 100), (5, 1038), (3, 3072)])
def test_it_is_close_to_float64(T, n_columns, dtype, impl):
    gate_up_TE = problem(T, n_columns, dtype)
    found_TI = swiglu(gate_up_TE, impl=impl)
    gate_TI, up_TI = gate_up_TE.double().chunk(2, dim=1)
    bounds = {"atol": 1e-6, "rtol": 2e-6} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 2e-3}
    assert found_TI.dtype == dtype
    torch.testing.assert_close(found_TI.double(), gate_TI * gate_TI.sigmoid() * up_TI, **bounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_reference_has_the_bits_of_transformers(dtype):
    activations = pytest.importorskip("transformers.activations")
    gate_up_TE = problem(9, 64, dtype)
    assert torch.equal(swiglu(gate_up_TE), activations.ACT2FN["silu"](gate_up_TE[:, :64]) * gate_up_TE[:, 64:])


@pytest.mark.interpreted
def test_the_kernel_rounds_where_the_reference_does():
    gate_up_TE = problem(20, 500, torch.float16)
    # a missing rounding would move a third of the numbers to the next float16
    assert (swiglu(gate_up_TE, impl="triton") != swiglu(gate_up_TE, impl="torch")).float().mean() < 0.01


@pytest.mark.parametrize("impl", IMPLS)
def test_extreme_gates_close_or_pass(impl):
    gate_up_TE = torch.tensor([[-60000.0, 60000.0, 0.0, 1.0, 1.0, 1.0]]).half()
    assert swiglu(gate_up_TE, impl=impl).tolist() == [[0.0, 60000.0, 0.0]]


@pytest.mark.parametrize("impl", IMPLS)
def test_rows_may_be_strided_and_a_batch_empty(impl):
    gate_up_TE = problem(6, 30, torch.float32)
    expected_TI = swiglu(gate_up_TE, impl=impl)
    for view in (torch.cat([gate_up_TE, gate_up_TE], dim=1)[:, :60], gate_up_TE.T.contiguous().T):
        torch.testing.assert_close(swiglu(view, impl=impl), expected_TI)
    assert swiglu(gate_up_TE[:0], impl=impl).shape == (0, 30)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, 3), r"gate_up_TE: expected \(T, 2 I\) .* got \(2, 3\)"),
        (torch.zeros(4), r"gate_up_TE: expected \(T, 2 I\) .* got \(4,\)"),
        (torch.zeros(2, 4, dtype=torch.float64), r"gate_up_TE: expected .* got \(2, 4\) torch.float64"),
    ],
)
def test_what_does_not_fit_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        swiglu(value)
