"""torch.compile takes the selection whole: one graph, no break, and the decisions of eager mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gpu_select.selectors import KNNSelector, fixed_linear
from gpu_select.selectors.fixed_linear import FixedLinear

ALGORITHMS = ["knn", "kmeans", "svm", "mlp"]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Graphs:
    """A backend that runs what it gets, and counts it."""

    def __init__(self) -> None:
        self.seen: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, example: Any) -> Any:
        self.seen.append(graph)
        return graph.forward


def inputs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    embeddings = torch.nn.functional.normalize(torch.randn(n, 32, generator=generator), dim=1)
    return embeddings, torch.randint(14, (n,), generator=generator)


def same(got, expected):
    assert got.model.equal(expected.model)
    torch.testing.assert_close(got.score, expected.score, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.margin, expected.margin, atol=1e-4, rtol=0)


@each_algorithm
@pytest.mark.parametrize("dynamic", [True, False])
def test_selection_is_one_graph(routers, algorithm, dynamic):
    router = routers[algorithm]
    graphs = Graphs()
    compiled = torch.compile(router.select, fullgraph=True, backend=graphs, dynamic=dynamic)
    one_mask = router.selector.candidate_mask(["c", "a"])
    for n in (5, 64):
        own_masks = torch.rand(n, 3).argsort(dim=1) < 2
        for candidates in (None, one_mask, own_masks):
            same(compiled(*inputs(n), candidates), router.select(*inputs(n), candidates))
    n_kinds = 3 if dynamic else 6
    assert len(graphs.seen) == n_kinds


@each_algorithm
def test_selection_is_one_graph_where_products_may_be_rounded(routers, algorithm):
    """Serving stacks set this, and no graph can set it back."""
    router = routers[algorithm]
    torch.set_float32_matmul_precision("high")
    try:
        compiled = torch.compile(router.select, fullgraph=True, backend=Graphs(), dynamic=True)
        same(compiled(*inputs(9)), router.select(*inputs(9)))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_many_rows_are_one_graph_too():
    """Those that eager mode searches by group and in bfloat16."""
    rows = torch.cat(
        [torch.nn.functional.normalize(torch.randn(2300, 8), dim=1), torch.eye(14).repeat(165, 1)[:2300]], 1
    )
    selector = KNNSelector(rows, [f"m{i % 3}" for i in range(2300)], n_neighbors=5)
    graphs = Graphs()
    compiled = torch.compile(selector, fullgraph=True, backend=graphs)
    queries = rows[::50] + 0.01
    assert compiled(queries).equal(selector(queries))
    assert len(graphs.seen) == 1


def test_the_whole_router_is_one_graph(routers):
    router = routers["kmeans"]
    graphs = Graphs()
    compiled = torch.compile(router, fullgraph=True, backend=graphs)
    ids, mask = torch.randint(5, 50, (4, 9)), torch.arange(9) < torch.tensor([[9], [3], [1], [7]])
    domain = torch.arange(4)
    with torch.no_grad():
        same(compiled(ids, mask, domain), router(ids, mask, domain))
    assert len(graphs.seen) == 1


@pytest.mark.slow
@each_algorithm
def test_inductor_decides_as_eager_mode(routers, algorithm):
    router = routers[algorithm]
    compiled = torch.compile(router.select, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for n in (1, 7, 64):
            same(compiled(*inputs(n)), router.select(*inputs(n)))


def test_products_that_would_be_rounded_are_done_in_float64(monkeypatch):
    linear = FixedLinear(torch.randn(7, 50), torch.randn(7), scale=-2.0)
    x = torch.randn(3, 50)
    expected = linear.bias_N.double() - 2 * x.double() @ linear.weight_ND.double().T
    monkeypatch.setattr(fixed_linear, "can_pack", lambda x: False)
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(fixed_linear, "_would_be_tf32", lambda x: asked.append(x) is None)
    assert linear(x).equal(expected.float())
    assert len(asked) == 1


def test_only_compiled_float32_products_on_cuda_would_be_rounded(monkeypatch):
    class OnCuda:
        is_cuda, dtype = True, torch.float32

    would_be: Any = fixed_linear._would_be_tf32
    monkeypatch.setattr(torch._C, "_get_cublas_allow_tf32", lambda: True)
    assert not would_be(OnCuda())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert would_be(OnCuda())
    assert not would_be(torch.zeros(1))
    OnCuda.dtype = torch.bfloat16
    assert not would_be(OnCuda())
    OnCuda.dtype = torch.float32
    monkeypatch.setattr(torch._C, "_get_cublas_allow_tf32", lambda: False)
    assert not would_be(OnCuda())
