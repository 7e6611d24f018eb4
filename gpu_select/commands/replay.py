"""`gpu-select replay`: what other policies would do to a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from torch import Tensor

    from gpu_select.artifacts import Artifact
    from gpu_select.encoder import Encoder
    from gpu_select.records import OutcomeTable
    from gpu_select.replay import Costs, Replay, ReplayedLog

__all__ = ["command", "replay"]

_WRITE_ROWS = 8192
_FORMATS = click.Choice(["jsonl", "csv", "tsv", "txt", "parquet"])


def _max_share(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, float]:
    shares = {}
    for value in values:
        model, equals, percent = value.rpartition("=")  # a model's name may hold one
        try:
            share = float(percent.removesuffix("%"))
        except ValueError:
            share = float("nan")
        if not (equals and model) or share != share or model in shares:
            raise click.BadParameter(f"expected MODEL=PERCENT, each model once, got {value!r}", ctx, param)
        shares[model] = share
    return shares


@click.command(name="replay")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@options.data_file
@click.option("--models-dir", required=True, metavar="DIR", help="Folder of selector files.")
@click.option("--models-config", metavar="FILE", help="models.yaml with prices.")
@click.option("--candidates", callback=options.names, metavar="A,B", help="Models to choose from.  [default: all]")
@click.option("--budget", type=float, metavar="USD", help="Most that the whole log may cost.")
@click.option("--budget-per-1000", type=float, metavar="USD", help="Most that 1,000 rows may cost.")
@click.option(
    "--max-share", multiple=True, callback=_max_share, metavar="MODEL=PERCENT", help="Most rows of a model; repeatable."
)
@click.option(
    "--quality-weight", type=float, metavar="W", help="Against speed, as for train, in what is maximised.  [default: 1]"
)
@click.option("--algorithm", type=click.Choice(["knn", "kmeans", "svm", "mlp"]), help="Selector to show in detail.")
@click.option("--query-field", default="query", show_default=True, metavar="NAME")
@click.option("--domain-field", metavar="NAME", help="[default: domain, else category]")
@click.option("--model-field", metavar="NAME", help="The model that answered.  [default: model, else model_name]")
@click.option("--input-format", type=_FORMATS, help="Where the name does not tell.")
@options.embedding_model(None)
@options.cache_dir(".cache/")
@options.device
@click.option("--json", "json_path", metavar="OUT", help="Write everything as JSON, for `gpu-select report`.")
@click.option("--policy-output", metavar="OUT", help="Write row and model of the choices within the limits.")
def command(**settings: Any) -> None:
    """Say what other policies would do to a log: share, cost and expected quality of each model.

    LOG is a file, a pattern or a folder, as for route; the rows of several are one log. It needs no outcomes. Benchmark
    records of the same models (--data-file, such as those of the training) tell what each model is expected to score,
    take and write on each query. The policies: what the log did, the selectors of --models-dir as they are, each model
    alone, and the best expected choices, also within --budget and --max-share. A sweep of the quality weight shows
    everything between the cheapest or fastest choices and the best.

    Expected quality is a mean over many queries alike. Where the log has outcomes, they are set against it.
    """
    replay(**settings)


def replay(
    *,
    logs: Sequence[str],
    data_file: str,
    models_dir: str,
    models_config: str | None = None,
    candidates: list[str] | None = None,
    budget: float | None = None,
    budget_per_1000: float | None = None,
    max_share: Mapping[str, float] | None = None,
    quality_weight: float | None = None,
    algorithm: str | None = None,
    query_field: str = "query",
    domain_field: str | None = None,
    model_field: str | None = None,
    input_format: str | None = None,
    embedding_model: str | None = None,
    cache_dir: str | None = None,
    device: str = "auto",
    dtype: Any = "auto",
    json_path: str | None = None,
    policy_output: str | None = None,
) -> None:
    """Read records and log, embed each once, let all policies choose, print and write."""
    from gpu_select import jsonio, pipeline
    from gpu_select import replay as replaying
    from gpu_select.artifacts import find_selector_files, load_selector
    from gpu_select.commands.embedded import embed_records
    from gpu_select.commands.replay_tables import print_replay
    from gpu_select.config import read_models
    from gpu_select.encoder import resolve_device
    from gpu_select.errors import ConfigError, DataError
    from gpu_select.files import atomic_write
    from gpu_select.logs import find_logs, open_logs
    from gpu_select.records import with_prices
    from gpu_select.replay.outcomes import MODEL_FIELDS
    from gpu_select.router import DEFAULT_ENCODER
    from gpu_select.training.utility import speed_scale

    if candidates is not None and not 0 < len(set(candidates)) == len(candidates):
        raise ConfigError("candidates", ",".join(candidates), "names of models with commas between, each once")
    limits = None
    if budget is not None or budget_per_1000 is not None or max_share or quality_weight is not None:
        weight = 1.0 if quality_weight is None else quality_weight
        limits = replaying.Limits(weight, budget, budget_per_1000, max_share or {})
    elif policy_output is not None:
        raise click.UsageError(
            "--policy-output writes the choices within limits: give it with --budget, --budget-per-1000, --max-share "
            "or --quality-weight (what a selector chooses is what `gpu-select route` writes)"
        )
    log, log_files = ", ".join(logs), find_logs(logs, input_format)
    _check_outputs(json_path, policy_output, [path for path in (*log_files, data_file, models_config) if path])
    target = resolve_device(device)
    prices = {}
    if models_config is not None:
        prices = {m.name: (m.input_price_usd, m.output_price_usd) for m in read_models(models_config)}
    files = find_selector_files(models_dir)
    if algorithm is not None and algorithm not in files:
        raise ConfigError("algorithm", algorithm, f"one of {', '.join(files)}, which {models_dir} has")
    artifacts = {name: load_selector(path, algorithm=name, device=target) for name, path in files.items()}
    selectors: dict[str, Callable[[Tensor], Tensor]] = {}

    def check(encoder: Encoder, table: OutcomeTable) -> None:
        if len(table.queries) < 2:
            raise DataError(f"{data_file}: expected records of two queries at least, got one")
        for name in candidates or ():
            if name not in table.models:
                raise ConfigError("candidates", name, f"models of {data_file}: {', '.join(table.models)}")
        selectors.update({name: _choices_of(a, encoder, table, candidates, data_file) for name, a in artifacts.items()})

    fields = (("query-field", query_field), ("domain-field", domain_field), ("model-field", model_field))
    needed = [(option, name) for option, name in fields if name is not None]
    with open_logs(log_files, format=input_format, needed=needed) as reader:
        named = next((a.encoder_name for a in artifacts.values() if a.encoder_name), DEFAULT_ENCODER)
        records = embed_records(
            data_file,
            embedding_model=embedding_model or named,
            cache_dir=cache_dir,
            device=device,
            dtype=dtype,
            check=check,
        )
        table, encoder = with_prices(records.table, prices), records.encoder
        expected = replaying.ExpectedOutcomes(records.features_QD, table)
        costs = replaying.Costs.of(table, prices, encoder.tokenizer.count)
        with options.open_cache(cache_dir, encoder) as cache, options.progress_bar("replaying", "row") as bar:
            replayed = replaying.read_replayed(
                log,
                reader.windows(pipeline.WINDOW_ROWS),
                encoder,
                expected,
                costs,
                prices,
                selectors,
                head=_domain_head(models_dir, encoder),
                cache=cache,
                query_field=query_field,
                domain_fields=pipeline.DOMAIN_FIELDS if domain_field is None else (domain_field,),
                model_fields=MODEL_FIELDS if model_field is None else (model_field,),
                progress=bar.update,
            )
    _warn(replayed, costs, log, data_file, model_field, has_prices=models_config is not None)
    found = replaying.replay(
        replayed,
        expected.check,
        candidates=candidates or table.models,
        speed_scale=speed_scale(table),
        limits=limits,
    )
    print_replay(found, costs, log, data_file, len(table.queries), shown=algorithm)
    if json_path is not None:
        document = found.document(
            log_file=log, data_file=data_file, encoder=encoder.name, record_queries=len(table.queries)
        )
        with atomic_write(json_path) as stream:
            stream.write(jsonio.dumps(document) + b"\n")
    if policy_output is not None:
        _write_policy(found, policy_output)


def _check_outputs(json_path: str | None, policy_output: str | None, inputs: Sequence[str]) -> None:
    """Before minutes of work rather than after them."""
    import os

    from gpu_select.errors import ConfigError, OutputError
    from gpu_select.files import STDIO, check_target
    from gpu_select.logs.formats import log_format

    taken = {os.path.realpath(path) for path in inputs}
    for option, path in (("json", json_path), ("policy-output", policy_output)):
        if path is None:
            continue
        if path == STDIO:
            raise ConfigError(option, path, "a file, as the tables go to standard output")
        check_target(path)
        if os.path.realpath(path) in taken:
            raise ConfigError(option, path, "a file that nothing else is read from or written to")
        taken.add(os.path.realpath(path))
    if policy_output is not None:
        log_format(policy_output, None, OutputError)


def _choices_of(
    artifact: Artifact, encoder: Encoder, table: OutcomeTable, candidates: list[str] | None, data_file: str
) -> Callable[[Tensor], Tensor]:
    """What gives a selector's choices as columns of the table, after a check that it belongs to encoder and records."""
    import torch

    from gpu_select.errors import DataError
    from gpu_select.features import check_width
    from gpu_select.selectors import choose

    selector = artifact.selector
    artifact.check_encoder(encoder.name, encoder.fingerprint)
    check_width(selector.dim, encoder.dim, artifact.path)
    chosen_from = [name for name in selector.models if candidates is None or name in candidates]
    if not chosen_from:
        raise DataError(f"{artifact.path}: chooses among {', '.join(selector.models)}, and none is a candidate")
    missing = [name for name in chosen_from if name not in table.models]
    if missing:
        raise DataError(
            f"{data_file}: expected outcomes of all models of {artifact.path}, got none of {', '.join(missing)}; "
            f"give records that have them, or leave them out with --candidates"
        )
    mask_M = selector.candidate_mask(chosen_from)
    places = [table.models.index(name) if name in chosen_from else -1 for name in selector.models]
    place_M = torch.tensor(places, device=selector.device)
    return lambda features_BD: place_M[choose(selector(features_BD, mask_M)).model]


def _domain_head(models_dir: str, encoder: Encoder) -> Any:
    """The folder's domain head on the encoder's device, None where there is none."""
    from pathlib import Path

    from gpu_select.artifacts import check_encoder
    from gpu_select.domain_file import DOMAIN_FILE, read_domain_file
    from gpu_select.domain_head import DomainHead

    path = Path(models_dir) / DOMAIN_FILE
    if not path.exists():
        return None
    document = read_domain_file(path)
    check_encoder(path, document.own, encoder.name, encoder.fingerprint)
    return DomainHead(document).to(encoder.device)


def _warn(
    replayed: ReplayedLog, costs: Costs, log: str, data_file: str, model_field: str | None, *, has_prices: bool
) -> None:
    """A line for each thing that a user should know before believing the figures."""
    counts, n_rows = replayed.counts, len(replayed.domain_Q)
    if model_field is not None and not (counts.unknown_models or bool((replayed.logged_Q >= 0).any())):
        options.warn(f"{log}: no row names a model in {model_field}: nothing is known of what the log did")
    if counts.errors:
        options.warn(f"{log}: {counts.errors} of {counts.rows} rows are left out: {counts.first_error}")
    if counts.truncated:
        options.warn(f"{log}: {counts.truncated} queries are longer than the encoder takes and were truncated")
    if counts.without_domain:
        options.warn(
            f"{log}: {counts.without_domain} of {n_rows} rows have no domain: selectors take it for 'other', as route "
            f"does; expectations by the domain that is predicted, where the folder has a domain head"
        )
    if counts.odd:
        options.warn(f"{log}: {counts.odd} rows have a value that counts as unknown: {counts.first_odd}")
    if counts.unknown_models:
        named = ", ".join(f"{name} ({n})" for name, n in counts.unknown_models.most_common(3))
        more = f" and {len(counts.unknown_models) - 3} more" if len(counts.unknown_models) > 3 else ""
        options.warn(f"{log}: rows of models that {data_file} does not have count as unanswered: {named}{more}")
    if costs.unknown and (has_prices or len(costs.unknown) < len(replayed.models)):
        listed = "; ".join(f"{name}: {why}" for name, why in list(costs.unknown.items())[:5])
        more = f"; and {len(costs.unknown) - 5} more" if len(costs.unknown) > 5 else ""
        options.warn(f"no cost where these models are chosen: {listed}{more}")


def _write_policy(found: Replay, path: str) -> None:
    """One row for every row of the log, in order: its number, and the model; rows without a query have an error."""
    from gpu_select.logs import open_writer

    assert found.limited is not None
    replayed = found.log
    model_of = dict(zip(replayed.row_Q.tolist(), found.limited.choice_Q.tolist(), strict=True))
    with open_writer(path, columns=["row"], result_fields=("model", "error")) as out:
        for first in range(0, replayed.counts.rows, _WRITE_ROWS):
            numbers = range(first, min(first + _WRITE_ROWS, replayed.counts.rows))
            places = [(row, model_of.get(row)) for row in numbers]
            out.write(
                [
                    {"row": row, "model": None, "error": "the row has no query"}
                    if place is None
                    else {"row": row, "model": replayed.models[place], "error": None}
                    for row, place in places
                ]
            )
