"""How fast are the selectors against FAISS and scikit-learn, in one run?

    python bench/selection.py [--device cuda]

A batch of 8,192 queries of D = 1038: KNN over 7,500 rows (k = 5), SVM with 6 x 1,000 support vectors, KMeans with 64
clusters. Medians of 7 interleaved repeats, of 2 for the SVM on CUDA, as SVC takes so long. Each peer does the part of
the work that it offers: FAISS and scikit-learn's neighbours only search, without votes. On CUDA the peers stay where
they are, on the CPU.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import clustered_features, interleaved, save, unit
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from gpu_select.selectors import KMeansSelector, KNNSelector, RBFPart, SVMSelector, choose

REPEATS = 7
SVM_REPEATS = {"cpu": 7, "cuda": 2}
BATCH, DIM = 8192, 1038
MODELS = [f"model-{m}" for m in range(6)]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    queries = clustered_features(BATCH, DIM, seed=1)
    results = {name: bench(queries, device) for name, bench in (("knn", _knn), ("kmeans", _kmeans), ("svm", _svm))}
    for name, row in results.items():
        times = "  ".join(f"{key} {value:.4f} s" for key, value in row["seconds"].items())
        ratios = "  ".join(f"{value:.2f} x {key}" for key, value in row["speedup_over"].items())
        print(f"{name:7} {times}   speed: {ratios}")
    save(f"selection-{device.type}", {"repeats": REPEATS, "svm_repeats": SVM_REPEATS[device.type], "results": results})


def _row(seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    return {"seconds": seconds, "speedup_over": {k: v / seconds["ours"] for k, v in seconds.items() if k != "ours"}}


def _knn(queries: torch.Tensor, device: torch.device) -> dict[str, dict[str, float]]:
    rows = clustered_features(7500, DIM, seed=2)
    ours = KNNSelector(rows, [MODELS[i % 6] for i in range(len(rows))], n_neighbors=5).to(device)
    on_device = queries.to(device)
    sklearn = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(rows.numpy())
    tasks = {
        "ours": lambda: choose(ours(on_device)),
        "scikit-learn": lambda: sklearn.kneighbors(queries.numpy()),
    }
    try:
        import faiss
    except ImportError:
        pass
    else:
        flat = faiss.IndexFlatL2(DIM)
        flat.add(rows.numpy())
        tasks["faiss"] = lambda: flat.search(queries.numpy(), 5)
        same = (ours.neighbors(on_device).cpu().numpy() == np.sort(flat.search(queries.numpy(), 5)[1], axis=1)).all(
            axis=1
        )
        print(f"knn: the rows of FAISS for {same.mean():.2%} of the queries (FAISS rounds in float32)")
    return _row(interleaved(tasks, REPEATS))


def _kmeans(queries: torch.Tensor, device: torch.device) -> dict[str, dict[str, float]]:
    sklearn = KMeans(64, n_init=1, random_state=0, max_iter=20).fit(clustered_features(4096, DIM, seed=3).numpy())
    ours = KMeansSelector(torch.from_numpy(sklearn.cluster_centers_), [MODELS[i % 6] for i in range(64)]).to(device)
    on_device = queries.to(device)
    tasks = {"ours": lambda: choose(ours(on_device)), "scikit-learn": lambda: sklearn.predict(queries.numpy())}
    return _row(interleaved(tasks, REPEATS))


def _svm(queries: torch.Tensor, device: torch.device) -> dict[str, dict[str, float]]:
    features = unit(queries).numpy()
    machines = []
    for m in range(6):
        x = unit(clustered_features(1000, DIM, seed=10 + m)).numpy()
        y = np.random.default_rng(m).integers(0, 2, len(x))  # noise: every row becomes a support vector
        machines.append(SVC(gamma=1.0, C=1.0).fit(x, y))
    parts = [
        RBFPart(
            name,
            torch.from_numpy(machine.dual_coef_[0]),
            torch.from_numpy(machine.support_vectors_).float(),
            -float(machine.intercept_[0]),
            1.0,
        )
        for name, machine in zip(MODELS, machines, strict=True)
    ]
    ours = SVMSelector([], parts).to(device)
    on_device = queries.to(device)
    gap = np.abs(
        ours(on_device).cpu().numpy()[:512] - np.stack([m.decision_function(features[:512]) for m in machines], 1)
    )
    print(f"svm: {sum(len(p.alpha_S) for p in parts)} support vectors; largest difference to SVC {gap.max():.1e}")
    tasks = {
        "ours": lambda: choose(ours(on_device)),
        "SVC.decision_function": lambda: [machine.decision_function(features) for machine in machines],
    }
    return _row(interleaved(tasks, SVM_REPEATS[device.type]))


if __name__ == "__main__":
    main()
