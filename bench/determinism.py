"""Does a query get the same decision in every batch, and what does it cost?

    python bench/determinism.py [--device cuda]

Routes one log in 5 random orders with token budgets of 5 kinds, without and with `deterministic`, and compares each
query's model and the bits of its score with those of the first order. On the CPU with MiniLM in float32 and bfloat16;
on CUDA with random weights of the shape of Qwen3-Embedding-0.6B in bfloat16. Selectors are as from 7,500 training
queries. The time is the median over the five.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from common import save

from gpu_select import throughput
from gpu_select.artifacts import selector_of
from gpu_select.encoder import DtypeName
from gpu_select.router import Router, Routes
from gpu_select.throughput import Queries
from gpu_select.wire import ALGORITHMS

ROWS = 7500
MEAN_TOKENS = 64
QUERIES = {"cpu": 256, "cuda": 4096}
BUDGETS = {"cpu": (2048, 300, 997, 512, 4096), "cuda": (65_536, 3000, 20_011, 8192, 40_000)}
"""Tokens a batch: the default, then others."""
DTYPES: dict[str, tuple[DtypeName, ...]] = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16",)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--queries", type=int)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--name", help="of the result file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results: dict[str, Any] = {}
    for dtype in DTYPES[device.type]:
        used = throughput.pick_encoder(None, device=device, dtype=dtype, cache_dir=arguments.cache_dir)
        n = arguments.queries or QUERIES[device.type]
        queries = throughput.cut_queries(throughput.read_corpus(), used.encoder.tokenizer, n, MEAN_TOKENS)
        routers = {
            name: Router(used.encoder, selector_of(document).to(device))
            for name in ALGORITHMS
            for document in [throughput.random_document(used.encoder, name, arguments.rows)]
        }
        for way in ("free", "deterministic"):
            if way == "deterministic":
                for router in routers.values():
                    router.make_deterministic()
            for name, router in routers.items():
                row = _compare(router, queries, BUDGETS[device.type])
                results.setdefault(dtype, {}).setdefault(way, {})[name] = row
                print(
                    f"{dtype:9} {way:14} {name:7} other models {row['other_models']:8.4%}  "
                    f"other score bits {row['other_score_bits']:8.4%}  {row['seconds']:.3f} s"
                )
    save(
        arguments.name or f"determinism-{device.type}",
        {"encoder": used.words, "queries": n, "mean_tokens": float(queries.lengths.mean()), "results": results},
    )


def _compare(router: Router, queries: Queries, budgets: tuple[int, ...]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    n = len(queries.texts)
    router.route(queries.texts[:64], queries.domains[:64])  # warms up
    seconds = []
    first: Routes | None = None
    other_N, bits_N = np.zeros(n, bool), np.zeros(n, bool)
    for budget in budgets:
        order = rng.permutation(n)
        texts, domains = ([values[i] for i in order] for values in (queries.texts, queries.domains))
        start = time.perf_counter()
        routes = router.route(texts, domains, token_budget=budget)
        seconds.append(time.perf_counter() - start)
        back = np.argsort(order)
        routes = Routes([routes.models[i] for i in back], routes.scores[back], routes.margins[back])
        if first is None:
            first = routes
            continue
        other_N |= np.array([a != b for a, b in zip(routes.models, first.models, strict=True)])
        bits_N |= routes.scores.view(np.int32) != first.scores.view(np.int32)
    return {
        "other_models": float(other_N.mean()),
        "other_score_bits": float(bits_N.mean()),
        "seconds": statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
