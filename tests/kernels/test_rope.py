"""Norm and rotation of q and k: transformers' own functions, float64, and every set of heads."""

from __future__ import annotations

import pytest
import torch
from gpu_select_kernels.rope import qk_norm_rope

IMPLS = ["torch", "triton"]
EPS = 1e-6
SHAPES = [(1, 1, 1, 2), (7, 4, 2, 16), (5, 3, 1, 20), (3, 16, 8, 128), (4, 0, 2, 64), (6, 5, 0, 32)]


def problem(T, n_q, n_kv, d, dtype, table=torch.float32):
    generator = torch.Generator().manual_seed(d)
    qkv_TE = torch.randn(T, (n_q + 2 * n_kv) * d, generator=generator).to(dtype)
    q_weight_d, k_weight_d = (1 + 0.3 * torch.randn(2, d, generator=generator)).to(dtype)
    angle_Th = torch.arange(3, 3 + T)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
    angle_Td = torch.cat([angle_Th, angle_Th], dim=1)
    return qkv_TE, q_weight_d, k_weight_d, angle_Td.cos().to(table), angle_Td.sin().to(table)


def exact(x_THd, weight_d, cos_Td, sin_Td):
    x_THd, half = x_THd.double(), x_THd.shape[2] // 2
    if weight_d is not None:
        x_THd = x_THd * torch.rsqrt(x_THd.square().mean(2, keepdim=True) + EPS) * weight_d.double()
    turned_THd = torch.cat([-x_THd[..., half:], x_THd[..., :half]], dim=2)
    return x_THd * cos_Td.double()[:, None] + turned_THd * sin_Td.double()[:, None]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("norm", ["both", "none", "q", "k"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("T", "n_q", "n_kv", "d"), SHAPES)
def test_it_is_close_to_float64(T, n_q, n_kv, d, dtype, norm, impl):
    qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td = problem(T, n_q, n_kv, d, dtype)
    q_weight_d = q_weight_d if norm in ("both", "q") else None
    k_weight_d = k_weight_d if norm in ("both", "k") else None
    q_THd, k_THd, v_THd = qk_norm_rope(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, n_q, n_kv, d, EPS, impl=impl)
    heads_THd = qkv_TE.view(T, -1, d)
    bounds = {"atol": 5e-6, "rtol": 5e-6} if dtype == torch.float32 else {"atol": 6e-3, "rtol": 2e-3}
    torch.testing.assert_close(q_THd.double(), exact(heads_THd[:, :n_q], q_weight_d, cos_Td, sin_Td), **bounds)
    torch.testing.assert_close(
        k_THd.double(), exact(heads_THd[:, n_q : n_q + n_kv], k_weight_d, cos_Td, sin_Td), **bounds
    )
    assert torch.equal(v_THd, heads_THd[:, n_q + n_kv :])
    assert q_THd.dtype == k_THd.dtype == dtype
    assert q_THd.is_contiguous()
    assert k_THd.is_contiguous()
    if n_kv:
        assert v_THd.data_ptr() == heads_THd[:, n_q + n_kv :].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_reference_has_the_bits_of_transformers(dtype):
    qwen3 = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td = problem(9, 4, 2, 32, dtype, table=dtype)
    q_norm, k_norm = qwen3.Qwen3RMSNorm(32, EPS), qwen3.Qwen3RMSNorm(32, EPS)
    q_norm.weight.data, k_norm.weight.data = q_weight_d, k_weight_d
    heads_THd = qkv_TE.view(9, -1, 32)
    q_HTd, k_HTd = qwen3.apply_rotary_pos_emb(
        q_norm(heads_THd[:, :4]).transpose(0, 1)[None],
        k_norm(heads_THd[:, 4:6]).transpose(0, 1)[None],
        cos_Td[None],
        sin_Td[None],
    )
    q_THd, k_THd, _ = qk_norm_rope(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, 4, 2, 32, EPS)
    assert torch.equal(q_THd, q_HTd[0].transpose(0, 1))
    assert torch.equal(k_THd, k_HTd[0].transpose(0, 1))


@pytest.mark.interpreted
def test_the_kernel_rounds_where_the_reference_does():
    arguments = (*problem(50, 4, 2, 64, torch.float16, table=torch.float16), 4, 2, 64, EPS)
    kernel, reference = (qk_norm_rope(*arguments, impl=impl)[:2] for impl in ("triton", "torch"))
    for ours, theirs in zip(kernel, reference, strict=True):
        # another order of summation moves few numbers to the next float16; a missing rounding would move a third
        assert (ours != theirs).float().mean() < 0.01


@pytest.mark.parametrize("impl", IMPLS)
def test_a_tokens_bits_do_not_depend_on_the_other_tokens(impl):
    qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td = problem(13, 3, 2, 40, torch.float32)
    rest = (3, 2, 40, EPS)
    together = qk_norm_rope(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, *rest, impl=impl)
    for t in range(13):
        one = slice(t, t + 1)
        alone = qk_norm_rope(qkv_TE[one], q_weight_d, k_weight_d, cos_Td[one], sin_Td[one], *rest, impl=impl)
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours[0], theirs[t])


@pytest.mark.parametrize("impl", IMPLS)
def test_rows_and_tables_may_be_strided_and_a_batch_empty(impl):
    qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td = problem(5, 2, 1, 16, torch.float32)
    rest = (2, 1, 16, EPS)
    expected = qk_norm_rope(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td, *rest, impl=impl)
    tables_T2d = torch.cat([cos_Td, sin_Td], dim=1)
    wide_TE = torch.cat([qkv_TE, qkv_TE], dim=1)[:, : qkv_TE.shape[1]]
    found = qk_norm_rope(wide_TE, q_weight_d, k_weight_d, tables_T2d[:, :16], tables_T2d[:, 16:], *rest, impl=impl)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    q_THd, k_THd, v_THd = qk_norm_rope(qkv_TE[:0], q_weight_d, k_weight_d, cos_Td[:0], sin_Td[:0], *rest, impl=impl)
    assert (q_THd.shape, k_THd.shape, v_THd.shape) == ((0, 2, 16), (0, 1, 16), (0, 1, 16))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, torch.zeros(5, 63), r"qkv_TE: expected \(T, \(2 \+ 2 \* 1\) \* 16\) .* got \(5, 63\)"),
        (1, torch.zeros(15), r"q_weight_d: expected \(16,\) torch.float32, got \(15,\)"),
        (2, torch.zeros(16).half(), r"k_weight_d: expected \(16,\) torch.float32, got \(16,\) torch.float16"),
        (3, torch.zeros(4, 16), r"cos_Td: expected \(5, 16\) float32 or torch.float32, got \(4, 16\)"),
        (4, torch.zeros(5, 16).half(), r"sin_Td: expected .* got \(5, 16\) torch.float16"),
        (7, 15, "head_dim: expected an even number up to 1024, got 15"),
    ],
)
def test_what_does_not_fit_is_refused(place, value, message):
    arguments = [*problem(5, 2, 1, 16, torch.float32), 2, 1, 16, EPS]
    arguments[place] = value
    with pytest.raises(ValueError, match=message):
        qk_norm_rope(*arguments)


def test_the_two_tables_have_one_dtype():
    qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td = problem(5, 2, 1, 16, torch.float16)
    with pytest.raises(ValueError, match=r"sin_Td: expected the dtype of cos_Td, torch.float32, got torch.float16"):
        qk_norm_rope(qkv_TE, q_weight_d, k_weight_d, cos_Td, sin_Td.half(), 2, 1, 16, EPS)
