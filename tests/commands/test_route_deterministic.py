"""The same query gets the same decision, bit for bit, whatever order and batches a log comes in."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_select.encoder import load_encoder
from gpu_select.router import Router, route_features

DOMAINS = ("math", "law", "physics", "other", "health")
BUDGETS = (64, 300, 777, 2048, 10_000)


def log_rows(words: list[str], n_rows: int) -> list[dict]:
    generator = random.Random(0)
    lengths = [generator.choice([1, 2, 3, 5, 8, 13, 21, 40]) for _ in range(n_rows)]
    texts = [" ".join(generator.choice(words) for _ in range(length)) for length in lengths]
    return [{"id": i, "query": text, "domain": generator.choice(DOMAINS)} for i, text in enumerate(texts)]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def routed_in_many_ways(cli, tmp_path, rows, *options) -> list[dict]:
    """What each of 5 orders and token budgets decides, by row."""
    results = []
    for seed, budget in enumerate(BUDGETS):
        shuffled = random.Random(seed).sample(rows, len(rows))
        log, out = write(tmp_path / "log.jsonl", shuffled), tmp_path / "out.jsonl"
        done = cli("route", "--input", log, "--output", out, "--token-budget", budget, "--deterministic", *options)
        assert done.status == 0, done.err
        decided = map(json.loads, out.read_text(encoding="utf-8").splitlines())
        results.append({row["id"]: (row["model"], row["score"], row["margin"]) for row in decided})
    return results


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_a_log_in_five_orders_and_batch_sizes(cli, models_dir, tiny_encoder_path, tmp_path, algorithm, dtype):
    words = ["what", "solve", "x", "law", "number", "disease", "the", "energy", "3x", "question", "war"]
    options = "--models-dir", models_dir, "--embedding-model", tiny_encoder_path, "--algorithm", algorithm
    first, *others = routed_in_many_ways(cli, tmp_path, log_rows(words, 150), *options, "--dtype", dtype)
    assert len({model for model, _, _ in first.values()}) > 1
    assert all(other == first for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_real_queries_through_minilm(cli, shared_dir, minilm_path, tmp_path, dtype):
    from gpu_select.records import read_outcomes

    table, _ = read_outcomes(shared_dir / "data" / "mmlu_pro_dev.jsonl.gz")
    pairs = zip(table.queries[:200], table.domains[:200], strict=True)
    rows = [{"id": i, "query": query[: 15 * (i % 60 + 1)], "domain": domain} for i, (query, domain) in enumerate(pairs)]
    cli(
        "train", "--data-file", shared_dir / "data" / "mmlu_pro_dev.jsonl.gz", "--output-dir", tmp_path / "models",
        "--embedding-model", minilm_path, "--limit", 300, "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    options = "--models-dir", tmp_path / "models", "--embedding-model", minilm_path, "--algorithm", "svm"
    first, *others = routed_in_many_ways(cli, tmp_path, rows, *options, "--dtype", dtype)
    assert all(other == first for other in others)


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_ready_vectors_in_any_batch(models_dir, tiny_encoder_path, algorithm):
    router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path), algorithm=algorithm)
    features = np.random.default_rng(0).normal(size=(700, router.selector.dim)).astype(np.float32)
    router.selector.deterministic = True
    together = route_features(router.selector, features)
    for start, end in ((0, 1), (3, 10), (200, 700)):
        part = route_features(router.selector, features[start:end])
        assert part.models == together.models[start:end]
        assert part.scores.tobytes() == together.scores[start:end].tobytes()
        assert part.margins.tobytes() == together.margins[start:end].tobytes()
    assert route_features(router.selector, features[:0]).models == []


def test_candidates_and_the_python_interface(models_dir, tiny_encoder_path):
    options = {"encoder": str(tiny_encoder_path), "algorithm": "svm"}
    router = Router.from_pretrained(models_dir, deterministic=True, **options)
    texts = [row["query"] for row in log_rows(["law", "x", "solve"], 40)]
    candidates = router.models[1:]
    together = router.route(texts, candidates=candidates)
    alone = [router.route([text], candidates=candidates) for text in texts]
    assert [routes.models[0] for routes in alone] == together.models
    assert np.concatenate([routes.scores for routes in alone]).tobytes() == together.scores.tobytes()
    plain = Router.from_pretrained(models_dir, **options).route(texts, candidates=candidates)
    np.testing.assert_allclose(plain.scores, together.scores, atol=1e-5)


def test_deterministic_vectors_have_a_cache_of_their_own(tiny_encoder_path):
    encoder = load_encoder(str(tiny_encoder_path))
    before = encoder.precision
    encoder.make_deterministic()
    assert (before, encoder.precision) == ("float32", "float32-deterministic")


def test_compiled_layers_decide_the_same(models_dir, tiny_encoder_path):
    router = Router.from_pretrained(models_dir, encoder=str(tiny_encoder_path), algorithm="svm")
    texts = [row["query"] for row in log_rows(["law", "x", "solve"], 40)]
    expected = router.route(texts)
    torch.compiler.reset()
    router.encoder.compile_layers(backend="aot_eager")
    np.testing.assert_allclose(router.route(texts).scores, expected.scores, atol=1e-5)


def test_ready_vectors_have_no_encoder_to_compile(cli, models_dir, tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((1, 46), np.float32))
    done = cli("route", "--features", tmp_path / "f.npy", "--output", "-", "--models-dir", models_dir, "--compile")
    assert done.status == 2
    assert "--features holds vectors: no encoder" in done.err
