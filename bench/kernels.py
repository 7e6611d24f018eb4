"""How near do the fused kernels come to what the device can do, and to torch and torch.compile?

    python bench/kernels.py --device cuda [--no-compile]

Measures the roofs first, in the same run: copies, and square products in float32, TF32 and bfloat16. Then each kernel
beside its torch reference (and beside torch.compile of it, where the operation is one that it fuses), at the sizes of
Qwen3-Embedding-0.6B with 131,072 packed tokens, and of 8,192 queries for the selectors. Times are medians of CUDA
events; errors are ||found - exact|| / ||exact|| against float64. A minute on an H200.
"""

from __future__ import annotations

import argparse
import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from common import clustered_features, save, unit
from gpu_select_kernels.centroid import nearest_centroid
from gpu_select_kernels.pool import pool_features
from gpu_select_kernels.rbf import prepare_vectors, rbf_decision
from gpu_select_kernels.rms_norm import rms_norm
from gpu_select_kernels.rope import qk_norm_rope
from gpu_select_kernels.swiglu import swiglu
from torch import Tensor

REPEATS = 9
TOKENS, LENGTH, HIDDEN = 131_072, 256, 1024
PART = slice(0, 512)
"""Rows that are compared with float64."""
COMPILE_UNTIL_S = 45
"""No compilation is begun later: it takes seconds, and the run is to stay within a minute or so."""

Task = Callable[[], Any]
Row = dict[str, Any]


class Bench:
    """Measured roofs, and rows of results."""

    def __init__(self, compiles: bool) -> None:
        self.started = time.perf_counter()
        self.compiles = compiles
        self.roofs = measured_roofs()
        self.rows: list[Row] = []

    def measure(
        self,
        name: str,
        kernel: Task,
        reference: Task,
        exact: Task,
        *,
        roof: str,
        work: float,
        compiled: Callable[[], Task] | None = None,
        others: dict[str, Task] | None = None,
        part: slice | None = None,
        **about: Any,
    ) -> None:
        """Add a row. `work` is in bytes or operations, as the roof's unit is; `part` is what `exact` covers."""
        tasks = {"kernel": kernel, "torch": reference, **(others or {})}
        if compiled is not None and self.compiles and time.perf_counter() - self.started < COMPILE_UNTIL_S:
            tasks["torch.compile"] = compiled()
        row: Row = {"name": name, **about, "milliseconds": {}, "error": {}}
        expected = exact()
        for key, task in tasks.items():
            try:
                row["error"][key] = relative_error(task(), expected, part)
                row["milliseconds"][key] = round(1e3 * seconds(task), 5)
            except Exception as error:  # a peer that fails is a result
                if key == "kernel":
                    raise
                row["milliseconds"][key] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        rate = work / (row["milliseconds"]["kernel"] / 1e3)
        row |= {"rate": round(rate / 1e9, 1), "rate_unit": unit_of(roof), "roof": roof}
        row["share_of_roof"] = round(rate / self.roofs[roof], 3)
        self.rows.append(row)
        times = "  ".join(f"{key} {value:.3f} ms" for key, value in row["milliseconds"].items() if not is_text(value))
        print(f"{name:24} {times}   {row['rate']:.0f} {row['rate_unit']}, {row['share_of_roof']:.0%} of {roof}")
        print(f"{'':24} error {'  '.join(f'{key} {value:.1e}' for key, value in row['error'].items())}", flush=True)


def unit_of(roof: str) -> str:
    return "GB/s" if roof == "copy" else "GFLOP/s"


def is_text(value: object) -> bool:
    return isinstance(value, str)


def seconds(task: Task, repeats: int = REPEATS) -> float:
    """Median of CUDA events; a slow task is repeated less."""
    task()
    times: list[float] = []
    spent = time.perf_counter()
    while len(times) < 3 or (len(times) < repeats and time.perf_counter() - spent < 1.0):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        task()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def relative_error(found: Any, expected: Any, part: slice | None) -> float:
    """||found - expected|| / ||expected||, over all tensors of a result."""
    pairs = zip(as_tuple(found), as_tuple(expected), strict=False)
    over = under = 0.0
    for ours, theirs in pairs:
        ours = ours if part is None else ours[part]
        over += float((ours.double() - theirs).square().sum())
        under += float(theirs.square().sum())
    return (over / under) ** 0.5


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def measured_roofs() -> dict[str, float]:
    """Bytes a second of a copy (read and written), operations a second of square products."""
    source = torch.empty(1 << 28, device="cuda").normal_()
    target = torch.empty_like(source)
    roofs = {"copy": 2 * source.nbytes / seconds(lambda: target.copy_(source))}
    n = 8192
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in (
        ("float32 product", torch.float32, "highest"),
        ("TF32 product", torch.float32, "high"),
        ("bfloat16 product", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.empty(n, n, device="cuda").normal_().to(dtype) for _ in range(2))
        roofs[name] = 2 * n**3 / seconds(lambda a=a, b=b: torch.mm(a, b))
    torch.set_float32_matmul_precision(before)
    for name, rate in roofs.items():
        print(f"roof: {name:20} {rate / 1e9:.0f} {unit_of(name)}")
    return roofs


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, device="cuda").normal_().to(dtype)


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Task]:
    """torch.compile takes the reference by itself."""

    def compile_it() -> Task:
        fused = torch.compile(function)
        return lambda: fused(*arguments)

    return compile_it


def norm_kernel(bench: Bench) -> None:
    x, residual, weight = normal(TOKENS, HIDDEN), normal(TOKENS, HIDDEN), normal(HIDDEN)

    def norm(impl: str = "auto") -> tuple[Tensor, Tensor]:
        return rms_norm(x, weight, 1e-6, residual, impl=impl)

    def exact() -> tuple[Tensor, Tensor]:
        # in float64 from the rounded sum on, as this rounding belongs to the operation
        y = (x[PART] + residual[PART]).double()
        return y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-6) * weight.double(), y

    bench.measure(
        "rms_norm with residual",
        norm,
        lambda: norm("torch"),
        exact,
        compiled=compiled(norm),
        roof="copy",
        work=4 * x.nbytes,
        part=PART,
        shape=list(x.shape),
        dtype="bfloat16",
    )


def swiglu_kernel(bench: Bench) -> None:
    gate_up = normal(TOKENS // 2, 2 * 3072)

    def exact() -> Tensor:
        gate, up = gate_up[PART].double().chunk(2, dim=1)
        return gate * gate.sigmoid() * up

    bench.measure(
        "swiglu",
        lambda: swiglu(gate_up),
        lambda: swiglu(gate_up, impl="torch"),
        exact,
        compiled=compiled(swiglu, gate_up),
        roof="copy",
        work=1.5 * gate_up.nbytes,
        part=PART,
        shape=list(gate_up.shape),
        dtype="bfloat16",
    )


def rope_kernel(bench: Bench) -> None:
    n_q, n_kv, d = 16, 8, 128
    qkv = normal(TOKENS, (n_q + 2 * n_kv) * d)
    q_weight, k_weight = normal(d), normal(d)
    position = torch.arange(TOKENS, device="cuda")[:, None] % LENGTH
    angle = (position / 1e6 ** (torch.arange(0, d, 2, device="cuda") / d)).repeat(1, 2)
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    def turn(impl: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
        return qk_norm_rope(qkv, q_weight, k_weight, cos, sin, n_q, n_kv, d, 1e-6, impl=impl)

    def exact() -> tuple[Tensor, ...]:
        heads = qkv[PART].view(-1, n_q + 2 * n_kv, d).double()
        out = []
        for x, weight in ((heads[:, :n_q], q_weight), (heads[:, n_q : n_q + n_kv], k_weight)):
            y = x * torch.rsqrt(x.square().mean(2, keepdim=True) + 1e-6) * weight.double()
            turned = torch.cat([-y[..., d // 2 :], y[..., : d // 2]], dim=2)
            out.append(y * cos[PART].double()[:, None] + turned * sin[PART].double()[:, None])
        return tuple(out)

    bench.measure(
        "qk_norm_rope",
        turn,
        lambda: turn("torch"),
        exact,
        compiled=compiled(turn),
        roof="copy",
        work=2 * TOKENS * (n_q + n_kv) * d * 2 + cos.nbytes + sin.nbytes,
        part=PART,
        shape=list(qkv.shape),
        dtype="bfloat16",
    )


def pool_kernels(bench: Bench) -> None:
    hidden = normal(TOKENS, HIDDEN)
    offsets = torch.arange(0, TOKENS + 1, LENGTH, dtype=torch.int32, device="cuda")
    B = len(offsets) - 1
    domains = torch.arange(B, device="cuda") % 14
    one_hot = torch.eye(14, dtype=torch.float64, device="cuda")[domains]

    for pooling in ("mean", "last"):

        def pool(impl: str = "auto", pooling: str = pooling) -> Tensor:
            return pool_features(hidden, offsets, domains, n_domains=14, pooling=pooling, impl=impl)

        def exact(pooling: str = pooling) -> Tensor:
            rows = hidden.view(B, LENGTH, HIDDEN)
            pooled = rows.sum(1, dtype=torch.float64) if pooling == "mean" else rows[:, -1].double()
            return torch.cat([torch.nn.functional.normalize(pooled), one_hot], dim=1)

        read = hidden.nbytes if pooling == "mean" else B * HIDDEN * 2
        bench.measure(
            f"pool_features {pooling}",
            pool,
            lambda pool=pool: pool("torch"),
            exact,
            roof="copy",
            work=read + B * (HIDDEN + 14) * 4,
            shape=list(hidden.shape),
            sequences=B,
            dtype="bfloat16",
        )


def centroid_kernel(bench: Bench) -> None:
    B, K, M = 65_536, 64, 6
    features = clustered_features(8192, 1038, seed=1).cuda().repeat(B // 8192, 1)  # beyond what the L2 cache holds
    centroids = clustered_features(K, 1038, seed=2).cuda()
    norms = centroids.double().square().sum(1).float()
    owner = torch.arange(K, device="cuda") % M

    def exact() -> Tensor:
        values = 2 * features[:512].double() @ centroids.double().T - norms.double()
        return torch.full((512, M), -torch.inf, dtype=torch.float64, device="cuda").scatter_reduce(
            1, owner.expand_as(values), values, "amax"
        )

    bench.measure(
        "nearest_centroid",
        lambda: nearest_centroid(features, centroids, norms, owner, M),
        lambda: nearest_centroid(features, centroids, norms, owner, M, impl="torch"),
        exact,
        roof="copy",
        work=features.nbytes,
        part=slice(0, 512),
        queries=B,
        centroids=K,
        dim=1038,
        dtype="float32",
    )


def rbf_kernel(bench: Bench) -> None:
    B, S, D, R = 8192, 30_000, 1038, 6
    queries = unit(clustered_features(B, D, seed=1)).cuda()
    vectors = unit(clustered_features(S, D, seed=2)).cuda()
    norms = vectors.double().square().sum(1).float()
    # each classifier has 5,000 vectors of its own
    mine = torch.arange(S, device="cuda")[:, None] % R == torch.arange(R, device="cuda")
    fixed = vectors, norms, mine * normal(S, R, dtype=torch.float32)
    layouts = {precision: prepare_vectors(*fixed, precision=precision) for precision in ("tf32x3", "ieee")}

    def decide(x: Tensor, precision: str = "tf32x3") -> Tensor:
        return rbf_decision(x, *fixed, 1.0, prepared=layouts[precision], precision=precision)

    def exact() -> Tensor:
        distances = torch.cdist(queries[:256].double(), vectors.double()).square()
        return torch.exp(-distances) @ fixed[2].double()

    for rows, others in ((B, {"kernel, ieee": lambda: decide(queries, "ieee")}), (1, {})):
        x = queries[:rows]
        bench.measure(
            f"rbf_decision of {rows}",
            lambda x=x: decide(x),
            lambda x=x: rbf_decision(x, *fixed, 1.0, impl="torch"),
            lambda rows=rows: exact()[:rows],
            others=others,
            # a single query has to read all vectors, in two parts
            roof="float32 product" if rows > 1 else "copy",
            work=2.0 * rows * S * D if rows > 1 else 2.0 * vectors.nbytes,
            part=slice(0, min(rows, 256)),
            queries=rows,
            support_vectors=S,
            classifiers=R,
            dim=D,
            dtype="float32",
        )
    bench.rows[-1]["prepare_milliseconds"] = round(1e3 * seconds(lambda: prepare_vectors(*fixed)), 5)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=["cuda"])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench/kernels.py: needs a CUDA device, and there is none here; nothing measured")
        return
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    bench = Bench(compiles=not arguments.no_compile)
    failed: dict[str, str] = {}
    for kernels in (rbf_kernel, centroid_kernel, pool_kernels, norm_kernel, rope_kernel, swiglu_kernel):
        try:
            kernels(bench)
            torch.cuda.empty_cache()
        except Exception as error:  # the others are still worth measuring
            traceback.print_exc()
            failed[kernels.__name__] = f"{type(error).__name__}: {error}"[:300]
    roofs = {name: {"rate": round(rate / 1e9, 1), "unit": unit_of(name)} for name, rate in bench.roofs.items()}
    save("kernels-cuda", {"repeats": REPEATS, "roofs": roofs, "results": bench.rows, "failed": failed})
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
