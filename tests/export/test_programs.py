"""What torch.export makes of the programs, before anything is compiled."""

from __future__ import annotations

import pytest
import torch

from gpu_select.export.programs import RouterProgram, SelectorProgram, outputs

BATCHES = (1, 2, 7, 64, 130)

each_algorithm = pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])


def exported(program):
    shapes = tuple(
        {i: program.dims[size] for i, size in enumerate(one.shape) if isinstance(size, str)} for one in program.inputs
    )
    with torch.no_grad():
        return torch.export.export(program.eval(), program.example(), dynamic_shapes=shapes).module()


def same(got, expected):
    assert list(got) == ["model", "score", "margin"]
    assert got["model"].equal(expected["model"])
    for name in ("score", "margin"):
        torch.testing.assert_close(got[name], expected[name], atol=1e-4, rtol=0)


@each_algorithm
@pytest.mark.parametrize("takes_candidates", [False, True])
def test_a_selector_takes_any_number_of_queries(routers, algorithm, takes_candidates):
    program = SelectorProgram(routers[algorithm].selector, takes_candidates=takes_candidates)
    run = exported(program)
    for n in BATCHES:
        inputs = program.example(n, seed=n)
        same(run(*inputs), program(*inputs))


@pytest.mark.parametrize("takes_candidates", [False, True])
def test_rows_are_searched_by_group(grouped_knn, takes_candidates):
    program = SelectorProgram(grouped_knn, takes_candidates=takes_candidates)
    run = exported(program)
    for n in BATCHES:
        inputs = program.example(n, seed=n)
        same(run(*inputs), program(*inputs))
    queries = torch.zeros(3, 22)  # of no domain, of the rare one, and not a number
    queries[1, -1], queries[2] = 1.0, torch.nan
    masks = (torch.ones(3, 4, dtype=torch.bool),) if takes_candidates else ()
    got, expected = run(queries, *masks), program(queries, *masks)
    assert got["model"][:2].equal(expected["model"][:2])
    assert torch.isnan(got["score"][2])


@each_algorithm
def test_a_router_takes_any_number_of_queries_of_any_length(routers, algorithm):
    program = RouterProgram(routers[algorithm], takes_candidates=True)
    run = exported(program)
    for seed, (n, length) in enumerate([(1, 1), (1, 32), (2, 3), (7, 17), (64, 32), (64, 5)]):
        ids, mask, domain, candidates = program.example(n, seed)
        inputs = ids[:, :length], mask[:, :length], domain, candidates
        same(run(*inputs), program(*inputs))
        turned = inputs[0].flip(1), inputs[1].flip(1), domain, candidates  # padding on the left
        same(run(*turned), program(*turned))


def test_inputs_and_outputs_are_written_down(routers):
    program = RouterProgram(routers["svm"], takes_candidates=True)
    example = program.example(5)
    sizes = {"batch": 5, "length": 32}
    for one, tensor in zip(program.inputs, example, strict=True):
        assert tensor.dtype == one.dtype
        assert tuple(tensor.shape) == tuple(sizes.get(size, size) for size in one.shape)
    got = program(*example)
    for one in outputs(3):
        assert str(got[one["name"]].dtype) == f"torch.{one['dtype']}"
        assert got[one["name"]].shape == (5,)
    selector = SelectorProgram(routers["svm"].selector, takes_candidates=False)
    assert [(one.name, one.shape) for one in selector.inputs] == [("features", ("batch", 46))]
    assert "32 numbers" in selector.inputs[0].about


def test_made_up_queries_are_like_real_ones(routers):
    features, candidates = SelectorProgram(routers["knn"].selector, takes_candidates=True).example(50)
    torch.testing.assert_close(features.square().sum(dim=1), torch.full((50,), 2.0))
    assert features[:, 32:].sum(dim=1).equal(torch.ones(50))
    assert candidates.any(dim=1).all()
    assert not candidates.all()
    _, mask, domain = RouterProgram(routers["knn"], takes_candidates=False).example(50)
    assert mask.any(dim=1).all()
    assert set(mask.sum(dim=1).tolist()) > {1}
    assert len(set(domain.tolist())) > 5
