"""`gpu-select validate`: trained selectors against baselines on held-out records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    import torch

    from gpu_select.evaluation import Comparison, Selection, Strategy, Validation
    from gpu_select.records import OutcomeTable
    from gpu_select.router import Router

__all__ = ["command", "validate"]

_BLOCK_ROWS = 8192
_NAME_WIDTH = 31
_SHOWN_MODELS = 5


@click.command(name="validate")
@options.data_file
@click.option("--models-dir", required=True, metavar="DIR", help="Folder of selector files.")
@options.embedding_model(None)
@options.cache_dir(".cache/")
@options.device
@click.option("--models-config", metavar="FILE", help="models.yaml with prices: what records with token counts cost.")
@click.option(
    "--keep-training-queries", is_flag=True, help="Judge by queries that were in training, too; flatters selectors."
)
@click.option("--json", "json_path", metavar="OUT", help="Write everything as JSON, for `gpu-select report`.")
@click.option("--strict", is_flag=True, help="Stop at the first bad record instead of leaving it out.")
def command(**settings: Any) -> None:
    """Compare trained selectors with an oracle, single models, a table by domain and chance.

    A strategy's quality is the mean performance of the models it chooses, with a 95 % bootstrap interval. Queries that
    the selectors were trained on are left out, where the files tell.
    """
    validate(**settings)


def validate(
    *,
    data_file: str,
    models_dir: str,
    embedding_model: str | None,
    cache_dir: str | None,
    device: str,
    dtype: Any,
    json_path: str | None,
    strict: bool,
    models_config: str | None = None,
    keep_training_queries: bool = False,
) -> None:
    """Embed once, decide with every selector of the folder, print the table."""
    from gpu_select import evaluation, jsonio
    from gpu_select.artifacts import find_selector_files, load_selector
    from gpu_select.config import read_models
    from gpu_select.encoder import embed, load_encoder, resolve_device
    from gpu_select.features import build_features
    from gpu_select.files import atomic_write
    from gpu_select.records import read_outcomes, with_prices
    from gpu_select.router import DEFAULT_ENCODER, Router

    target = resolve_device(device)
    prices = {} if models_config is None else {m.name: m for m in read_models(models_config)}
    files = find_selector_files(models_dir)
    artifacts = {name: load_selector(path, algorithm=name, device=target) for name, path in files.items()}
    table, counts = read_outcomes(data_file, strict=strict)
    for text in counts.warnings(data_file):
        options.warn(text)
    table, left_out, is_checked = _without_training_queries(
        table, artifacts.values(), data_file, keep=keep_training_queries
    )
    table = with_prices(table, {name: (m.input_price_usd, m.output_price_usd) for name, m in prices.items()})
    if models_config is not None:
        _warn_of_unknown_costs(table, prices, data_file, models_config)
    named = next((a.encoder_name for a in artifacts.values() if a.encoder_name), DEFAULT_ENCODER)
    encoder = load_encoder(embedding_model or named, device=target, dtype=dtype)
    routers = {name: Router.of(encoder, artifact) for name, artifact in artifacts.items()}
    candidates = {name: _candidates(router, table, data_file, files[name]) for name, router in routers.items()}
    for name, router in routers.items():
        if missing := [model for model in router.models if model not in candidates[name]]:
            text = f"{name}: no outcomes of {_listed(missing)} in {data_file}; it chooses among the others"
            options.warn(text)

    import torch

    with (
        options.open_cache(cache_dir, encoder) as cache,
        options.progress_bar("embedding", "query", len(table.queries)) as bar,
    ):
        embedded = embed(encoder, table.queries, cache=cache, progress=bar.update)
    if embedded.n_truncated:
        options.warn(f"{embedded.n_truncated} queries are longer than the encoder takes and were truncated")
    features_QD = build_features(embedded.vectors, torch.from_numpy(table.domain_indices()))
    selections = {name: _select(router, features_QD, candidates[name], table) for name, router in routers.items()}
    lookup = next((a.own["domain_models"] for a in artifacts.values() if "domain_models" in a.own), None)
    domain_models = {str(k): str(v) for k, v in lookup.items()} if isinstance(lookup, dict) else None
    found = evaluation.validate(table, selections, domain_models=domain_models)
    _print_table(found)
    _print_notes(found, list(selections), from_training=domain_models is not None, is_checked=is_checked)
    if json_path is not None:
        document = found.document(data_file=data_file, encoder=encoder.name, left_out=left_out)
        with atomic_write(json_path) as stream:
            stream.write(jsonio.dumps(document) + b"\n")


def _without_training_queries(
    table: OutcomeTable, artifacts: Any, data_file: str, *, keep: bool
) -> tuple[OutcomeTable, list[str], bool]:
    """The table without queries that any file was trained on, their texts, and whether the files tell at all."""
    import numpy as np

    from gpu_select.errors import DataError, FileFormatError, brief
    from gpu_select.records import query_digests, unpack_digests

    parts = []
    for artifact in artifacts:
        data = artifact.own.get("data")
        packed = data.get("query_digests") if isinstance(data, dict) else None
        if packed is None:
            continue
        try:
            parts.append(unpack_digests(packed))
        except ValueError as error:
            where = "gpu_select.data.query_digests"
            raise FileFormatError(artifact.path, where, "what train writes there", brief(packed)) from error
    if not parts:
        return table, [], False
    seen_Q = np.isin(query_digests(table.queries), np.concatenate(parts))
    seen = [table.queries[q] for q in np.flatnonzero(seen_Q)]
    if not seen:
        return table, [], True
    text = f"{len(seen)} of {len(table.queries)} queries were in training, such as {brief(seen[0], 60)}"
    if keep:
        options.warn(f"{data_file}: {text}; they are kept, and flatter the selectors")
        return table, [], True
    if len(seen) == len(table.queries):
        raise DataError(
            f"{data_file}: all {len(seen)} queries were in training; validate on queries that were held out "
            f"(or, to see how well training is remembered, use --keep-training-queries)"
        )
    options.warn(f"{data_file}: {text}; they are left out (--keep-training-queries keeps them)")
    return table.take(np.flatnonzero(~seen_Q)), seen, True


def _warn_of_unknown_costs(table: OutcomeTable, prices: Mapping[str, Any], data_file: str, path: str) -> None:
    """One line if costs stay unknown although there is a file of prices."""
    import numpy as np

    known_M = np.zeros(len(table.models), bool)
    if table.cost_usd_QM is not None:
        known_M |= np.isfinite(table.cost_usd_QM).any(axis=0)
    unknown = [model for model, known in zip(table.models, known_M, strict=True) if not known]
    if not unknown:
        return
    unpriced = [
        model
        for model in unknown
        if model not in prices or None in (prices[model].input_price_usd, prices[model].output_price_usd)
    ]
    if unpriced:
        why = f"{path} has no prices of {_listed(unpriced)} (0 and 0 for a model that costs nothing)"
    else:
        why = f"{data_file} has neither cost nor input_tokens and output_tokens of {_listed(unknown)}"
    options.warn(f"no cost where these models are chosen: {why}")


def _candidates(router: Router, table: OutcomeTable, data_file: str, path: Any) -> list[str]:
    """The selector's models that the table has a column of."""
    from gpu_select.errors import DataError

    known = [model for model in router.models if model in table.models]
    if not known:
        raise DataError(
            f"{data_file}: expected outcomes of {', '.join(router.models)}, the models of {path}, "
            f"got {', '.join(table.models)}"
        )
    return known


def _select(router: Router, features_QD: torch.Tensor, candidates: list[str], table: OutcomeTable) -> Selection:
    """Choices, margins and scores of one selector, by the columns of the table."""
    import numpy as np
    import torch

    from gpu_select.evaluation import Selection
    from gpu_select.selectors import choose

    selector = router.selector
    mask = selector.candidate_mask(candidates)
    parts = []
    with torch.inference_mode():
        for block in torch.split(features_QD, _BLOCK_ROWS):
            scores = selector(block.to(selector.device), mask)
            choice = choose(scores)
            parts.append([x.cpu().numpy() for x in (scores, choice.model, choice.margin)])
    scores_QF, model_Q, margin_Q = (np.concatenate(column) for column in zip(*parts, strict=True))
    scores_QM = np.full((len(scores_QF), len(table.models)), -np.inf, dtype=np.float32)
    # a model of the selector without a column is no candidate, and so is never chosen
    column_F = np.array([table.models.index(model) if model in candidates else -1 for model in selector.models])
    scores_QM[:, column_F[column_F >= 0]] = scores_QF[:, column_F >= 0]
    return Selection(column_F[model_Q], margin_Q, scores_QM)


def _print_table(found: Validation) -> None:
    """One line a strategy, at most 120 characters wide."""
    strategies = found.strategies
    width = min(_NAME_WIDTH, max(len(s.name) for s in strategies))
    with_cost = any(s.mean_cost_usd is not None for s in strategies)
    click.echo(f"{len(found.table.queries)} queries x {len(found.table.models)} models")
    cost_title = f"{'$/1000':>9}" if with_cost else ""
    click.echo(
        f"{'strategy':{width}}  quality  95 % interval   latency{cost_title}    best  {'vs best single':27}   of gap"
    )
    for s in strategies:
        latency = "-" if s.mean_latency_s is None else f"{s.mean_latency_s:.2f}s"
        cost = "-" if s.mean_cost_usd is None else f"{1000 * s.mean_cost_usd:.4g}"
        gap = "-" if s.gap_share is None else f"{s.gap_share:.1%}"
        name = s.name if len(s.name) <= width else s.name[: width - 3] + "..."
        click.echo(
            f"{name:{width}}  {s.mean_quality:7.4f}  {s.ci95[0]:.4f}-{s.ci95[1]:.4f}  {latency:>8}"
            f"{f'{cost:>9}' if with_cost else ''}  {s.best_rate:6.1%}  {_gain(found, s):27}  {gap:>7}"
        )


def _gain(found: Validation, strategy: Strategy) -> str:
    if strategy.name == found.best_single:
        return "-"
    versus = found.difference(strategy.name, found.best_single)
    if versus is None:
        return f"{strategy.gain_over_best_single:+.4f}"
    return f"{versus.difference:+.4f} [{versus.ci95[0]:+.4f}, {versus.ci95[1]:+.4f}]"


def _print_notes(found: Validation, selectors: list[str], *, from_training: bool, is_checked: bool) -> None:
    """What the comparisons that matter say, and what the rows of the table mean."""
    for name in selectors:
        versus = [found.difference(name, other) for other in (found.best_single, "per-domain")]
        click.echo(f"{name}: " + "; ".join(_verdict(comparison) for comparison in versus if comparison is not None))
    source = "the training data" if from_training else "the other queries of this file"
    click.echo("best: how often the choice is a best model; of gap: how far from best single model to oracle")
    click.echo(f"per-domain: the best model of each domain on {source}; random: its expectation")
    if not is_checked:
        click.echo("the files do not name their training queries: whether some are among these cannot be checked")
    partly = [s for s in found.strategies if s.n_scored < len(found.table.queries)]
    if partly:
        listed = ", ".join(f"{s.name} {s.n_scored}" for s in partly)
        click.echo(f"scored on fewer queries, as outcomes are missing: {listed}")


def _verdict(comparison: Comparison) -> str:
    if not comparison.is_significant:
        return f"not distinguishable from {comparison.b} ({comparison.difference:+.4f})"
    word = "better" if comparison.difference > 0 else "worse"
    low, high = comparison.ci95
    return f"{word} than {comparison.b} by {abs(comparison.difference):.4f} [{low:+.4f}, {high:+.4f}]"


def _listed(names: list[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    return ", ".join(names[:_SHOWN_MODELS]) + more
