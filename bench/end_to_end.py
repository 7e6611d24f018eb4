"""How fast is a log routed from file to file, against sentence-transformers and scikit-learn in the same run?

    python bench/end_to_end.py --train TRAIN.jsonl.gz --log DEV.jsonl.gz [--queries N]
    python bench/end_to_end.py --device cuda [--queries N] [--compile]

The first trains KNN, KMeans and SVM with MiniLM on benchmark records, and routes the distinct queries of others, on
the CPU, in float32 and bfloat16. The second has synthetic queries of 64 and 128 tokens in the mean, an encoder of the
shape of Qwen3-Embedding-0.6B with random weights in bfloat16, a BPE tokenizer of Qwen's vocabulary size, and selectors
as from 7,500 training queries, KNN also with a million rows.

Both sides read JSON lines and write JSON lines. Medians of interleaved repeats. The peer (bench/peer.py) embeds once
for all its selectors; each counts the time of reading and embedding in full. On CUDA it routes the first eighth of the
log, as it would take too long, and rates are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import save
from peer import Peer

from gpu_select import throughput
from gpu_select.artifacts import selector_of
from gpu_select.encoder import DtypeName, Encoder, load_encoder, resolve_encoder
from gpu_select.router import Router
from gpu_select.selectors import Selector
from gpu_select.throughput import Queries, Roof, Run
from gpu_select.wire import file_name, read_selector_file

ROWS, MANY_ROWS = 7500, 1_000_000
MEANS = (64, 128)
TOKENS = {"cuda": 3_145_728, "cpu": 4096}
"""Of a synthetic log."""
PEER_SHARE = {"cuda": 8, "cpu": 1}
WARM_UP = {"cuda": 8192, "cpu": 128}
COMPILED = ", compiled"


@dataclass(frozen=True, eq=False)
class Case:
    """A log and what routes it."""

    name: str
    queries: Queries
    encoders: dict[str, Encoder]
    """By dtype."""
    selectors: dict[str, Selector]
    """By name."""
    peer: Peer
    """Has some of the same names."""
    peer_queries: int

    def routers(self) -> dict[tuple[str, str], Router]:
        """By dtype and selector's name; a compiled encoder with KNN only."""
        return {
            (dtype, name): Router(encoder, selector)
            for dtype, encoder in self.encoders.items()
            for name, selector in self.selectors.items()
            if name == "knn" or COMPILED not in dtype
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--train", help="benchmark records to train on")
    parser.add_argument("--log", help="benchmark records whose queries are routed")
    parser.add_argument("--synthetic", action="store_true", help="the CUDA run's queries and a small model on the CPU")
    parser.add_argument("--queries", type=int, help="queries of each log, to try things out")
    parser.add_argument("--compile", action="store_true", help="KNN with a compiled encoder, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--rows", type=int, nargs=2, default=[ROWS, MANY_ROWS], help="of the made-up selectors")
    parser.add_argument("--name", help="of the result file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    made_up = arguments.synthetic or device.type == "cuda"
    if not made_up and (arguments.train is None or arguments.log is None):
        parser.error("the CPU run needs --train and --log")
    cases, words = _made_up(arguments, device) if made_up else _trained(arguments, device)
    roofs: dict[str, Roof] = {}
    results = {}
    for case in cases:
        for encoder in case.encoders.values():
            dtype = encoder.precision
            if dtype not in roofs:
                roofs[dtype] = throughput.matmul_roof(device, encoder.dtype)
                print(f"roof in {dtype}: {roofs[dtype].flops_per_s / 1e12:.2f} TFLOP/s {roofs[dtype].size}")
        results[case.name] = _measure(case, roofs, arguments.repeats)
        _print(case.name, results[case.name])
        # after each log, as time may run out
        save(
            arguments.name or f"end_to_end-{device.type}",
            {
                "repeats": arguments.repeats,
                "encoder": words,
                "roofs": {dtype: asdict(roof) for dtype, roof in roofs.items()},
                "results": results,
            },
        )


def _trained(arguments: argparse.Namespace, device: torch.device) -> tuple[list[Case], str]:
    from gpu_select.commands.train import train
    from gpu_select.records import read_outcomes

    models = Path(arguments.cache_dir) / "end_to_end-models"
    train(
        data_file=arguments.train,
        output_dir=str(models),
        embedding_model="minilm",
        cache_dir=arguments.cache_dir,
        settings={"knn": {"k": 100}},
        device=device.type,
        dtype="float32",
        no_check=True,
    )
    documents = {name: read_selector_file(models / file_name(name)) for name in ("knn", "kmeans", "svm")}
    dtypes: tuple[DtypeName, ...] = ("float32", "bfloat16")
    encoders = {dtype: load_encoder("minilm", device=device, dtype=dtype) for dtype in dtypes}
    table, _ = read_outcomes(arguments.log, limit=arguments.queries)
    lengths = encoders["float32"].tokenizer.tokenize(table.queries).lengths
    queries = Queries(table.queries, [domain or "other" for domain in table.domains], lengths)
    peer = Peer(str(resolve_encoder("minilm")), device.type, torch.float32, documents)
    name = Path(arguments.log).name.split(".")[0]
    selectors = {name: selector_of(document).to(device) for name, document in documents.items()}
    case = Case(name, queries, encoders | _compiled(arguments, "minilm", device), selectors, peer, len(queries.texts))
    return [case], "minilm, its own weights and tokenizer"


def _compiled(arguments: argparse.Namespace, encoder: str, device: torch.device) -> dict[str, Encoder]:
    if not arguments.compile:
        return {}
    dtype: DtypeName = "bfloat16"
    compiled = load_encoder(encoder, device=device, dtype=dtype)
    compiled.compile_layers()
    return {f"{dtype}{COMPILED}": compiled}


def _made_up(arguments: argparse.Namespace, device: torch.device) -> tuple[list[Case], str]:
    shape = throughput.QWEN3_06B if device.type == "cuda" else throughput.SMALL
    dtype: DtypeName = "bfloat16"
    used = throughput.random_encoder(shape, device=device, dtype=dtype, cache_dir=arguments.cache_dir)
    encoder = used.encoder
    few, many = arguments.rows
    documents = {name: throughput.random_document(encoder, name, few) for name in ("knn", "kmeans", "svm")}
    folder = throughput.ensure_random_encoder(arguments.cache_dir, shape)
    peer = Peer(str(folder), device.type, encoder.dtype, documents)
    selectors = {name: selector_of(document).to(device) for name, document in documents.items()}
    many_document = throughput.random_document(encoder, "knn", many)
    selectors[f"knn, {many:,} rows"] = selector_of(many_document).to(device)
    del many_document  # 4 GB
    encoders = {dtype: encoder} | _compiled(arguments, str(folder), device)
    corpus = throughput.read_corpus()
    cases = []
    for mean in MEANS:
        n = arguments.queries or TOKENS[device.type] // mean
        queries = throughput.cut_queries(corpus, encoder.tokenizer, n, mean)
        peer_queries = -(-n // PEER_SHARE[device.type])
        # one length is enough to tell the other selectors from KNN
        measured = {name: s for name, s in selectors.items() if mean == MEANS[0] or name.startswith("knn")}
        cases.append(Case(f"{mean} tokens", queries, encoders, measured, peer, peer_queries))
    return cases, used.words


def _measure(case: Case, roofs: dict[str, Roof], repeats: int) -> dict[str, Any]:
    device = next(iter(case.encoders.values())).device
    routers = case.routers()
    runs: dict[tuple[str, str], list[Run]] = {key: [] for key in routers}
    peer_runs = []
    n_peer, peer = case.peer_queries, case.peer
    with tempfile.TemporaryDirectory() as folder:
        log, peer_log = (str(Path(folder) / name) for name in ("log.jsonl", "peer_log.jsonl"))
        outs = {key: str(Path(folder) / f"ours {'-'.join(key)}.jsonl") for key in routers}
        peer_outs = {name: str(Path(folder) / f"peer {name}.jsonl") for name in peer.deciders if name in case.selectors}
        throughput.write_log(log, case.queries)
        throughput.write_log(peer_log, _first(case.queries, n_peer))
        peer.tune(peer_log)
        for key, router in routers.items():
            throughput.route_file(router, log, outs[key], max_rows=WARM_UP[device.type])
        for _ in range(repeats):
            peer_runs.append(peer.route(peer_log, peer_outs))
            for key, router in routers.items():
                runs[key].append(throughput.timed_route(router, log, outs[key]))
        models = {key: _models(path)[:n_peer] for key, path in outs.items()}
        peer_models = {name: _models(path) for name, path in peer_outs.items()}
    peer_seconds = {name: statistics.median(shared + own[name] for shared, own in peer_runs) for name in peer_outs}
    peer_rows = {
        name: {
            "seconds": seconds,
            "selection_and_writing_s": statistics.median(own[name] for _, own in peer_runs),
            "queries_per_s": n_peer / seconds,
            "tokens_per_s": int(case.queries.lengths[:n_peer].sum()) / seconds,
        }
        for name, seconds in peer_seconds.items()
    }
    ours: dict[str, dict[str, Any]] = {dtype: {} for dtype in case.encoders}
    for (dtype, name), router in routers.items():
        row = throughput.as_dict(throughput.summary(router, roofs[router.encoder.precision], runs[dtype, name]))
        if name in peer_rows:
            different = sum(a != b for a, b in zip(models[dtype, name], peer_models[name], strict=True))
            row["speed_over_peer"] = row["tokens_per_s"] / peer_rows[name]["tokens_per_s"]
            row["other_models"], row["same_models"] = different, 1 - different / n_peer
        ours[dtype][name] = row
    return {
        "queries": len(case.queries.texts),
        "mean_tokens": float(case.queries.lengths.mean()),
        "peer": {
            "what": "sentence-transformers encode + scikit-learn",
            "queries": n_peer,
            "dtype": str(next(peer.model.parameters()).dtype).removeprefix("torch."),
            "batch_size": peer.batch_size,
            "seconds_by_batch_size_tried": peer.trials,
            "selectors": peer_rows,
        },
        "ours": ours,
    }


def _first(queries: Queries, n: int) -> Queries:
    return Queries(queries.texts[:n], queries.domains[:n], queries.lengths[:n])


def _models(path: str) -> list[str]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line)["model"] for line in stream]


def _print(name: str, result: dict[str, Any]) -> None:
    peer = result["peer"]
    print(f"\n{name}: {result['queries']:,} queries of {result['mean_tokens']:.1f} tokens")
    print(f"peer: {peer['what']} in {peer['dtype']}, batch size {peer['batch_size']}, {peer['queries']:,} queries")
    print(f"{'':32}   tokens/s  queries/s  of the roof  selecting  over peer  same model")
    for dtype, rows in result["ours"].items():
        for algorithm, row in rows.items():
            beside = f"{row['speed_over_peer']:8.2f} x  {row['same_models']:10.2%}" if "same_models" in row else ""
            print(
                f"{algorithm:21} {dtype:9}  {row['tokens_per_s']:10,.0f}  {row['queries_per_s']:9,.0f}  "
                f"{row['utilisation']:11.1%}  {row['stage_shares']['select']:9.2%}  {beside}"
            )
    for algorithm, row in peer["selectors"].items():
        print(f"{algorithm:21} the peer   {row['tokens_per_s']:10,.0f}  {row['queries_per_s']:9,.0f}")
    for dtype, rows in result["ours"].items():
        row = rows["knn"]
        parts = ", ".join(f"{stage} {share:.1%}" for stage, share in row["stage_shares"].items())
        print(f"stages of knn in {dtype}, as shares of the time (they overlap): {parts}")


if __name__ == "__main__":
    main()
