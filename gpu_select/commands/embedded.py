"""Records as a table and its features: what train and tune begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpu_select.commands import options

if TYPE_CHECKING:
    from torch import Tensor

    from gpu_select.encoder import Encoder
    from gpu_select.records import OutcomeTable, RecordCounts

__all__ = ["EmbeddedRecords", "embed_records"]


@dataclass(frozen=True, eq=False)
class EmbeddedRecords:
    """Outcomes, and the features of their queries on the device."""

    table: OutcomeTable
    counts: RecordCounts
    encoder: Encoder
    features_QD: Tensor


def embed_records(
    data_file: str,
    *,
    embedding_model: str,
    cache_dir: str | None,
    device: str,
    dtype: Any,
    batch_size: int | None = None,
    limit: int | None = None,
    strict: bool = False,
    check: Callable[[Encoder, OutcomeTable], object] | None = None,
) -> EmbeddedRecords:
    """Read benchmark records, warn of what is odd in them, and, if `check` raises nothing, embed their queries."""
    import torch

    from gpu_select.encoder import embed, load_encoder, resolve_device
    from gpu_select.features import build_features
    from gpu_select.records import read_outcomes

    target = resolve_device(device)
    table, counts = read_outcomes(data_file, strict=strict, limit=limit)
    for text in counts.warnings(data_file):
        options.warn(text)
    encoder = load_encoder(embedding_model, device=target, dtype=dtype)
    if check is not None:
        check(encoder, table)
    with (
        options.open_cache(cache_dir, encoder) as cache,
        options.progress_bar("embedding", "query", len(table.queries)) as bar,
    ):
        embedded = embed(encoder, table.queries, batch_size=batch_size, cache=cache, progress=bar.update)
    if embedded.n_truncated:
        options.warn(f"{embedded.n_truncated} queries are longer than the encoder takes and were truncated")
    features_QD = build_features(embedded.vectors, torch.from_numpy(table.domain_indices()))
    return EmbeddedRecords(table, counts, encoder, features_QD.to(target))
