"""What does micro-batching bring the gateway, and what does the gateway cost a single client?

    python bench/gateway.py [--log LOG.jsonl.gz] [--dtype float32] [--clients 64] [--seconds 5] [--repeats 3]

Two gateways run, `gpu-select serve` with the same configuration: one decides in batches of up to 64, the other one by
one. Clients in another process (bench/gateway_load.py) ask them in turn, over connections that stay open, each client
as soon as it has its answer: POST /v1/route, and chat completions that an endpoint in a third process answers at once.
The forward pass has all cores but one, as by default. Medians of interleaved repeats.

For a single client, the median latency of POST /v1/route stands beside that of the bare call of the same router in a
process without a server, for the same queries.

The router: two decisions with a KNN selector of 3,000 rows each and different k, and a domain head, around the encoder.
The queries: synthetic ones of 5 to 20 words, and with --log those of a file of records.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import clustered_features, save

from gpu_select.config import read_config
from gpu_select.decision_router import DecisionRouter
from gpu_select.decisions import Query
from gpu_select.domain_file import DOMAIN_FILE, DomainFile, write_domain_file
from gpu_select.domains import DOMAIN_NAMES
from gpu_select.encoder import load_encoder
from gpu_select.records import read_outcomes
from gpu_select.wire import KNNFile, file_name, write_selector_file
from gpu_select.yamlio import dump_yaml

LOAD = Path(__file__).with_name("gateway_load.py")
ROWS = 3000
MODELS = ["small", "medium", "large"]
WORDS = ("what", "why", "how", "is", "the", "of", "a", "law", "city", "cell", "energy", "market", "war", "patient")
MODES = {"batched": {}, "one_by_one": {"max_batch": 1, "max_wait_ms": 0}}
PATHS = ("/v1/route", "/v1/chat/completions")
N_SINGLE = 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--log", type=Path, help="records, for their queries")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="of the forward pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # of the bare router; the gateways take it from their environment
    sets = {"synthetic, 5 to 20 words": synthetic(20_000)}
    if options.log is not None:
        sets[options.log.name.partition(".")[0]] = logged(options.log)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_models(folder, options.encoder)
        port = stack.enter_context(endpoint())
        configs = {
            mode: write_config(folder, mode, batching, port, options.encoder) for mode, batching in MODES.items()
        }
        ports = {mode: stack.enter_context(gateway(config, options)) for mode, config in configs.items()}
        router = DecisionRouter.from_config(read_config(configs["batched"]), device=options.device, dtype=options.dtype)
        results = {}
        for about, queries in sets.items():
            (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
            tokens = router.encoder.tokenizer.tokenize(queries[:1000]).lengths.mean()
            results[about] = {
                "tokens_per_query": float(tokens),
                "at_once": at_once(ports, folder / "queries.jsonl", options),
                "single_client": single(ports["batched"], router, queries, folder, options.repeats),
            }
            show(about, results[about])
    about_run = {
        "encoder": options.encoder,
        "dtype": str(router.encoder.dtype).removeprefix("torch."),
        "clients": options.clients,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "knn_rows": ROWS,
    }
    save(f"gateway-{router.encoder.device.type}", {**about_run, "results": results})


# ---------------------------------------------------------------- what is asked, and who decides


def synthetic(n: int) -> list[str]:
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(5, 20))) + f" {i}?" for i in range(n)]


def logged(path: Path) -> list[str]:
    queries = [*dict.fromkeys(read_outcomes(path)[0].queries)]
    random.Random(0).shuffle(queries)
    return queries


def write_models(folder: Path, encoder_name: str) -> None:
    encoder = load_encoder(encoder_name, device="cpu")
    own = {"encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint}}
    rows = clustered_features(ROWS, encoder.dim + len(DOMAIN_NAMES), seed=1).numpy()
    labels = [MODELS[i % len(MODELS)] for i in range(ROWS)]
    write_selector_file(folder / "models" / file_name("knn"), KNNFile(5, rows, labels, None, None, own))
    weights = np.random.default_rng(0).standard_normal((len(DOMAIN_NAMES), encoder.dim)).astype(np.float32)
    bias = np.zeros(len(DOMAIN_NAMES), np.float32)
    write_domain_file(folder / "models" / DOMAIN_FILE, DomainFile(DOMAIN_NAMES, weights, bias, own))


def write_config(folder: Path, mode: str, batching: dict[str, int], port: int, encoder: str) -> Path:
    refs = [{"model": model} for model in MODELS]
    domains = [{"type": "domain", "name": name} for name in DOMAIN_NAMES[:7]]
    document = {
        "model_selection": {"ml": {"models_path": str(folder / "models")}},
        "embedding_models": {"qwen3_model_path": encoder},
        "decisions": [
            {
                "name": "half",
                "priority": 1,
                "rules": {"operator": "OR", "conditions": domains},
                "algorithm": {"type": "knn", "knn": {"k": 7}},
                "modelRefs": refs[:2],
            },
            {
                "name": "rest",
                "rules": {"operator": "AND", "conditions": []},
                "algorithm": {"type": "knn"},
                "modelRefs": refs,
            },
        ],
        "endpoints": [{"name": name, "endpoint": f"http://127.0.0.1:{port}/v1"} for name in MODELS],
        "gateway": {"batching": batching},
    }
    path = folder / f"{mode}.yaml"
    path.write_text(dump_yaml(document))
    return path


@contextlib.contextmanager
def endpoint() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, str(LOAD), "endpoint"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def gateway(config: Path, options: argparse.Namespace) -> Iterator[int]:
    command = [sys.executable, "-m", "gpu_select", "serve", "--config", str(config), "--port", "0"]
    command += ["--device", options.device, "--dtype", options.dtype]
    log = config.with_suffix(".log")
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(options.threads)}
    with open(log, "w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=os.environ | environment)
    try:
        while not (listening := [line for line in log.read_text().splitlines() if '"listening"' in line]):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.1)
        yield json.loads(listening[0])["port"]
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- measuring


def ask(port: int, path: str, n_clients: int, seconds: float, queries: Path) -> dict[str, Any]:
    command = [sys.executable, str(LOAD), "clients", "--port", str(port), "--path", path]
    command += ["--clients", str(n_clients), "--seconds", str(seconds), "--queries", str(queries)]
    seen: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if list(seen["statuses"]) != ["200"]:
        sys.exit(f"{path}: expected only answers with status 200, got {seen['statuses']}")
    return seen


def at_once(ports: dict[str, int], queries: Path, options: argparse.Namespace) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path in PATHS:
        runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in ports}
        for port in ports.values():
            ask(port, path, options.clients, min(1.0, options.seconds), queries)
        for _ in range(options.repeats):
            for mode, port in ports.items():
                runs[mode].append(ask(port, path, options.clients, options.seconds, queries))
        out[path] = {mode: middle(of_mode) for mode, of_mode in runs.items()}
        rates = {mode: out[path][mode]["requests_per_s"] for mode in ports}
        out[path]["ratio"] = rates["batched"] / rates["one_by_one"]
    return out


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median rate."""
    return sorted(runs, key=lambda run: run["requests_per_s"])[len(runs) // 2]


def single(port: int, router: DecisionRouter, queries: list[str], folder: Path, repeats: int) -> dict[str, float]:
    few = folder / "few.jsonl"
    bare, through = [], []
    for i in range(repeats + 1):
        chosen = queries[i * N_SINGLE : (i + 1) * N_SINGLE] or queries[:N_SINGLE]
        few.write_text("".join(json.dumps(query) + "\n" for query in chosen))
        bare.append(bare_ms(router, chosen))
        seconds = max(1.0, bare[-1] * len(chosen) / 1000)
        through.append(ask(port, "/v1/route", 1, seconds, few)["ms"]["p50"])
    # the first round warms up
    of_bare, of_gateway = statistics.median(bare[1:]), statistics.median(through[1:])
    return {"bare_p50_ms": of_bare, "gateway_p50_ms": of_gateway, "added_p50_ms": of_gateway - of_bare}


def bare_ms(router: DecisionRouter, queries: list[str]) -> float:
    times = []
    for query in queries:
        start = time.perf_counter()
        router.decide([Query(query)])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def show(about: str, result: dict[str, Any]) -> None:
    print(f"{about}: {result['tokens_per_query']:.1f} tokens a query; {torch.get_num_threads()} threads")
    for path, modes in result["at_once"].items():
        rates = ", ".join(f"{mode} {modes[mode]['requests_per_s']:,.0f}/s" for mode in MODES)
        print(f"  {path:22} {rates}, ratio {modes['ratio']:.2f}")
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in result["single_client"].items()))


if __name__ == "__main__":
    main()
