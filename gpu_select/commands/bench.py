"""`gpu-select bench`: how fast this machine routes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.router import Router
    from gpu_select.throughput import Roof, Throughput

__all__ = ["bench", "command"]

_SECONDS = 60
"""What a run without --queries should take, about."""

_LEAST_QUERIES, _MOST_QUERIES = 64, 131_072


@click.command(name="bench")
@click.option("--input", "input_path", metavar="LOG", help="Your own log.  [default: synthetic queries]")
@click.option("--lengths", metavar="T,T", help="Mean tokens of synthetic queries.  [default: 64,128]")
@click.option("--queries", type=int, help="Queries of each log.  [default: for a minute in all; your whole log]")
@click.option("--embedding-model", metavar="NAME", help="As in train.  [default: what is at hand; see below]")
@click.option("--models-dir", metavar="DIR", help="Folder of selector files.  [default: a made-up selector]")
@click.option("--selector", type=click.Choice(["knn", "kmeans", "svm", "mlp"]), help="[default: knn]")
@click.option("--rows", type=int, help="Training queries of the made-up selector.  [default: 7500]")
@options.device
@options.encoding
@click.option("--token-budget", type=int, help="Tokens the encoder takes at once.  [default: by device]")
@click.option("--repeats", default=3, show_default=True, help="Medians are over so many runs.")
@click.option("--cache-dir", default=".cache/", show_default=True, metavar="DIR", help="Keeps the random model.")
@click.option("--json", "json_path", metavar="OUT", help="Write all figures as JSON too.")
def command(**settings: Any) -> None:
    """Measure routing from file to file on this machine: reading, tokenising, embedding, selecting, writing.

    Without --embedding-model: the encoder that the selector files name, else qwen3 if its files are here already, else
    a model of its shape with random weights on CUDA, and MiniLM (or a small random model) on other devices.
    """
    bench(**settings)


def bench(
    *,
    input_path: str | None,
    lengths: str | None,
    queries: int | None,
    embedding_model: str | None,
    models_dir: str | None,
    selector: str | None,
    rows: int | None,
    device: str,
    dtype: Any,
    token_budget: int | None,
    repeats: int,
    cache_dir: str,
    json_path: str | None,
    deterministic: bool,
    compile_layers: bool,
) -> None:
    """Check the options, measure the roof, then each log."""
    from gpu_select.encoder import resolve_device

    means = _check(
        input_path,
        lengths,
        models_dir,
        {"queries": queries, "rows": rows, "token-budget": token_budget, "repeats": repeats},
    )
    if input_path is not None:
        _check_log(input_path)
    target = resolve_device(device)
    artifact = None
    if models_dir is not None:
        from gpu_select.artifacts import find_selector_files, load_selector

        algorithm = selector or next(iter(find_selector_files(models_dir)))
        artifact = load_selector(models_dir, algorithm=algorithm, device=target)
        embedding_model = embedding_model or artifact.encoder_name

    from gpu_select import throughput
    from gpu_select.router import Router

    _say("loading the encoder")
    used = throughput.pick_encoder(embedding_model, device=target, dtype=dtype, cache_dir=cache_dir)
    if artifact is not None:
        router = Router.of(used.encoder, artifact)
        selector_words = f"{router.selector.algorithm} of {artifact.path}"
    else:
        rows = rows or 7500
        router = throughput.random_router(used.encoder, selector or "knn", rows)
        selector_words = f"{router.selector.algorithm}, made up, as from {rows:,} training queries"
    if deterministic:
        router.make_deterministic()
    if compile_layers:
        used.encoder.compile_layers()
    _say("measuring the roof")
    roof = throughput.matmul_roof(target, used.encoder.dtype)
    setting = {
        "device": throughput.device_name(target),
        "encoder": used.encoder.name,
        "encoder_is_random": used.is_random,
        "encoder_words": used.words,
        "dtype": used.encoder.precision,
        "compiled": compile_layers,
        "gflop_a_token": throughput.flops_per_token(used.encoder) / 1e9,
        "selector": selector_words,
        "roof": asdict(roof),
        "copied_bytes_per_s": throughput.copy_bandwidth(target),
    }
    common: dict[str, Any] = {"repeats": repeats, "token_budget": token_budget}
    if input_path is None:
        results = _synthetic(router, roof, means, queries, common)
    else:
        _say(f"routing {input_path} {repeats + 1} times")
        name = Path(input_path).name
        results = {name: throughput.measure(router, input_path, roof, max_rows=queries, **common)}
    _print(setting, results)
    if json_path is not None:
        _write(json_path, setting, results)


def _check(
    input_path: str | None, lengths: str | None, models_dir: str | None, counts: dict[str, int | None]
) -> list[int]:
    """The mean lengths, after checking the options."""
    from gpu_select.errors import ConfigError

    if input_path is not None and lengths is not None:
        raise click.UsageError("--lengths is for synthetic queries: give it without --input")
    if models_dir is not None and counts["rows"] is not None:
        raise click.UsageError("--rows is for a made-up selector: give it without --models-dir")
    problems = [
        str(ConfigError(name, count, "an integer >= 1"))
        for name, count in counts.items()
        if count is not None and count < 1
    ]
    parts = [part.strip() for part in (lengths or "64,128").split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        problems.append(str(ConfigError("lengths", lengths, "whole numbers of tokens, separated by commas")))
    if problems:
        raise ConfigError.joined(problems)
    return list(dict.fromkeys(map(int, parts)))


def _check_log(path: str) -> None:
    """Refuse what cannot be read, or not more than once, before time is spent."""
    from gpu_select.errors import ConfigError
    from gpu_select.files import STDIO
    from gpu_select.logs import open_log

    if path == STDIO:
        raise ConfigError("input", path, "a file, as it is read more than once")
    with open_log(path):
        pass


def _synthetic(
    router: Router, roof: Roof, means: list[int], queries: int | None, common: dict[str, Any]
) -> dict[str, Throughput]:
    import tempfile

    from gpu_select import throughput

    for mean in means:
        throughput.check_mean(router.encoder.tokenizer, mean)
    corpus = throughput.read_corpus()
    most_tokens_per_s = roof.flops_per_s / throughput.flops_per_token(router.encoder)
    n_runs = common["repeats"] + 1
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for mean in means:
            # routing reaches half of the roof or less
            wanted = int(0.4 * most_tokens_per_s / mean * _SECONDS / n_runs / len(means))
            n = queries or max(_LEAST_QUERIES, min(_MOST_QUERIES, 1 << max(0, wanted.bit_length() - 1)))
            _say(f"routing {n:,} queries of {mean} tokens {n_runs} times")
            log = str(Path(folder) / f"{mean}.jsonl")
            throughput.write_log(log, throughput.cut_queries(corpus, router.encoder.tokenizer, n, mean))
            results[f"{mean} tokens"] = throughput.measure(router, log, roof, **common)
    return results


def _print(setting: dict[str, Any], results: dict[str, Throughput]) -> None:
    import torch

    from gpu_select import throughput

    roof = setting["roof"]
    click.echo(f"device    {setting['device']}, torch {torch.__version__}")
    click.echo(f"encoder   {setting['encoder_words']}")
    compiled = ", compiled" if setting["compiled"] else ""
    click.echo(f"          in {setting['dtype']}{compiled}, {setting['gflop_a_token']:.3f} GFLOP a token")
    click.echo(f"selector  {setting['selector']}")
    click.echo(
        f"roof      {roof['flops_per_s'] / 1e12:.2f} TFLOP/s in {roof['dtype']}, measured in this run "
        f"({' x '.join(map(str, roof['size']))}); memory is copied at {setting['copied_bytes_per_s'] / 1e9:,.0f} GB/s"
    )
    click.echo("\n".join(["", *throughput.table(results)]))
    click.echo("\npeak memory: of the device on CUDA, of the whole process elsewhere")


def _write(path: str, setting: dict[str, Any], results: dict[str, Throughput]) -> None:
    import torch

    from gpu_select import __version__, jsonio, throughput
    from gpu_select.files import atomic_write

    versions = {"gpu_select": __version__, "torch": torch.__version__}
    measured = {log: throughput.as_dict(result) for log, result in results.items()}
    with atomic_write(path) as stream:
        stream.write(jsonio.dumps(versions | setting | {"results": measured}) + b"\n")


def _say(text: str) -> None:
    click.echo(text, err=True)
