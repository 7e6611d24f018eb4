"""What do shards cost, does memory stay flat, and is a killed run the same as one that was left alone?

    python bench/sharded.py [--rows 200000] [--kills 20] [--workers 2]

`overhead`: a Parquet log of five times as many rows with ready 384-d embeddings, KMeans, Parquet out, all columns kept:
rows/s of the whole command, from its start to its end, and without the start (as it says itself); in shards by two
processes and by one, and without shards. Medians of the repeats, and the CPU seconds of all processes.

`memory`: the largest sum of resident memory of all processes, sampled every 20 ms, for a log of this many rows and for
a tenth of them, in shards of a hundredth; the largest of the repeats, as a process that starts late may find no shard.

`kills`: a JSON lines log of short queries through MiniLM, whose embeddings are cached, is killed (SIGKILL, the first
process only) at random moments, a fourth of them while it starts, and started again until it ends, as often as it takes
to reach the number of kills. Every end is compared with an undisturbed run, byte by byte, manifest included, and after
every kill all of its processes have to be gone within two seconds.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import clustered_features, save

from gpu_select.domains import DOMAIN_NAMES
from gpu_select.encoder import load_encoder
from gpu_select.jsonio import dumps
from gpu_select.wire import KMeansFile, file_name, write_selector_file

REPEATS = 3
DIM = 384
DISTINCT = 4096
WORDS = ("what", "why", "how", "is", "the", "of", "a", "law", "city", "cell", "energy", "market", "war", "patient")
ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    rows, few = arguments.rows, arguments.rows // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models")
        for n in (rows, few):
            write_embedded(folder / f"{n}.parquet", n)
            write_texts(folder / f"{n}.jsonl", n)
        shards = "--shard-rows", few // 10, "--workers", arguments.workers
        embedded = "--embedding-field", "embedding"
        texts = "--embedding-model", "minilm", "--cache-dir", folder / "cache"
        write_embedded(folder / f"{5 * rows}.parquet", 5 * rows)
        results: dict[str, Any] = {"overhead": overhead(folder, 5 * rows, rows // 4, arguments.workers)}
        run(folder, f"{rows}.jsonl", "warm", *texts, *shards)  # fills the cache
        results["memory"] = {
            "embeddings": memory(folder, ".parquet", rows, few, *embedded, *shards),
            "texts": memory(folder, ".jsonl", rows, few, *texts, *shards),
        }
        results["kills"] = kills(folder, f"{rows}.jsonl", arguments, *texts, *shards)
    for part, values in results.items():
        for key, value in values.items():
            print(f"{part:9} {key:28} {value}")
    save("sharded-cpu", {"repeats": REPEATS, "rows": rows, "workers": arguments.workers, "results": results})


# ---------------------------------------------------------------- what is routed


def write_models(folder: Path) -> None:
    encoder = load_encoder("minilm")
    own = {"encoder": {"name": "minilm", "fingerprint": encoder.fingerprint}}
    centroids = clustered_features(64, DIM + 14, seed=1).numpy()
    write_selector_file(
        folder / file_name("kmeans"), KMeansFile(centroids, ["small", "medium", "large", "huge"] * 16, own)
    )


def write_embedded(path: Path, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, n_rows, 10_000):
        ids = np.arange(start, min(start + 10_000, n_rows))
        vectors = rng.normal(size=(len(ids), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pa.table(
            {
                "id": ids,
                "query": [f"what is number {i}?" for i in ids],
                "domain": [DOMAIN_NAMES[i % 14] for i in ids],
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_texts(path: Path, n_rows: int) -> None:
    generator = random.Random(0)
    texts = [f"{' '.join(generator.choices(WORDS, k=generator.randint(4, 10)))} {i}?" for i in range(DISTINCT)]
    with open(path, "wb") as stream:
        for i in range(n_rows):
            stream.write(dumps({"id": i, "query": generator.choice(texts), "domain": DOMAIN_NAMES[i % 14]}) + b"\n")


# ---------------------------------------------------------------- running the command


def start(folder: Path, log: str, out: str, *options: object) -> subprocess.Popen[bytes]:
    paths = "--input", folder / log, "--output", folder / out, "--models-dir", folder / "models"
    arguments = "route", *paths, "--algorithm", "kmeans", "--device", "cpu", *options
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}
    command = [sys.executable, "-m", "gpu_select", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=ROOT)


def run(folder: Path, log: str, out: str, *options: object) -> dict[str, float]:
    """A whole run into a new folder: seconds, the command's own rows/s, CPU seconds, and the peak of memory."""
    for old in (folder / out, folder / f"{out}.parquet"):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    before, began = os.times(), time.perf_counter()
    process = start(folder, log, out, *options)
    peak = Peak(process.pid)
    said = process.communicate()[1].decode()
    seconds, after = time.perf_counter() - began, os.times()
    if process.returncode != 0:
        sys.exit(said)
    return {
        "seconds": seconds,
        "own_rows_per_second": float(re.search(r": ([\d,]+) rows/s", said)[1].replace(",", "")),
        "cpu_seconds": after.children_user + after.children_system - before.children_user - before.children_system,
        "peak_mib": peak.stop() / 2**20,
    }


class Peak:
    """The largest sum of resident memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.most = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self) -> None:
        while not self.is_over.wait(0.02):
            self.most = max(self.most, sum(map(resident, [self.pid, *below(self.pid)])))

    def stop(self) -> int:
        self.is_over.set()
        self.thread.join()
        return self.most


def below(pid: int) -> list[int]:
    """All processes that a process has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [grandchild for child in children for grandchild in below(int(child))]


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


# ---------------------------------------------------------------- the three questions


def overhead(folder: Path, rows: int, shard_rows: int, workers: int) -> dict[str, Any]:
    embedded = "--embedding-field", "embedding"
    ways = {
        f"shards, {workers} processes": ("out", "--shard-rows", shard_rows, "--workers", workers),
        "shards, 1 process": ("out", "--shard-rows", shard_rows),
        "one file": ("out.parquet",),
    }
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for repeat in range(REPEATS + 1):
        for way, (out, *options) in ways.items():
            measured = run(folder, f"{rows}.parquet", out, *embedded, *options)
            if repeat:  # the first one warms the page cache
                runs[way].append(measured)
    return {
        way: {
            "rows_per_second": rows / median(run["seconds"] for run in of_way),
            "rows_per_second_without_start": median(run["own_rows_per_second"] for run in of_way),
            "cpu_seconds": median(run["cpu_seconds"] for run in of_way),
        }
        for way, of_way in runs.items()
    }


def memory(folder: Path, ending: str, rows: int, few: int, *options: object) -> dict[str, float]:
    peaks = {
        n: max(run(folder, f"{n}{ending}", "out", *options)["peak_mib"] for _ in range(REPEATS)) for n in (few, rows)
    }
    return {f"peak_mib_{few}_rows": peaks[few], f"peak_mib_{rows}_rows": peaks[rows], "ratio": peaks[rows] / peaks[few]}


def kills(folder: Path, log: str, arguments: argparse.Namespace, *options: object) -> dict[str, Any]:
    generator = random.Random(arguments.seed)
    undisturbed, out = folder / "undisturbed", folder / "out"
    seconds = run(folder, log, undisturbed.name, *options)["seconds"]
    n_orphans, n_ends, shards_there = 0, 0, []
    began = time.perf_counter()
    shutil.rmtree(out)
    while len(shards_there) < arguments.kills or out.exists():
        process = start(folder, log, out.name, *options)
        if len(shards_there) < arguments.kills:
            wait_for_a_moment(process, out, generator)
            if process.poll() is None:
                family = below(process.pid)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                shards_there.append(len(parts(out)))
                time.sleep(2)
                n_orphans += sum(resident(pid) > 0 for pid in family)
                continue
        said = process.communicate()[1].decode()
        if process.returncode != 0:
            sys.exit(said)
        check_equal(undisturbed, out)
        n_ends += 1
        shutil.rmtree(out)
    return {
        "kills": len(shards_there),
        "shards": len(parts(undisturbed)),
        "shards_there_at_the_kills": shards_there,
        "processes_left_after_2_s": n_orphans,
        "ends_equal_byte_for_byte": n_ends,
        "seconds_undisturbed": seconds,
        "seconds_in_all": time.perf_counter() - began,
    }


def wait_for_a_moment(process: subprocess.Popen[bytes], out: Path, generator: random.Random) -> None:
    """Until the process is to be killed, or has ended."""
    if generator.random() < 0.25:
        time.sleep(generator.uniform(0, 5))
        return
    n_wanted = len(parts(out)) + generator.randint(1, 20)
    while process.poll() is None and len(parts(out)) < n_wanted:
        time.sleep(0.005)
    time.sleep(generator.uniform(0, 0.3))


def parts(folder: Path) -> list[Path]:
    return [*folder.glob("part-*")] if folder.is_dir() else []


def check_equal(expected: Path, found: Path) -> None:
    names = sorted(path.name for path in expected.iterdir())
    if names != sorted(path.name for path in found.iterdir()):
        sys.exit(f"other files: {sorted(path.name for path in found.iterdir())}")
    different = [name for name in names if not filecmp.cmp(expected / name, found / name, shallow=False)]
    if different:
        sys.exit(f"other bytes: {different}")


if __name__ == "__main__":
    main()
