"""Does Ray cost throughput, and does it change anything? Two actors beside two local processes, on this machine.

    python bench/ray_route.py [--rows 16000] [--shard-rows 1000] [--repeats 3]

One log of short queries, no two alike, in Parquet files, MiniLM and KMeans, three ways that take turns:

`local`: `gpu-select route --shard-rows N --workers 2`.
`actors`: the same with `--engine ray`; the folder has to have the same bytes.
`dataset`: `read_parquet`, `map_batches(RouterBatch)`, `write_parquet`; each row has to have the same model, and the
score and margin up to rounding, as batches are cut elsewhere.

Rows/s are counted from where the first process has loaded its router, as the command says itself; `seconds` are those
of the whole command, or of the whole dataset, whose cluster is there already. Every process gets one thread.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from common import save
from sharded import ROOT, check_equal, run, write_models

from gpu_select.domains import DOMAIN_NAMES
from gpu_select.ray_data import RouterBatch

WORDS = ("what", "why", "how", "is", "the", "of", "a", "law", "city", "cell", "energy", "market", "war", "patient")
WORKERS = 2
TOLERANCE = 1e-4


class Timed(RouterBatch):
    """Notes when it began and ended, beside what it gives."""

    def __call__(self, batch: Any) -> Any:
        began = time.time()
        routed = super().__call__(batch)
        ended = time.time()
        for name, moment in (("began", began), ("ended", ended)):
            routed = routed.append_column(name, pa.array([moment] * routed.num_rows))
        return routed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--shard-rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
    paths = (str(Path(entry).resolve()) for entry in (*sys.path, ROOT / "bench"))
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths), "RAYON_NUM_THREADS": "1"}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models")
        write_log(folder / "log", arguments.rows, arguments.shard_rows)
        shards = "--embedding-model", "minilm", "--shard-rows", arguments.shard_rows, "--workers", WORKERS
        cluster = "--engine", "ray", "--address", ray.get_runtime_context().gcs_address
        ways = {
            "local": lambda: command(folder, "local", *shards),
            "actors": lambda: command(folder, "actors", *shards, *cluster),
            "dataset": lambda: dataset(folder, arguments.shard_rows),
        }
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for repeat in range(arguments.repeats + 1):
            for way, measure in ways.items():
                measured = measure()
                if repeat:  # the first one fills the page cache
                    runs[way].append(measured)
                    print(f"{way:8} {measured['rows_per_second']:8.1f} rows/s {measured['seconds']:8.2f} s")
            check_equal(folder / "local", folder / "actors")
            furthest = compare(folder / "local", folder / "dataset")
    results = {
        way: {key: [one[key] for one in of_way] for key in ("rows_per_second", "seconds")}
        for way, of_way in runs.items()
    }
    # of runs one after the other, whatever else the machine had to do then
    ratios = {
        key: {
            way: median(a / b for a, b in zip(results[way][key], results["local"][key], strict=True))
            for way in ("actors", "dataset")
        }
        for key in ("rows_per_second", "seconds")
    }
    print(f"to the local ones, medians of pairs: {ratios}; furthest score of the dataset: {furthest:.1e}")
    about = {"rows": arguments.rows, "shard_rows": arguments.shard_rows, "repeats": arguments.repeats}
    save("ray-cpu", {**about, "workers": WORKERS, "results": results, "ratios": ratios, "furthest_score": furthest})
    ray.shutdown()


def write_log(folder: Path, n_rows: int, file_rows: int) -> None:
    generator = random.Random(0)
    folder.mkdir()
    for start in range(0, n_rows, file_rows):
        ids = range(start, min(start + file_rows, n_rows))
        queries = [f"{' '.join(generator.choices(WORDS, k=generator.randint(4, 10)))} {i}?" for i in ids]
        table = pa.table({"id": list(ids), "query": queries, "domain": [DOMAIN_NAMES[i % 14] for i in ids]})
        pq.write_table(table, folder / f"{start:09}.parquet")


def command(folder: Path, out: str, *options: object) -> dict[str, float]:
    measured = run(folder, "log", out, *options)
    return {"rows_per_second": measured["own_rows_per_second"], "seconds": measured["seconds"]}


def dataset(folder: Path, batch_rows: int) -> dict[str, float]:
    began = time.perf_counter()
    log = ray.data.read_parquet(str(folder / "log"))
    routed = log.repartition(log.count() // batch_rows).map_batches(  # small files would come as one block
        Timed,
        fn_constructor_kwargs={
            "models_dir": str(folder / "models"),
            "algorithm": "kmeans",
            "embedding_model": "minilm",
        },
        batch_format="pyarrow",
        batch_size=batch_rows,
        num_cpus=0.5,  # the other half of the logical CPUs is for reading
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
    )
    for old in (folder / "dataset").glob("*"):
        old.unlink()
    routed.write_parquet(str(folder / "dataset"))
    seconds = time.perf_counter() - began
    moments = pq.read_table(folder / "dataset", columns=["began", "ended"])
    routing = max(moments["ended"].to_pylist()) - min(moments["began"].to_pylist())
    return {"rows_per_second": moments.num_rows / routing, "seconds": seconds}


def compare(shards: Path, parts: Path) -> float:
    """The largest difference of a score or margin; ends the run where a row has another model."""
    columns = ["id", "query", "domain", "model", "score", "margin", "error"]
    expected, found = (
        pa.concat_tables(pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))).sort_by(
            "id"
        )
        for folder in (shards, parts)
    )
    numbers = ["score", "margin"]
    if not expected.drop_columns(numbers).equals(found.drop_columns(numbers)):
        sys.exit("the dataset has other rows or models")
    furthest = max(
        abs(a - b) for name in numbers for a, b in zip(expected[name].to_pylist(), found[name].to_pylist(), strict=True)
    )
    if furthest > TOLERANCE:
        sys.exit(f"a score of the dataset is {furthest} away")
    return furthest


if __name__ == "__main__":
    main()
