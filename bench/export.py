"""Is a compiled package as fast as the router that it was made from?

    python bench/export.py --train TRAIN.jsonl.gz --log DEV.jsonl.gz [--repeats N]

Trains KNN (k = 100), KMeans, SVM and MLP with MiniLM on benchmark records. Each selector is exported alone and decides
on the features of 64 queries of the log; KNN is exported with its encoder, too, and decides on their tokens: whole
queries, padded to the longest of them, and their first 12 words. Eager mode gets the same tensors; `packed` is what
`Router.route` does with the same queries, which are never padded there. Medians of interleaved repeats, float32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import embedded_features, interleaved, save
from torch import Tensor

from gpu_select.artifacts import load_selector
from gpu_select.encoder import Encoder, load_encoder, pack
from gpu_select.encoder.transformers_backbone import padded
from gpu_select.export import Exported, export_router, export_selector
from gpu_select.records import OutcomeTable, read_outcomes
from gpu_select.router import Router, decide_features
from gpu_select.wire import ALGORITHMS

BATCHES = (64, 1)
WORDS = 12
"""Of a short query."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", required=True, help="benchmark records to train on")
    parser.add_argument("--log", required=True, help="benchmark records whose queries are decided on")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    models = _train(arguments)
    encoder = load_encoder(arguments.encoder, device="cpu", dtype="float32")
    table, _ = read_outcomes(arguments.log, limit=max(BATCHES))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        features_BD = embedded_features(table, arguments.encoder, arguments.cache_dir)
        for algorithm in ALGORITHMS:
            results[f"selector, {algorithm}"] = _selector(models, algorithm, features_BD, folder, arguments.repeats)
        results["full, knn"] = _full(models, encoder, table, folder, arguments.repeats)
    _print(results)
    save("export-cpu", {"repeats": arguments.repeats, "encoder": encoder.name, "results": results})


def _train(arguments: argparse.Namespace) -> Path:
    from gpu_select.commands.train import train

    models = Path(arguments.cache_dir) / "export-models"
    train(
        data_file=arguments.train,
        output_dir=str(models),
        embedding_model=arguments.encoder,
        cache_dir=arguments.cache_dir,
        settings={"knn": {"k": 100}},
        device="cpu",
        dtype="float32",
        no_check=True,
    )
    return models


def _selector(models: Path, algorithm: str, features_BD: Tensor, folder: str, repeats: int) -> dict[str, Any]:
    selector = load_selector(models, algorithm=algorithm).selector
    done = export_selector(selector, Path(folder) / f"{algorithm}.pt2")
    package: Any = torch._inductor.aoti_load_package(done.path)
    cases = {}
    for n in BATCHES:
        x_BD = features_BD[:n].contiguous()
        tasks = {"eager": _task(decide_features, selector, x_BD, None), "package": _task(package, x_BD)}
        cases[f"{n} queries"] = _case(tasks, repeats)
    return {"package": _about(done), "cases": cases}


def _full(models: Path, encoder: Encoder, table: OutcomeTable, folder: str, repeats: int) -> dict[str, Any]:
    router = Router.of(encoder, load_selector(models, algorithm="knn")).eval()
    done = export_router(router, Path(folder) / "full.pt2")
    package: Any = torch._inductor.aoti_load_package(done.path)
    whole = table.queries
    cases = {}
    for n in BATCHES:
        for words, texts in (("whole", whole[:n]), (f"{WORDS} words", [_first(text) for text in whole[:n]])):
            tokenized = encoder.tokenizer.tokenize(texts)
            order = np.argsort(-tokenized.lengths, kind="stable")
            batch = pack(tokenized, order, encoder.device, table.domain_indices()[:n])
            ids, mask = padded(batch, encoder.tokenizer.pad_id)
            inputs = ids, mask.long(), batch.tag_B.long()
            tasks = {
                "eager": _task(router, *inputs),
                "packed": _task(router.decide_batch, batch),
                "package": _task(package, *inputs),
            }
            tokens = {"tokens": int(tokenized.lengths.sum()), "padded_tokens": ids.numel()}
            cases[f"{n} queries, {words}"] = _case(tasks, repeats) | tokens
    return {"package": _about(done), "cases": cases}


def _first(text: str) -> str:
    return " ".join(text.split()[:WORDS])


def _task(function: Callable[..., Any], *inputs: Any) -> Callable[[], Tensor]:
    """The models that it chooses."""

    def run() -> Tensor:
        out = function(*inputs)
        chosen: Tensor = out["model"] if isinstance(out, dict) else out.model
        return chosen

    return run


def _case(tasks: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, Any]:
    chosen = {name: task() for name, task in tasks.items()}
    same = int((chosen["package"] == chosen["eager"]).sum())
    seconds = interleaved(tasks, repeats)
    return {
        "seconds": seconds,
        "speed_over": {name: value / seconds["package"] for name, value in seconds.items() if name != "package"},
        "queries": len(chosen["package"]),
        "same_models": same,
    }


def _about(done: Exported) -> dict[str, Any]:
    return {"bytes": done.n_bytes, "load_s": done.load_s, "compile_s": done.compile_s}


def _print(results: dict[str, Any]) -> None:
    for name, result in results.items():
        about = result["package"]
        print(f"{name}: {about['bytes'] / 1e6:.1f} MB, loads in {about['load_s'] * 1e3:.0f} ms")
        for case, row in result["cases"].items():
            times = "  ".join(f"{key} {value * 1e3:.3f} ms" for key, value in row["seconds"].items())
            ratios = ", ".join(f"{value:.2f} x {key}" for key, value in row["speed_over"].items())
            print(f"  {case:24} {times}   package: {ratios}; {row['same_models']} of {row['queries']} the same")


if __name__ == "__main__":
    main()
