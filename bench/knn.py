"""How fast is the exact nearest-neighbour search against FAISS, scikit-learn and plain torch, and who is exact?

    python bench/knn.py [--device cuda] [--rows 7500 1000000] [--profile]

A batch of 8,192 queries of D = 1038, k = 5. "routing features" end in the one-hot of their domain, as the router's do;
in "one domain" all of them have the same, so that it says nothing. On CUDA also a million rows, searched by ours and
by torch on the GPU; FAISS and scikit-learn search on the CPU, and sit out the million. Medians of interleaved repeats.
The error is measured against float64: queries with another row than the closest k, and how much farther it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import clustered_features, interleaved, save
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from gpu_select.domains import N_DOMAINS
from gpu_select.selectors.knn_search import RowIndex

REPEATS = 7
BATCH, DIM, K = 8192, 1038, 5
CHECKED = 512
"""Queries whose rows are compared with float64."""
HELD = 1 << 29
"""Distances that plain torch holds at once."""
FEW_ROWS = 100_000
"""Peers on the CPU search up to here."""

Search = Callable[[Tensor], Tensor]
"""(B, D) queries on the device -> (B, k) rows."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    sizes = arguments.rows or ([7500] if device.type == "cpu" else [7500, 1_000_000])
    results = {}
    for n_rows in sizes:
        rows_ND, queries_BD = clustered_features(n_rows, DIM, seed=2), clustered_features(BATCH, DIM, seed=1)
        for name in ("routing features", "one domain"):
            if name == "one domain":
                for features in (rows_ND, queries_BD):
                    features[:, -N_DOMAINS:] = torch.eye(N_DOMAINS)[0]
            searches = _searches(rows_ND, device)
            if arguments.profile:
                _profile(searches["ours"], queries_BD.to(device))
                continue
            case = f"{name}, {n_rows:,} rows"
            results[case] = _measure(searches, rows_ND, queries_BD, device)
            print(case)
            for key, row in results[case].items():
                print("   ", key, "  ".join(f"{peer} {value:.4g}" for peer, value in row.items()))
    if not arguments.profile:
        save(f"knn-{device.type}", {"repeats": REPEATS, "batch": BATCH, "k": K, "results": results})


def _searches(rows_ND: Tensor, device: torch.device) -> dict[str, Search]:
    n_rows = len(rows_ND)
    index = RowIndex(rows_ND, torch.zeros(n_rows, dtype=torch.int64), 1, "torch", n_tail=N_DOMAINS).to(device)
    searches: dict[str, Search] = {"ours": lambda x_BD: index(x_BD, K), "torch": _plain_torch(rows_ND.to(device))}
    if n_rows > FEW_ROWS:
        return searches
    sklearn = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(rows_ND.numpy())
    searches["scikit-learn"] = lambda x_BD: torch.from_numpy(sklearn.kneighbors(x_BD.cpu().numpy())[1])
    try:
        import faiss
    except ImportError:
        return searches
    flat: Any = faiss.IndexFlatL2(DIM)
    flat.add(rows_ND.numpy())
    searches["faiss"] = lambda x_BD: torch.from_numpy(flat.search(x_BD.cpu().numpy(), K)[1])
    return searches


def _plain_torch(rows_ND: Tensor) -> Search:
    """What everyone writes: all distances by one float32 product, then top-k."""
    norms_N = rows_ND.square().sum(dim=1)

    def search(x_BD: Tensor) -> Tensor:
        blocks = torch.split(x_BD, max(1, HELD // len(rows_ND)))
        found = [torch.addmm(norms_N, x_bD, rows_ND.T, alpha=-2).topk(K, largest=False).indices for x_bD in blocks]
        return torch.cat(found)

    return search


def _measure(
    searches: dict[str, Search], rows_ND: Tensor, queries_BD: Tensor, device: torch.device
) -> dict[str, dict[str, float]]:
    queries = queries_BD.to(device)
    wrong, excess = {}, {}
    best_bk = _float64_distances(queries_BD[:CHECKED], rows_ND, device)
    for name, search in searches.items():
        rows_bk = search(queries[:CHECKED]).cpu()
        squared_bk = (queries_BD[:CHECKED, None].double() - rows_ND[rows_bk].double()).square().sum(dim=2)
        over_b = (squared_bk.sort(dim=1).values - best_bk).amax(dim=1)
        wrong[name] = float((over_b > 1e-12).double().mean())
        excess[name] = float(over_b.amax())
    seconds = interleaved({name: _call(search, queries) for name, search in searches.items()}, REPEATS)
    out = {
        "seconds": seconds,
        "queries a second": {name: BATCH / value for name, value in seconds.items()},
        "speed of ours over": {name: value / seconds["ours"] for name, value in seconds.items() if name != "ours"},
        "queries with a wrong row": wrong,
        "largest excess of a squared distance": excess,
    }
    for size in (1, 8, 64, 1024):
        some = queries[:size]
        tasks = {name: _call(search, some) for name, search in searches.items() if name != "scikit-learn"}
        out[f"seconds for {size}"] = interleaved(tasks, REPEATS)
    return out


def _call(search: Search, x_BD: Tensor) -> Callable[[], Tensor]:
    return lambda: search(x_BD)


def _float64_distances(x_bD: Tensor, rows_ND: Tensor, device: torch.device) -> Tensor:
    """(b, k) smallest squared distances, of differences in float64."""
    best_bk = torch.full((len(x_bD), K), torch.inf, dtype=torch.float64, device=device)
    x_bD = x_bD.to(device).double()
    for part_nD in torch.split(rows_ND, 8192):
        part = part_nD.to(device).double()
        squared_bn = part.square().sum(dim=1) - 2 * (x_bD @ part.T) + x_bD.square().sum(dim=1, keepdim=True)
        near_bk = squared_bn.topk(min(2 * K, len(part)), dim=1, largest=False).indices
        exact_bk = (x_bD[:, None] - part[near_bk]).square().sum(dim=2)
        best_bk = torch.cat([best_bk, exact_bk], dim=1).topk(K, dim=1, largest=False).values
    return best_bk.sort(dim=1).values.cpu()


def _profile(search: Search, queries: Tensor) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if queries.is_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    search(queries)
    with torch.profiler.profile(activities=activities) as profile:
        search(queries)
        if queries.is_cuda:
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if queries.is_cuda else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    main()
