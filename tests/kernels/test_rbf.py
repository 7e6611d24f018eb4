"""RBF decision values: float64, the same bits in any batch, both precisions."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.rbf import prepare_vectors, rbf_decision

CALLS = [("torch", "ieee"), ("triton", "ieee"), ("triton", "tf32x3")]


def problem(B, S, D, R, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_BD, vectors_SD = (torch.nn.functional.normalize(torch.randn(n, D, generator=generator)) for n in (B, S))
    coefficients_SR = torch.randn(S, R, generator=generator)
    return x_BD, vectors_SD, vectors_SD.square().sum(1), coefficients_SR


def exact(x_BD, vectors_SD, norms_S, coefficients_SR, gamma):
    distances_BS = torch.cdist(x_BD.double(), vectors_SD.double()).square()
    return torch.exp(-gamma * distances_BS) @ coefficients_SR.double()


@pytest.mark.parametrize(("impl", "precision"), CALLS)
@pytest.mark.parametrize(
    ("B", "S", "D", "R", "gamma"),
    [(1, 1, 1, 1, 1.0), (3, 300, 40, 6, 0.5), (70, 37, 100, 17, 2.0), (2, 20, 518, 3, 1.0), (2, 5, 7, 70, 1.0)],
)
def test_decision_values_are_close_to_float64(B, S, D, R, gamma, impl, precision):
    arguments = problem(B, S, D, R)
    found_BR = rbf_decision(*arguments, gamma, precision=precision, impl=impl)
    expected_BR = exact(*arguments, gamma)
    assert found_BR.dtype == torch.float32
    # the error of a distance is some 1e-7, that of a sum grows with its terms
    bound = 2e-6 * arguments[3].double().abs().sum(0).max()
    assert (found_BR.double() - expected_BR).abs().max() < bound


@pytest.mark.interpreted
@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_a_row_does_not_depend_on_the_batch(precision):
    x_BD, *fixed = problem(66, 150, 20, 5)
    together = rbf_decision(x_BD, *fixed, 1.0, precision=precision, impl="triton")
    for rows in (slice(0, 1), slice(3, 40), slice(65, 66)):
        alone = rbf_decision(x_BD[rows], *fixed, 1.0, precision=precision, impl="triton")
        # not its bits: under the interpreter, NumPy's product may round a row by its place among the others
        torch.testing.assert_close(alone, together[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.interpreted
def test_blocks_of_queries_give_the_same_bits(monkeypatch):
    from gpu_select_kernels import rbf_triton

    arguments = problem(130, 10, 8, 3)
    at_once = rbf_decision(*arguments, 1.0, impl="triton")
    monkeypatch.setattr(rbf_triton, "_MOST_PARTIAL_SUMS", 1)
    assert torch.equal(rbf_decision(*arguments, 1.0, impl="triton"), at_once)


@pytest.mark.interpreted
def test_many_tiles_of_vectors_are_all_counted(monkeypatch):
    from gpu_select_kernels import rbf_triton

    monkeypatch.setattr(rbf_triton, "_TILES_A_SUM", 2)
    arguments = problem(3, 600, 8, 3)
    found_BR = rbf_decision(*arguments, 1.0, impl="triton")
    torch.testing.assert_close(found_BR.double(), exact(*arguments, 1.0), atol=1e-4, rtol=1e-5)


@pytest.mark.interpreted
@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_prepared_vectors_give_the_same_bits(precision):
    x_BD, *fixed = problem(5, 40, 33, 4)
    prepared = prepare_vectors(*fixed, precision=precision, impl="triton")
    found_BR = rbf_decision(x_BD, *fixed, 1.0, prepared=prepared, precision=precision, impl="triton")
    assert torch.equal(found_BR, rbf_decision(x_BD, *fixed, 1.0, precision=precision, impl="triton"))
    assert prepare_vectors(*fixed, impl="torch") is None


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_a_distance_never_falls_below_zero(impl):
    x_BD, *_ = problem(1, 1, 300, 1)
    coefficient = torch.ones(1, 1)
    found = rbf_decision(x_BD, x_BD, 0.999 * x_BD.square().sum(1), coefficient, 1e6, impl=impl)
    assert found.item() == 1.0


@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize(("B", "S", "R"), [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nothing_in_gives_zeros_or_nothing(B, S, R, impl):
    found_BR = rbf_decision(*problem(B, S, 6, R), 1.0, impl=impl)
    assert torch.equal(found_BR, torch.zeros(B, R))


@pytest.mark.interpreted
def test_rows_may_be_strided():
    x_BD, vectors_SD, *rest = problem(3, 20, 10, 2)
    expected = rbf_decision(x_BD, vectors_SD, *rest, 1.0, impl="triton")
    wide = [torch.cat([rows, rows], dim=1)[:, :10] for rows in (x_BD, vectors_SD)]
    turned = [rows.T.contiguous().T for rows in (x_BD, vectors_SD)]
    for views in (wide, turned):
        assert torch.equal(rbf_decision(*views, *rest, 1.0, impl="triton"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_BD": torch.zeros(2, 4)}, r"x_BD: expected \(B, 3\) float32, got \(2, 4\)"),
        ({"x_BD": torch.zeros(2, 3).double()}, r"x_BD: expected \(B, 3\) float32, got \(2, 3\) torch.float64"),
        ({"vectors_SD": torch.zeros(5)}, r"vectors_SD: expected \(S, D\) float32, got \(5,\)"),
        ({"norms_S": torch.zeros(4)}, r"norms_S: expected \(5,\) float32, got \(4,\)"),
        ({"coefficients_SR": torch.zeros(4, 2)}, r"coefficients_SR: expected \(5, R\) float32, got \(4, 2\)"),
        ({"precision": "tf32"}, "precision: expected tf32x3 or ieee, got 'tf32'"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    names = ("x_BD", "vectors_SD", "norms_S", "coefficients_SR")
    arguments = dict(zip(names, problem(2, 5, 3, 2), strict=True))
    with pytest.raises(ValueError, match=message):
        rbf_decision(**{**arguments, "gamma": 1.0, **change})
