"""What only a CUDA device can show; everything else runs on the CPU too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_select.artifacts import load_selector
from gpu_select.router import Router, route_features
from gpu_select.selectors import KMeansSelector, KNNSelector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files beside the repository")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json.gz")), ids=lambda path: path.name)
def test_cuda_decides_as_the_engine(path: Path) -> None:
    selector = load_selector(path, device="cuda").selector
    decisions = route_features(selector, np.load(GOLDEN / "queries.npy")).models
    assert decisions == Path(str(path).replace(".json.gz", ".decisions.txt")).read_text().split()


@pytest.mark.parametrize(("n_rows", "dim", "k"), [(63, 17, 5), (1000, 100, 33), (5003, 398, 100)])
def test_cuda_finds_the_rows_that_the_cpu_finds(n_rows: int, dim: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_rows, dim, generator=generator)
    rows[n_rows // 2 :] = rows[: n_rows - n_rows // 2].clone()
    queries = torch.randn(129, dim, generator=generator)
    labels = [f"m{i % 7}" for i in range(n_rows)]
    mask = torch.rand(129, 7, generator=generator) < 0.5
    mask[:, 0] = True
    cpu = KNNSelector(rows, labels, n_neighbors=k)
    cuda = KNNSelector(rows, labels, n_neighbors=k).cuda()
    assert torch.equal(cuda.neighbors(queries.cuda()).cpu(), cpu.neighbors(queries))
    assert torch.equal(cuda.neighbors(queries.cuda(), mask.cuda()).cpu(), cpu.neighbors(queries, mask))


def test_tf32_set_by_the_caller_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    selector = KMeansSelector(torch.randn(33, 1038, generator=generator), [f"m{i}" for i in range(33)]).cuda()
    queries = torch.randn(129, 1038, generator=generator).cuda()
    expected = selector(queries)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(selector(queries), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm"])
def test_one_forward_never_waits_for_the_device(algorithm: str, trained_dir: Path, tiny_encoder_path: Path) -> None:
    router = Router.from_pretrained(
        trained_dir, encoder=str(tiny_encoder_path), device="cuda", algorithm=algorithm, dtype="bfloat16"
    )
    tokens = router.encoder.tokenizer.tokenize(["what is 2 + 2", "a longer question about history and law"])
    ids, mask = tokens.padded(np.arange(2))
    inputs = torch.from_numpy(ids).cuda(), torch.from_numpy(mask).cuda(), torch.tensor([0, 5]).cuda()
    with torch.inference_mode():
        router(*inputs)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            choice = router(*inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(choice.score).all()
