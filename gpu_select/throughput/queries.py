"""Queries of chosen token lengths, cut out of the text at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpu_select import jsonio
from gpu_select.domains import WIRE_ORDER
from gpu_select.encoder import Tokenizer
from gpu_select.errors import ConfigError, InputError
from gpu_select.files import atomic_write

__all__ = ["Queries", "check_mean", "cut_queries", "write_log"]

_SIGMA = 0.6
"""Of the lengths' logarithm: the longest 5 % are 2.7 times as long as the median."""

_SHORTEST = 4
_LONGEST_OVER_MEAN = 8
_BATCH, _TRIAL = 16_384, 512
_FITS, _TOLERANCE = 6, 0.05
"""A text's end is moved so often at most, until its token length is off by no more than this share."""

_FAR = 1 << 40
_MAX_BARREN_BATCHES = 20


@dataclass(frozen=True, eq=False)
class Queries:
    """N different queries and their domains."""

    texts: list[str]
    domains: list[str]
    lengths: NDArray[np.int64]
    """(N,) tokens a query, special tokens included."""


def check_mean(tokenizer: Tokenizer, mean_tokens: int) -> None:
    """Refuse a mean length that the encoder cannot take.

    Raises:
        ConfigError: it is one.
    """
    limit = tokenizer.settings.max_length
    if not _SHORTEST <= mean_tokens <= limit:
        raise ConfigError("lengths", mean_tokens, f"{_SHORTEST} to {limit} tokens, which is what the encoder takes")


def cut_queries(
    corpus: Sequence[str], tokenizer: Tokenizer, n: int, mean_tokens: int, *, fixed: bool = False, seed: int = 0
) -> Queries:
    """Cut N different queries out of a corpus, whose lengths have a chosen mean (within 2 %).

    Lengths are log-normal between 4 tokens and 8 times the mean; the encoder's own limit cuts them, too.

    Args:
        corpus: texts, the longer the better.
        tokenizer: the encoder's, which lengths are counted with.
        n: queries wanted.
        mean_tokens: mean length, special tokens included.
        fixed: all lengths as near to the mean as can be, instead.
        seed: the same one gives the same queries.
    Raises:
        ConfigError: a mean that the encoder cannot take.
        InputError: the corpus is too small for so many different queries.
    """
    check_mean(tokenizer, mean_tokens)
    limit = tokenizer.settings.max_length
    rng = np.random.default_rng(seed)
    longest = limit if fixed else min(limit, _LONGEST_OVER_MEAN * mean_tokens)
    wanted_N = np.full(n, mean_tokens) if fixed else _lengths(rng, n, mean_tokens, longest)
    sample = [part for text in corpus[:64] for part in _parts(text[:4000])]
    chars_a_token = sum(map(len, sample)) / len(tokenizer.tokenize(sample).ids)
    # where white space is cut off, texts come out a little short: as many tokens more are wished for
    _, trial = _cut(corpus, tokenizer, wanted_N[:_TRIAL], chars_a_token, rng)
    scale = wanted_N[:_TRIAL].sum() / max(1, sum(trial))
    wanted_N = np.clip(np.floor(wanted_N * scale + rng.random(n)).astype(np.int64), 1, longest)
    texts: dict[str, int] = {}
    barren = 0
    while len(wanted_N):
        again = []
        cut = _cut(corpus, tokenizer, wanted_N[:_BATCH], chars_a_token, rng)
        for wanted, text, length in zip(wanted_N.tolist(), *cut, strict=False):
            if text and text not in texts:
                texts[text] = length
            else:
                again.append(wanted)
        barren = barren + 1 if len(again) > 0.99 * len(cut[0]) else 0
        if barren == _MAX_BARREN_BATCHES:
            have = len(texts)
            raise InputError(f"synthetic queries: the text at hand gives {have} different ones, {n} were asked for")
        wanted_N = np.concatenate([np.array(again, np.int64), wanted_N[_BATCH:]])
    domains = [WIRE_ORDER[i] for i in rng.integers(len(WIRE_ORDER), size=n)]
    return Queries(list(texts), domains, np.array(list(texts.values()), np.int64))


def write_log(path: str | Path, queries: Queries) -> None:
    """Write a JSONL log: query and domain.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as stream:
        for text, domain in zip(queries.texts, queries.domains, strict=True):
            stream.write(jsonio.dumps({"query": text, "domain": domain}) + b"\n")


def _parts(text: str) -> list[str]:
    return [text[start : start + 400] for start in range(0, len(text), 400)]


def _lengths(rng: np.random.Generator, n: int, mean: int, longest: int) -> NDArray[np.int64]:
    drawn = np.exp(_SIGMA * rng.standard_normal(n))
    scale = mean / drawn.mean()
    for _ in range(50):  # the bounds move the mean, and the scale moves it back
        lengths = np.clip(np.round(scale * drawn), _SHORTEST, longest)
        scale *= mean / lengths.mean()
    return np.asarray(lengths, np.int64)


def _cut(
    corpus: Sequence[str],
    tokenizer: Tokenizer,
    wanted_N: NDArray[np.int64],
    chars_a_token: float,
    rng: np.random.Generator,
) -> tuple[list[str], list[int]]:
    """A text of each length, as far as that can be, and the lengths that came out; some may be empty or equal."""
    sizes = np.array([len(text) for text in corpus], float)
    text_N = rng.choice(len(corpus), len(wanted_N), p=sizes / sizes.sum())
    chars_N = np.ceil(wanted_N * chars_a_token).astype(np.int64)
    room_N = np.maximum(sizes[text_N] - 2 * chars_N, 0)  # a text may need more characters than most
    start_N = (rng.random(len(wanted_N)) * room_N).astype(np.int64)
    starts = [_word_start(corpus[t], s) for t, s in zip(text_N.tolist(), start_N.tolist(), strict=True)]
    texts = [""] * len(wanted_N)
    lengths_N = np.full(len(wanted_N), _FAR)
    off = np.arange(len(wanted_N))
    for _ in range(_FITS):
        cut = [corpus[text_N[i]][starts[i] : starts[i] + chars_N[i]].strip() for i in off.tolist()]
        got = tokenizer.tokenize(cut).lengths
        error = wanted_N[off] - got
        for place in np.flatnonzero(np.abs(error) < np.abs(wanted_N[off] - lengths_N[off])).tolist():
            texts[off[place]], lengths_N[off[place]] = cut[place], got[place]
        step = error * chars_N[off] / got
        chars_N[off] = np.maximum(chars_N[off] + np.copysign(np.ceil(np.abs(step)), step).astype(np.int64), 1)
        off = off[np.abs(error) > _TOLERANCE * wanted_N[off]]
    return texts, lengths_N.tolist()


def _word_start(text: str, start: int) -> int:
    """The first place from `start` on where a line or word begins, unless it is far away."""
    if start == 0:
        return 0
    for end in ("\n", " "):
        place = text.find(end, start, start + 80)
        if place >= 0:
            return place + 1
    return start
