"""What does it bring that reading, tokenising, deciding and writing overlap?

    python bench/pipeline.py [--device cuda] [--encoder minilm] [--rows 2000]

Each line is the same log (JSON lines to JSON lines, synthetic questions) once with its stages in turn, window by
window, and once overlapped; medians of 5 interleaved repeats, and the stages' own times. `simulated device` takes 500
ms a window of 8,192 rows by itself, as a GPU does: it shows the overlap where there is none. `encoder` is a real router
on the device. `no encoder` is what the host alone can do. `turns` are 400 small torch operations beside a thread that
makes rows, at Python's own switch interval and at the one that routing sets; they differ where cores are idle.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from common import clustered_features, interleaved, save

from gpu_select.domains import DOMAIN_NAMES
from gpu_select.encoder import load_encoder
from gpu_select.jsonio import dumps
from gpu_select.logs import open_log, open_writer
from gpu_select.pipeline import WINDOW_ROWS, RouteReport, route_rows, route_vectors
from gpu_select.pipeline.overlap import Overlap
from gpu_select.router import Router, Routes, route_features
from gpu_select.selectors import KNNSelector
from gpu_select.stages import STAGES

REPEATS = 5
DEVICE_S = 0.5
HOST_ROWS = 5 * WINDOW_ROWS
WORDS = ("what", "why", "how", "is", "the", "of", "a", "law", "city", "cell", "energy", "market", "war", "patient")
MODELS = ["small", "medium", "large"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--rows", type=int, default=2000, help="of the line with the encoder")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, device=options.device)
    rows = clustered_features(3000, encoder.dim + 14, seed=1)
    selector = KNNSelector(rows, [MODELS[i % 3] for i in range(len(rows))], n_neighbors=5)
    router = Router(encoder, selector.to(encoder.device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, short = write_log(folder / "log.jsonl", HOST_ROWS), write_log(folder / "short.jsonl", options.rows)
        device = SimulatedDevice()
        # small windows, so that a short log has some to overlap
        window_rows = min(WINDOW_ROWS, max(1, options.rows // 8))
        results = {
            "simulated device": both(log, WINDOW_ROWS, router.prepare, device.decide),
            "encoder": both(short, window_rows, router.prepare, router.decide),
            "no encoder": both(log, WINDOW_ROWS, lambda texts, _: len(texts), lambda n, times: Done(n)),
        }
        results["no encoder"]["rows_per_second_parquet"] = parquet_rows_per_second(folder, log)
        results["no encoder"]["rows_per_second_vectors"] = vectors_per_second(folder, router)
    results["turns"] = turns()
    for name, row in results.items():
        print(f"{name:17}", "  ".join(f"{key}: {show(value)}" for key, value in row.items()))
    about = {"encoder": options.encoder, "rows": options.rows, "window_rows": window_rows, "device_s": DEVICE_S}
    save(f"pipeline-{encoder.device.type}", {"repeats": REPEATS, **about, "results": results})


def show(value: Any) -> str:
    return " ".join(f"{k} {v:.3f}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,.2f}"


def write_log(path: Path, n_rows: int) -> Path:
    random.seed(n_rows)
    with open(path, "wb") as stream:
        for i in range(n_rows):
            query = " ".join(random.choices(WORDS, k=random.randint(5, 20)))
            stream.write(dumps({"id": i, "query": f"{query} {i}?", "domain": DOMAIN_NAMES[i % 14]}) + b"\n")
    return path


# ---------------------------------------------------------------- what decides


class Done(NamedTuple):
    n_rows: int

    def routes(self) -> Routes:
        ones = np.ones(self.n_rows, np.float32)
        return Routes([MODELS[0]] * self.n_rows, ones, ones)


class SimulatedDevice:
    """Queues its work, like a GPU: a window is ready `DEVICE_S` after the one before it, or after it came."""

    def __init__(self) -> None:
        self.free_at = 0.0

    def decide(self, prepared: Any, *, times: Any) -> Any:
        self.free_at = max(time.perf_counter(), self.free_at) + DEVICE_S
        return SimulatedPending(prepared.distinct_of, self.free_at)


class SimulatedPending(NamedTuple):
    rows: np.ndarray
    ready_at: float

    def routes(self) -> Routes:
        time.sleep(max(0.0, self.ready_at - time.perf_counter()))
        return Done(len(self.rows)).routes()


# ---------------------------------------------------------------- the two orders


def both(log: Path, window_rows: int, prepare: Any, decide: Any) -> dict[str, Any]:
    reports: dict[str, list[RouteReport]] = {"in_turn": [], "overlapped": []}

    def run(order: str) -> None:
        reports[order].append(route(log, log.parent / "out.jsonl", window_rows, prepare, decide, order == "overlapped"))

    seconds = interleaved({order: partial(run, order) for order in reports}, REPEATS)
    row: dict[str, Any] = {"seconds": seconds, "speedup": seconds["in_turn"] / seconds["overlapped"]}
    for order, of_order in reports.items():
        stages = {stage: median(report.stage_seconds[stage] for report in of_order[1:]) for stage in STAGES}
        row[f"stage_seconds_{order}"] = {stage: value for stage, value in stages.items() if value > 0}
    row["rows_per_second"] = of_order[0].rows / seconds["overlapped"]
    return row


def route(log: Path, out: Path, window_rows: int, prepare: Any, decide: Any, overlapped: bool) -> RouteReport:
    with open_log(str(log)) as reader, open_writer(str(out), columns=reader.columns, schema=reader.schema) as writer:
        windows = reader.windows(window_rows)
        if overlapped:
            return route_rows(windows, writer.write, prepare, decide)
        total = RouteReport(stage_seconds=dict.fromkeys(STAGES, 0.0))
        start = time.perf_counter()
        for window in windows:  # one window alone has nothing to overlap with
            total.stage_seconds["read"] += time.perf_counter() - start
            report = route_rows([window], writer.write, prepare, decide)
            total.rows += report.rows
            for stage, value in report.stage_seconds.items():
                total.stage_seconds[stage] += value
            start = time.perf_counter()
        return total


# ---------------------------------------------------------------- the host alone


def parquet_rows_per_second(folder: Path, log: Path) -> float | None:
    try:
        import pyarrow.json
        import pyarrow.parquet
    except ImportError:
        return None
    pyarrow.parquet.write_table(pyarrow.json.read_json(log), folder / "log.parquet")
    run = partial(route, folder / "log.parquet", folder / "out.parquet", WINDOW_ROWS)
    task = partial(run, lambda texts, _: len(texts), lambda n, times: Done(n), True)
    return HOST_ROWS / interleaved({"ours": task}, REPEATS)["ours"]


def vectors_per_second(folder: Path, router: Router) -> float:
    features = clustered_features(2 * WINDOW_ROWS, router.selector.dim, seed=3).numpy()

    def task() -> None:
        with open_writer(str(folder / "out.jsonl"), columns=["row"]) as writer:
            route_vectors(features, writer.write, partial(route_features, router.selector))

    return len(features) / interleaved({"ours": task}, 3)["ours"]


def turns() -> dict[str, float]:
    x = torch.zeros(64, 64)

    def operations() -> None:
        for _ in range(400):
            torch.mm(x, x)

    def beside_a_busy_thread(own_interval: bool) -> None:
        stop = threading.Event()

        def make_rows() -> None:
            while not stop.is_set():
                [{"id": i, "query": str(i)} for i in range(2000)]

        thread = threading.Thread(target=make_rows)
        thread.start()
        with Overlap():
            if own_interval:
                sys.setswitchinterval(0.005)
            operations()
        stop.set()
        thread.join()

    tasks: dict[str, Callable[[], object]] = {
        "alone": operations,
        "python_interval": lambda: beside_a_busy_thread(True),
        "routing_interval": lambda: beside_a_busy_thread(False),
    }
    with torch.inference_mode():
        return interleaved(tasks, REPEATS)


if __name__ == "__main__":
    main()
