"""RMSNorm with a residual: transformers' own layer, float64, and writing in place."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.rms_norm import rms_norm

IMPLS = ["torch", "triton"]
EPS = 1e-6


def problem(T, D, dtype):
    generator = torch.Generator().manual_seed(D)
    x_TD, residual_TD = 2 * torch.randn(2, T, D, generator=generator)
    weight_D = 1 + 0.3 * torch.randn(D, generator=generator)
    return x_TD.to(dtype), weight_D.to(dtype), residual_TD.to(dtype)


def exact(y_TD, weight_D):
    y_TD = y_TD.double()
    return y_TD * torch.rsqrt(y_TD.square().mean(1, keepdim=True) + EPS) * weight_D.double()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("T", "D"), [(1, 1), (7, 100), (5, 1024), (3, 1038), (2, 5000)])
def test_it_is_close_to_float64(T, D, dtype, impl):
    x_TD, weight_D, residual_TD = problem(T, D, dtype)
    bounds = {"atol": 2e-6, "rtol": 2e-6} if dtype == torch.float32 else {"atol": 2e-3, "rtol": 1e-3}
    normed_TD, y_TD = rms_norm(x_TD, weight_D, EPS, impl=impl)
    assert y_TD is x_TD
    torch.testing.assert_close(normed_TD.double(), exact(x_TD, weight_D), **bounds)
    normed_TD, y_TD = rms_norm(x_TD, weight_D, EPS, residual_TD, impl=impl)
    assert torch.equal(y_TD, x_TD + residual_TD)
    torch.testing.assert_close(normed_TD.double(), exact(y_TD, weight_D), **bounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_reference_has_the_bits_of_transformers(dtype):
    qwen3 = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    x_TD, weight_D, residual_TD = problem(9, 64, dtype)
    norm = qwen3.Qwen3RMSNorm(64, EPS)
    norm.weight.data = weight_D
    normed_TD, y_TD = rms_norm(x_TD, weight_D, EPS, residual_TD)
    assert torch.equal(y_TD, residual_TD + x_TD)
    assert torch.equal(normed_TD, norm(y_TD))


@pytest.mark.interpreted
def test_the_kernel_rounds_where_the_reference_does():
    x_TD, weight_D, residual_TD = problem(40, 512, torch.float16)
    kernel, _ = rms_norm(x_TD, weight_D, EPS, residual_TD, impl="triton")
    reference, _ = rms_norm(x_TD, weight_D, EPS, residual_TD, impl="torch")
    # another order of summation moves few numbers to the next float16; a missing rounding would move a third
    assert (kernel != reference).float().mean() < 0.01


@pytest.mark.parametrize("impl", IMPLS)
def test_a_rows_bits_do_not_depend_on_the_other_rows(impl):
    x_TD, weight_D, residual_TD = problem(11, 130, torch.float32)
    together, _ = rms_norm(x_TD, weight_D, EPS, residual_TD, impl=impl)
    alone = [rms_norm(x_TD[t : t + 1], weight_D, EPS, residual_TD[t : t + 1], impl=impl)[0] for t in range(11)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", ["contiguous", "strided", "transposed"])
def test_in_place_the_results_lie_in_the_inputs(layout, impl):
    x_TD, weight_D, residual_TD = problem(6, 50, torch.float32)
    expected = rms_norm(x_TD, weight_D, EPS, residual_TD)
    if layout == "strided":
        wide_TD = torch.cat([x_TD, residual_TD], dim=1)
        x_TD, residual_TD = wide_TD[:, :50], wide_TD[:, 50:]
    elif layout == "transposed":
        x_TD, residual_TD = x_TD.T.contiguous().T, residual_TD.T.contiguous().T
    normed_TD, y_TD = rms_norm(x_TD, weight_D, EPS, residual_TD, inplace=True, impl=impl)
    assert normed_TD.data_ptr() == x_TD.data_ptr()
    assert y_TD.data_ptr() == residual_TD.data_ptr()
    torch.testing.assert_close((normed_TD, y_TD), expected)
    torch.testing.assert_close((x_TD, residual_TD), expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_otherwise_the_inputs_stay_and_a_batch_may_be_empty(impl):
    x_TD, weight_D, residual_TD = problem(6, 50, torch.float32)
    before = x_TD.clone(), residual_TD.clone()
    rms_norm(x_TD, weight_D, EPS, residual_TD, impl=impl)
    assert torch.equal(x_TD, before[0])
    assert torch.equal(residual_TD, before[1])
    assert rms_norm(x_TD[:0], weight_D, EPS, residual_TD[:0], impl=impl)[0].shape == (0, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_TD": torch.zeros(4, 3, dtype=torch.int64)}, r"x_TD: expected .* got \(4, 3\) torch.int64"),
        ({"x_TD": torch.zeros(3)}, r"x_TD: expected .* got \(3,\)"),
        ({"weight_D": torch.zeros(4)}, r"weight_D: expected \(3,\) torch.float32, got \(4,\)"),
        ({"weight_D": torch.zeros(3).half()}, r"weight_D: expected \(3,\) torch.float32, got \(3,\) torch.float16"),
        ({"residual_TD": torch.zeros(3, 3)}, r"residual_TD: expected \(2, 3\) torch.float32, got \(3, 3\)"),
        ({"inplace": True}, "inplace: expected a residual_TD to write to, got none"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        rms_norm(**{"x_TD": torch.zeros(2, 3), "weight_D": torch.ones(3), "eps": EPS, **change})
