"""Length-sorted batches under a token budget, and running them on a device that may run out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_select.encoder.backbone import Encoder
from gpu_select.encoder.packing import TokenBatch, pack
from gpu_select.encoder.tokens import Tokenized
from gpu_select.errors import ConfigError, DeviceError
from gpu_select.stages import StageTimes

__all__ = ["default_token_budget", "run_batches", "token_batches"]

_log = logging.getLogger("gpu_select")

_MOST_TEXTS_ON_CUDA = 65_535
"""Attention gives each text a place on an axis of its launch that ends here."""


def default_token_budget(device: torch.device) -> int:
    """Tokens a batch that keep a device of this kind busy."""
    return {"cpu": 2048, "cuda": 65_536}.get(device.type, 16_384)


def token_batches(
    lengths: NDArray[np.int64], token_budget: int, max_rows: int | None = None, *, padded: bool = False
) -> list[NDArray[np.int64]]:
    """Split texts into batches of similar length, the longest first, so that memory runs out early or never.

    Args:
        lengths: (N,) tokens a text.
        token_budget: most tokens of a batch; a longer text makes a batch of its own.
        max_rows: most texts in a batch.
        padded: whether every text of a batch counts as long as its longest.
    Returns:
        Index arrays that together hold each of 0..N-1 once. Equal lengths keep their order.
    Raises:
        ConfigError: a budget or row count under 1.
    """
    for field, value in (("token_budget", token_budget), ("batch_size", max_rows)):
        if value is not None and value < 1:
            raise ConfigError(field, value, "a whole number of at least 1")
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    end_N = np.cumsum(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        if padded:
            end = start + token_budget // max(1, int(lengths[order[start]]))
        else:
            before = end_N[start] - lengths[order[start]]
            end = int(np.searchsorted(end_N, before + token_budget, side="right"))
        end = max(end, start + 1)
        end = end if max_rows is None else min(end, start + max_rows)
        batches.append(order[start:end])
        start = end
    return batches


def run_batches(
    encoder: Encoder,
    tokenized: Tokenized,
    run: Callable[[TokenBatch, NDArray[np.int64]], None],
    *,
    tags_N: NDArray[np.int64] | None = None,
    token_budget: int | None = None,
    max_rows: int | None = None,
    times: StageTimes | None = None,
) -> None:
    """Hand each batch to `run` on the encoder's device, in smaller batches once memory runs out.

    Args:
        encoder: what `run` feeds.
        tokenized: N texts.
        run: called with a batch and its (B,) text numbers. A call that runs out of memory is repeated with fewer texts.
        tags_N: (N,) a number for each text, which comes with its batch.
        token_budget: tokens a batch; by default what suits the device.
        max_rows: texts a batch; None for as many as the budget allows.
        times: gets the time of the transfers.
    Raises:
        ConfigError: a budget or row count under 1.
        DeviceError: not even one text fits.
    """
    device, times = encoder.device, times or StageTimes()
    if token_budget is None:
        token_budget = default_token_budget(device)
    if encoder.deterministic and not encoder.takes_packed:
        max_rows = 1  # the shape of a padded batch hangs on its longest text
    if device.type == "cuda":
        max_rows = _MOST_TEXTS_ON_CUDA if max_rows is None else min(max_rows, _MOST_TEXTS_ON_CUDA)
    left = np.arange(len(tokenized))
    lengths = tokenized.lengths
    warned = False
    while len(left):
        failed = None
        split = token_batches(lengths[left], token_budget, max_rows, padded=not encoder.takes_packed)
        batches = [left[batch] for batch in split]
        for number, rows in enumerate(batches):
            try:
                with times.host("transfer"):
                    batch = pack(tokenized, rows, device, tags_N)
                run(batch, rows)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                failed = number
                break  # out of the handler: the exception's frames would keep the batch's tensors alive
        if failed is None:
            return
        rows = batches[failed]
        longest = int(lengths[rows].max())
        if len(rows) == 1:
            raise DeviceError(
                f"device {device}: out of memory on a single text of {longest} tokens;"
                " free memory on the device, or use another device or a smaller encoder"
            )
        _release_memory(device)
        # a batch that max_rows kept under the budget would only come back at half the budget
        token_budget = min(token_budget, len(rows) * longest) // 2
        if not warned:
            _log.warning("device %s: out of memory; going on with batches of %d tokens", device, token_budget)
            warned = True
        left = np.sort(np.concatenate(batches[failed:]))


def _is_out_of_memory(error: RuntimeError) -> bool:
    # MPS and the CPU allocator raise a plain RuntimeError
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
