"""Texts to token ids, as sentence-transformers would cut them, in flat arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpu_select.encoder.settings import EncoderSettings
from gpu_select.errors import EncoderError

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenized", "Tokenizer", "check_texts"]

_CHARS_PER_TOKEN = 32
"""First cut of a long text, times max_length: real text has 3 to 5 characters a token."""

_MAX_CHARS = 4 * 2**20
"""Second cut, for the rare text that has fewer than max_length tokens in its first part (long runs of spaces)."""

_CHUNK_TEXTS, _CHUNK_CHARS = 2048, 2 * 2**20
"""Texts handed to the tokenizer at once. Its encodings take some 100 bytes a token, ours 4."""


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Token ids of N texts, end to end in one array."""

    ids: NDArray[np.int32]
    """(total,) ids of all texts, special tokens included."""
    offsets: NDArray[np.int64]
    """(N + 1,): text i is ids[offsets[i]:offsets[i + 1]], at least one token."""
    truncated: NDArray[np.bool_]
    """(N,): whether the text had more tokens than the encoder takes."""

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens a text."""
        return np.diff(self.offsets)

    @property
    def n_truncated(self) -> int:
        """Texts that were cut."""
        return int(self.truncated.sum())


class Tokenizer:
    """Prefix, tokenizer and length limit of one encoder."""

    def __init__(
        self, backend: tokenizers.Tokenizer, settings: EncoderSettings, *, pad_id: int, truncation_side: str = "right"
    ) -> None:
        """Take over a tokenizer of the package tokenizers; its own padding and truncation are replaced.

        Raises:
            EncoderError: the limit leaves no room beside the special tokens.
        """
        special = backend.num_special_tokens_to_add(False)
        if settings.max_length <= special:
            raise EncoderError(
                f"max_length: expected more than the {special} special tokens of every text, got {settings.max_length}"
            )
        if settings.lowercase:
            _prepend_lowercase(backend)
        backend.no_padding()
        backend.enable_truncation(settings.max_length, direction=truncation_side)
        self._special = special
        self._backend = backend
        self.settings = settings
        self.pad_id = pad_id

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary, special tokens included."""
        return int(self._backend.get_vocab_size())

    def to_json(self) -> str:
        """The tokenizer as the package tokenizers reads it, which then cuts and pads as the encoder wants it.

        The prefix is not in it.
        """
        copy = type(self._backend).from_str(self._backend.to_str())
        copy.enable_padding(pad_id=self.pad_id, pad_token=copy.id_to_token(self.pad_id) or "")
        return str(copy.to_str())

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text: prefix, special tokens, cut to max_length tokens.

        A text far beyond the limit is first cut to 32 characters a token (and, only if that gives fewer tokens than the
        limit, to 4 Mi characters), so that its size costs nothing; the ids are those of the whole text all the same,
        unless it has over 4 Mi characters and fewer tokens in them than the limit. Lone surrogates become U+FFFD.

        Args:
            texts: N texts.
        Raises:
            EncoderError: something else than a list of str.
        """
        check_texts(texts)
        ids: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        truncated: list[bool] = []
        first_cut = min(self.settings.max_length * _CHARS_PER_TOKEN, _MAX_CHARS)
        for chunk in _chunks(texts, first_cut):
            encodings = self._encode(chunk, first_cut)
            short = [
                i
                for i, (text, (_, cut)) in enumerate(zip(chunk, encodings, strict=True))
                if len(text) > first_cut and not cut
            ]
            for i in short:
                row, cut = self._encode([chunk[i]], _MAX_CHARS)[0]
                encodings[i] = row, cut or len(chunk[i]) > _MAX_CHARS
            rows = [
                row or [self.pad_id] for row, _ in encodings
            ]  # a tokenizer without special tokens, and an empty text
            lengths += map(len, rows)
            truncated += [cut for _, cut in encodings]
            ids.append(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32))
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        flat = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
        return Tokenized(flat, offsets, np.array(truncated, dtype=np.bool_))

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(N,) tokens of each whole text, of up to 4 Mi characters: without prefix, special tokens and the cut.

        Raises:
            EncoderError: something else than a list of str.
        """
        check_texts(texts)
        counts: list[int] = []
        for chunk in _chunks(texts, _MAX_CHARS):
            encodings = self._backend.encode_batch_fast([_well_formed(text[:_MAX_CHARS]) for text in chunk])
            counts += [sum(len(part) - self._special for part in (e, *e.overflowing)) for e in encodings]
        return np.array(counts, dtype=np.int64)

    def _encode(self, texts: Sequence[str], max_chars: int) -> list[tuple[list[int], bool]]:
        cleaned = [_well_formed(self.settings.prefix + text[:max_chars]) for text in texts]
        encodings = self._backend.encode_batch_fast(cleaned)
        limit = self.settings.max_length
        return [(encoding.ids, len(encoding) == limit and bool(encoding.overflowing)) for encoding in encodings]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts, one str above all, whose characters would pass for texts.

    Raises:
        EncoderError: a str, or an entry that is none.
    """
    if isinstance(texts, str):
        raise EncoderError("texts: expected a list of str, got one str")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise EncoderError(f"texts[{number}]: expected str, got {type(text).__name__}")


def _chunks(texts: Sequence[str], max_chars: int) -> Iterator[Sequence[str]]:
    start = chars = 0
    for end, text in enumerate(texts):
        size = min(len(text), max_chars)
        if end > start and (end - start == _CHUNK_TEXTS or chars + size > _CHUNK_CHARS):
            yield texts[start:end]
            start, chars = end, 0
        chars += size
    if start < len(texts):
        yield texts[start:]


def _well_formed(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _prepend_lowercase(backend: tokenizers.Tokenizer) -> None:
    from tokenizers import normalizers

    present = backend.normalizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([present] if present is not None else [])])
