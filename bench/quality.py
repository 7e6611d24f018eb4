"""How good are the models that trained files choose, on queries that had no part in training or tuning?

    python bench/quality.py --data mmlu_pro_train.jsonl.gz --data mmlu_pro_dev.jsonl.gz --name mmlu_pro
    python bench/quality.py --data mmlu_pro_train.jsonl.gz --test mmlu_pro_dev.jsonl.gz --name mmlu_pro_dev

Without --test: five parts of all queries, each held out once; `tune` and `fit` see only the other four. With --test:
tuned and fitted on --data, judged on --test. Decisions are those of the files, read back from disk. Peers in the same
run: the older trainer's KNN and KMeans, the best single model, the best model of each domain, both from training data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import embedded_features, save
from older_trainer import older_kmeans, older_knn

from gpu_select.artifacts import load_selector
from gpu_select.records import OutcomeTable, query_digests, read_outcomes
from gpu_select.resampling import intervals
from gpu_select.training import TrainOptions, fit
from gpu_select.training.tuning import tune
from gpu_select.training.tuning.folds import assign_folds
from gpu_select.training.utility import domain_models, utilities
from gpu_select.wire import ALGORITHMS, file_name, write_selector_file

PARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", action="append", required=True, help="benchmark records; may be repeated")
    parser.add_argument("--test", help="judge on these records, not on parts of the others")
    parser.add_argument("--name", required=True, help="of the result: quality_NAME-cpu.json")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--partitions", type=int, default=1, help="random ways of making the five parts")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation inside tune")
    options = parser.parse_args()
    tables = [read_outcomes(path)[0] for path in [*options.data, *([options.test] if options.test else [])]]
    table = joined(tables)
    features = embedded_features(table, options.encoder, options.cache_dir)
    if options.test:
        n_learned = sum(len(t.queries) for t in tables[:-1])
        known = query_digests(table.queries[:n_learned])
        fresh = ~np.isin(query_digests(table.queries[n_learned:]), known)
        parts = [(np.arange(n_learned), n_learned + np.flatnonzero(fresh))]
    else:
        folds = [assign_folds(table.queries, PARTS, seed=seed) for seed in range(options.partitions)]
        parts = [(np.flatnonzero(f != k), np.flatnonzero(f == k)) for f in folds for k in range(PARTS)]
    sums: dict[str, np.ndarray] = {}
    times_Q = np.zeros(len(table.queries))
    settings, seconds = [], []
    for learned, held_out in parts:
        start = time.perf_counter()
        chosen, picks = _picks(features, table, learned, held_out, options.folds)
        settings.append(chosen)
        seconds.append(time.perf_counter() - start)
        times_Q[held_out] += 1
        for name, choice in picks.items():
            row = sums.setdefault(name, np.zeros(len(table.queries)))
            row[held_out] += table.quality_QM[held_out, choice]
        judged = np.flatnonzero(times_Q)
        # of a query that several partitions hold out, the mean
        scores = {name: row / np.maximum(times_Q, 1) for name, row in sums.items()}
        print(f"{times_Q.sum():.0f}:", ", ".join(f"{name} {s[judged].mean():.4f}" for name, s in scores.items()))
    rows = _table(scores, judged)
    quality = table.quality_QM[judged]
    bounds = {"oracle": float(np.nanmax(quality, axis=1).mean()), "random": float(np.nanmean(quality))}
    print(f"{len(judged)} queries, oracle {bounds['oracle']:.4f}, random {bounds['random']:.4f}")
    for row in rows:
        against = "  ".join(
            f"{d['mean']:+.4f} [{d['ci95'][0]:+.4f}, {d['ci95'][1]:+.4f}]" for d in row["against"].values()
        )
        print(f"{row['strategy']:16} {row['quality']:.4f}  {against}")
    print(f"against: {', '.join(rows[0]['against'])}; paired 95 % bootstrap intervals")
    save(
        f"quality_{options.name}-cpu",
        {
            "data": [Path(path).name for path in options.data],
            "test": Path(options.test).name
            if options.test
            else f"{PARTS} parts, each held out once, in {options.partitions} partitions",
            "encoder": options.encoder,
            "queries": len(judged),
            "bounds": bounds,
            "results": rows,
            "settings": settings,
            "seconds": seconds,
        },
    )


def joined(tables: list[OutcomeTable]) -> OutcomeTable:
    models = tables[0].models
    columns = [[t.models.index(name) for name in models] for t in tables]
    quality = [t.quality_QM[:, c] for t, c in zip(tables, columns, strict=True)]
    latency = [t.latency_s_QM[:, c] for t, c in zip(tables, columns, strict=True)]
    return OutcomeTable(
        [q for t in tables for q in t.queries],
        [d for t in tables for d in t.domains],
        models,
        np.concatenate(quality),
        np.concatenate(latency),
    )


def _picks(
    features: torch.Tensor, table: OutcomeTable, learned: np.ndarray, held_out: np.ndarray, n_folds: int
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    rest = table.take(learned)
    rest_features, queries = features[torch.from_numpy(learned)], features[torch.from_numpy(held_out)]
    found = tune(rest_features, rest, TrainOptions(), algorithms=ALGORITHMS, n_folds=n_folds)
    documents = {name: fit(name, rest_features, rest, found.options, {}) for name in ALGORITHMS}
    documents["older knn"] = older_knn(rest_features, rest)
    documents["older kmeans"] = older_kmeans(rest_features, rest, seed=0)
    picks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, document in documents.items():
            path = Path(folder) / file_name(name.split()[-1])
            write_selector_file(path, document)
            selector = load_selector(path).selector
            column = np.array([table.models.index(model) for model in selector.models])
            with torch.inference_mode():
                picks[name] = column[selector(queries).argmax(dim=1).numpy()]
    lookup = domain_models(rest, utilities(rest, 0.9))
    single = int(np.nanmean(rest.quality_QM, axis=0).argmax())
    picks["best per domain"] = np.array(
        [table.models.index(lookup.get(table.domains[q], table.models[single])) for q in held_out]
    )
    picks["best single"] = np.full(len(held_out), single)
    return {name: value for name, value in found.options.as_mapping().items() if name in ALGORITHMS}, picks


def _table(scores: dict[str, np.ndarray], judged: np.ndarray) -> list[dict[str, object]]:
    peers = ["best single", "best per domain", "older knn", "older kmeans"]
    rows = []
    for name, values in scores.items():
        differences = np.stack([values[judged] - scores[peer][judged] for peer in peers])
        ci95 = intervals(differences, 0)
        rows.append(
            {
                "strategy": name,
                "quality": float(np.nanmean(values[judged])),
                "against": {
                    peer: {"mean": float(np.nanmean(d)), "ci95": [float(low), float(high)]}
                    for peer, d, (low, high) in zip(peers, differences, ci95, strict=True)
                },
            }
        )
    return sorted(rows, key=lambda row: -row["quality"])


if __name__ == "__main__":
    main()
