"""Do a replay's expectations come true, and how long do choices within limits take?

    python bench/replay.py --data mmlu_pro_train.jsonl.gz --data mmlu_pro_dev.jsonl.gz --cache-dir cache

Five parts of all queries, each held out once: records and selectors (with their default settings) of the other four
say what every policy is expected to score on it, the held-out outcomes what it scores. Times are for random values and
costs of a log of --rows rows and ten models, medians of 3 interleaved runs.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from common import embedded_features, interleaved, save
from quality import joined

from gpu_select.artifacts import selector_of
from gpu_select.records import OutcomeTable, query_digests, read_outcomes
from gpu_select.replay import ExpectedOutcomes
from gpu_select.replay.allocation import allocate
from gpu_select.replay.frontier import Frontier
from gpu_select.replay.outcomes import mean_interval
from gpu_select.training import TrainOptions, fit
from gpu_select.training.tuning.folds import assign_folds
from gpu_select.wire import ALGORITHMS

PARTS, REPEATS, MODELS = 5, 3, 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", action="append", required=True, help="benchmark records; may be repeated")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    seconds = interleaved(_tasks(options.rows), REPEATS)
    for name, value in seconds.items():
        print(f"{name:16} {value:6.2f} s for {options.rows:,} rows x {MODELS} models")
    table = joined([read_outcomes(path)[0] for path in options.data])
    policies = _policies(table, embedded_features(table, options.encoder, options.cache_dir))
    for row in policies:
        low, high = row["ci95"]
        print(
            f"{row['policy']:30} expected {row['expected']:.4f}  realised {row['realised']:.4f}  "
            f"difference {row['realised'] - row['expected']:+.4f} [{low:+.4f}, {high:+.4f}]"
        )
    results = {"rows": options.rows, "models": MODELS, "repeats": REPEATS, "seconds": seconds}
    save("replay-cpu", {**results, "queries": len(table.queries), "encoder": options.encoder, "policies": policies})


def _tasks(n_rows: int) -> dict[str, partial[object]]:
    """Models from cheap and poor to dear and good, on queries that suit each of them more or less."""
    generator = torch.Generator().manual_seed(0)
    value_QM = 0.5 * torch.rand(n_rows, 1, generator=generator) + 0.03 * torch.randn(
        n_rows, MODELS, generator=generator
    )
    value_QM = (value_QM + torch.linspace(0, 0.2, MODELS)).double()
    cost_QM = (0.5 + 2 * torch.rand(n_rows, 1, generator=generator).double()) * torch.logspace(-5, -2, MODELS)
    best = float(cost_QM.gather(1, value_QM.argmax(dim=1, keepdim=True)).sum())
    budget = 0.2 * best + 0.8 * float(cost_QM.amin(dim=1).sum())
    cap_M = torch.tensor([n_rows] * (MODELS - 3) + [n_rows // 20, n_rows // 8, n_rows // 10])
    return {
        "sweep": partial(Frontier.of, value_QM, cost_QM),
        "budget": partial(allocate, value_QM, cost_QM=cost_QM, budget=budget),
        "one share": partial(allocate, value_QM, cap_M=torch.tensor([n_rows] * (MODELS - 1) + [n_rows // 10])),
        "three shares": partial(allocate, value_QM, cap_M=cap_M),
        "budget, shares": partial(allocate, value_QM, cost_QM=cost_QM, budget=budget, cap_M=cap_M),
    }


def _policies(table: OutcomeTable, features: torch.Tensor) -> list[dict[str, object]]:
    fold_Q, digests_Q = assign_folds(table.queries, PARTS, seed=0), query_digests(table.queries)
    scores: dict[str, list[np.ndarray]] = {}
    for fold in range(PARTS):
        learned, held_out = np.flatnonzero(fold_Q != fold), np.flatnonzero(fold_Q == fold)
        records, rows = table.take(learned), np.arange(len(held_out))
        names = [table.domains[q] for q in held_out]
        expected = ExpectedOutcomes(features[learned], records).of(features[held_out], names, digests_Q[held_out])
        quality_HM = expected.quality_BM.double().numpy()
        choices = {"best-expected": quality_HM.argmax(axis=1)}
        for name in ALGORITHMS:
            selector = selector_of(fit(name, features[learned], records, TrainOptions(), {}))
            column = np.array([table.models.index(model) for model in selector.models])
            with torch.inference_mode():
                choices[name] = column[selector(features[held_out]).argmax(dim=1).numpy()]
        choices |= {f"always:{name}": np.full(len(rows), m) for m, name in enumerate(table.models)}
        for name, choice in choices.items():
            pair = np.stack([quality_HM[rows, choice], table.quality_QM[held_out, choice]])
            scores.setdefault(name, []).append(pair[:, np.isfinite(pair[1])])
    out = []
    for name, pairs in scores.items():
        expected_R, realised_R = np.concatenate(pairs, axis=1)
        out.append(
            {
                "policy": name,
                "expected": float(expected_R.mean()),
                "realised": float(realised_R.mean()),
                "ci95": mean_interval(realised_R - expected_R, np.arange(len(expected_R))),
            }
        )
    return out


if __name__ == "__main__":
    main()
