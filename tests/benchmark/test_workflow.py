"""From queries to routes: models of known skill are benchmarked, and the router learns whom to ask."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict

import pytest

from gpu_select.simulation import MODEL_NAMES, benchmark_records, query_log

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks")

SKILLS = {
    "historian": ["history", "law"],
    "scientist": ["biology", "chemistry"],
    "mathematician": ["math", "physics"],
}
SKILLED = {domain: model for model, domains in SKILLS.items() for domain in domains}


def questions(n: int, seed: int) -> list[dict]:
    rows = [row for i, row in enumerate(benchmark_records(n, seed)) if i % len(MODEL_NAMES) == 0]
    chosen = [row for row in rows if row["category"] in SKILLED]
    return [
        {"query": row["query"], "category": row["category"], "ground_truth": f"answer {i}", "metric": "CEM"}
        for i, row in enumerate(chosen)
    ]


def test_the_router_chooses_the_skilled_model_of_each_domain(
    cli, serve, tiny_encoder_path, tmp_path, write_lines, read_lines
):
    asked = questions(700, seed=0)
    train, held_out = asked[: 3 * len(asked) // 4], asked[3 * len(asked) // 4 :]
    truths = {q["query"]: {"category": q["category"], "ground_truth": q["ground_truth"]} for q in asked} | {"": SKILLS}
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    encoder = "--embedding-model", tiny_encoder_path, "--cache-dir", tmp_path / "cache"
    with serve("--truths", tmp_path / "truths.json", "--fail", 0.02) as server:
        for name, rows in (("train", train), ("held_out", held_out)):
            done = cli(
                *("benchmark", "--queries", write_lines(tmp_path / f"{name}_queries.jsonl", rows)),
                *("--models", ",".join(SKILLS), "--endpoint", server.endpoint, "--concurrency", 32),
                *("--output", tmp_path / f"{name}.jsonl"),
            )
            assert done.status == 0, done.err
    scores = defaultdict(list)
    for record in read_lines(tmp_path / "train.jsonl"):
        scores[record["model_name"] == SKILLED[record["category"]]].append(record["performance"])
    assert sum(scores[True]) / len(scores[True]) > 0.9
    assert sum(scores[False]) / len(scores[False]) < 0.2

    done = cli("train", "--data-file", tmp_path / "train.jsonl", "--output-dir", tmp_path / "models", *encoder)
    assert done.status == 0, done.err
    done = cli(
        *("validate", "--data-file", tmp_path / "held_out.jsonl", "--models-dir", tmp_path / "models", *encoder),
        *("--json", tmp_path / "validation.json"),
    )
    assert done.status == 0, done.err
    strategies = json.loads((tmp_path / "validation.json").read_bytes())["strategies"]
    quality = {strategy["name"]: strategy["mean_quality"] for strategy in strategies}

    log = [row for row in query_log(700, seed=1) if row["domain"] in SKILLED]
    write_lines(tmp_path / "log.jsonl", log)
    for algorithm in ("knn", "kmeans", "svm", "mlp"):
        assert quality[algorithm] > 0.85, quality
        assert quality[algorithm] > max(quality[f"always:{model}"] for model in SKILLS) + 0.3
        done = cli(
            *("route", "--input", tmp_path / "log.jsonl", "--output", tmp_path / "routed.jsonl"),
            *("--models-dir", tmp_path / "models", "--algorithm", algorithm, "--embedding-model", tiny_encoder_path),
        )
        assert done.status == 0, done.err
        routed = defaultdict(Counter)
        for row in read_lines(tmp_path / "routed.jsonl"):
            routed[row["domain"]][row["model"]] += 1
        assert set(routed) == set(SKILLED)
        for domain, models in routed.items():
            assert models[SKILLED[domain]] / models.total() > 0.95, (algorithm, domain, models)
