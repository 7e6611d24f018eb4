"""How many queries' domains does the head get right, with which ridge, and how does its training compare?

    python bench/domains.py --data TRAIN.jsonl.gz --test DEV.jsonl.gz [--encoder minilm] [--cache-dir cache] [--folds 5]

The ridge is chosen by cross-validation on TRAIN, also on its first 1,000 queries, without a look at DEV. Then
the head of each ridge is trained on TRAIN and judged on the queries of DEV that are not in TRAIN. The peer is
scikit-learn's LogisticRegression with the same loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from common import embedded_features, save
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from gpu_select.domain_file import DomainFile
from gpu_select.domain_head import DomainHead
from gpu_select.domains import N_DOMAINS
from gpu_select.records import OutcomeTable, query_digests, read_outcomes
from gpu_select.training import fit_domain_head
from gpu_select.training.domain_head import RIDGE
from gpu_select.training.tuning.folds import assign_folds

RIDGES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.1)
FEW = 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="records to train on")
    parser.add_argument("--test", required=True, help="records to judge by")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--cache-dir")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    table, _ = read_outcomes(options.data)
    test, _ = read_outcomes(options.test)
    new = ~np.isin(query_digests(test.queries), query_digests(table.queries))
    test = test.take(np.flatnonzero(new))
    features, test_features = (embedded_features(t, options.encoder, options.cache_dir) for t in (table, test))
    few = min(FEW, len(table.queries))
    rows = []
    for ridge in RIDGES:
        start = time.perf_counter()
        document = fitted(features, table, ridge)
        row = {"ridge": ridge, "seconds": time.perf_counter() - start}
        row["cross_validated"] = cross_validated(features, table, ridge, options.folds)
        row["cross_validated_few"] = cross_validated(features[:few], table.take(np.arange(few)), ridge, options.folds)
        row["test"] = figures(document, test_features, test)
        rows.append(row)
        print(
            f"{ridge:g}: cross-validated {row['cross_validated']['accuracy']:.4f}, on {few} queries "
            f"{row['cross_validated_few']['accuracy']:.4f}, test {row['test']['accuracy']:.4f}, {row['seconds']:.1f} s"
        )
    chosen = max(rows, key=lambda row: row["cross_validated"]["accuracy"])
    counts = Counter(table.domains)
    print(f"chosen: {chosen['ridge']:g}; the default is {RIDGE:g}")
    save(
        "domains-cpu",
        {
            "data": options.data.rsplit("/", 1)[-1],
            "test": options.test.rsplit("/", 1)[-1],
            "encoder": options.encoder,
            "queries": len(table.queries),
            "few_queries": few,
            "test_queries": len(test.queries),
            "folds": options.folds,
            "chosen": chosen["ridge"],
            "default": RIDGE,
            "most_frequent": statistics.mean(name == counts.most_common(1)[0][0] for name in test.domains),
            "scikit_learn": peer(features, table, test_features, test, RIDGE),
            "results": rows,
        },
    )


def fitted(features: torch.Tensor, table: OutcomeTable, ridge: float) -> DomainFile:
    document = fit_domain_head(features, table, ridge=ridge)
    assert document is not None
    return document


def cross_validated(features: torch.Tensor, table: OutcomeTable, ridge: float, folds: int) -> dict[str, float]:
    """Means over the queries, each judged while it was held out."""
    fold_Q = assign_folds(table.queries, folds, seed=0)
    found = []
    for fold in range(folds):
        learned, held_out = np.flatnonzero(fold_Q != fold), np.flatnonzero(fold_Q == fold)
        document = fitted(features[torch.from_numpy(learned)], table.take(learned), ridge)
        found.append((len(held_out), figures(document, features[torch.from_numpy(held_out)], table.take(held_out))))
    n = sum(count for count, _ in found)
    return {key: sum(count * row[key] for count, row in found) / n for key in ("accuracy", "log_loss")}


@torch.inference_mode()
def figures(document: DomainFile, features: torch.Tensor, table: OutcomeTable) -> dict[str, Any]:
    logits_QC = DomainHead(document)(features[:, :-N_DOMAINS])
    label_Q = torch.tensor([document.domains.index(name) for name in table.domains])
    right_Q = logits_QC.argmax(dim=1) == label_Q
    by_domain = {
        name: right_Q[label_Q == c].double().mean().item()
        for c, name in enumerate(document.domains)
        if (label_Q == c).any()
    }
    return {
        "accuracy": right_Q.double().mean().item(),
        "log_loss": functional.cross_entropy(logits_QC, label_Q).item(),
        "accuracy_by_domain": by_domain,
    }


def peer(
    features: torch.Tensor, table: OutcomeTable, test_features: torch.Tensor, test: OutcomeTable, ridge: float
) -> dict[str, float]:
    """The same loss: scikit-learn sums over the queries, and weighs the penalty by 1 / C."""
    model = LogisticRegression(C=1 / ridge, tol=1e-6, max_iter=1000)
    start = time.perf_counter()
    model.fit(features[:, :-N_DOMAINS].double().numpy(), table.domains)
    seconds = time.perf_counter() - start
    return {"accuracy": model.score(test_features[:, :-N_DOMAINS].double().numpy(), test.domains), "seconds": seconds}


if __name__ == "__main__":
    main()
