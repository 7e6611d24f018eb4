from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.encoder import EmbeddingCache, Encoder, TokenBatch, embed, embedding, load_encoder
from gpu_select.errors import ConfigError, EncoderError


@pytest.fixture
def counted(tiny_encoder_path: Path) -> Counted:
    return Counted(load_encoder(str(tiny_encoder_path)))


class Counted:
    """An encoder that notes the lengths of the texts of every batch."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.batches: list[list[int]] = []
        self.fits = 10**9
        self._encode = encoder.encode
        encoder.encode = self.encode  # type: ignore[method-assign]

    def encode(self, batch: TokenBatch, *rest: Any, **options: Any) -> torch.Tensor:
        if len(batch.ids_T) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(batch.lengths.tolist())
        return self._encode(batch, *rest, **options)


def cache_of(encoder: Encoder, folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, encoder.fingerprint, "float32", encoder.dim)


@settings(max_examples=8)
@given(st.permutations(["x", "what is the capital", "solve " * 20, "", "fever", "x", "a linked list of words", "x"]))
def test_vectors_come_in_the_order_of_the_texts(tiny_encoder: Encoder, texts: list[str]) -> None:
    embedded = embed(tiny_encoder, texts, token_budget=40, batch_size=2)
    assert (embedded.vectors.shape, embedded.vectors.dtype) == ((8, 32), torch.float32)
    assert embedded.vectors.device == torch.device("cpu")
    torch.testing.assert_close(embedded.vectors.norm(dim=1), torch.ones(8))
    for text, vector in zip(texts, embedded.vectors, strict=True):
        torch.testing.assert_close(vector, embed(tiny_encoder, [text]).vectors[0], atol=1e-5, rtol=0)


def test_identical_texts_are_embedded_once(counted: Counted) -> None:
    embedded = embed(counted.encoder, ["a b", "c", "a b", "a b"])
    assert counted.batches == [[4, 3]]
    assert embedded.n_tokens == 7
    assert embedded.vectors[0].equal(embedded.vectors[2])


def test_budget_and_batch_size(counted: Counted) -> None:
    texts = [f"{word} x" for word in "abcdefgh"]  # four tokens each
    embed(counted.encoder, texts, token_budget=12)
    embed(counted.encoder, texts, batch_size=2)
    assert counted.batches == [[4] * 3, [4] * 3, [4] * 2] + [[4] * 2] * 4
    with pytest.raises(ConfigError, match="token_budget: expected a whole number of at least 1, got 0"):
        embed(counted.encoder, texts, token_budget=0)
    with pytest.raises(ConfigError, match="batch_size: expected a whole number of at least 1, got -1"):
        embed(counted.encoder, texts, batch_size=-1)


def test_out_of_memory_changes_nothing_but_the_batches(
    counted: Counted, tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"word {i} of several " * (1 + i % 5) for i in range(60)]
    counted.fits = 200
    seen: list[int] = []
    embedded = embed(counted.encoder, texts, token_budget=2000, progress=seen.append)
    assert max(map(sum, counted.batches)) <= 200
    torch.testing.assert_close(embedded.vectors, embed(tiny_encoder, texts).vectors, atol=1e-5, rtol=0)
    assert sum(seen) == 60
    assert len(caplog.records) == 1


def test_counts(tiny_encoder: Encoder) -> None:
    limit = tiny_encoder.settings.max_length
    embedded = embed(tiny_encoder, ["x " * 100, "y", "x " * 100])
    assert embedded.n_tokens == limit + 3
    assert (embedded.n_truncated, embedded.n_cached) == (2, 0)


def test_no_texts(tiny_encoder: Encoder, tmp_path: Path) -> None:
    for cache in (None, cache_of(tiny_encoder, tmp_path)):
        embedded = embed(tiny_encoder, [], cache=cache)
        assert embedded.vectors.shape == (0, 32)
        assert (embedded.n_tokens, embedded.n_truncated, embedded.n_cached) == (0, 0, 0)


def test_cached_texts_are_not_embedded_again(counted: Counted, tmp_path: Path) -> None:
    with cache_of(counted.encoder, tmp_path) as cache:
        first = embed(counted.encoder, ["a b", "c"], cache=cache)
    assert first.n_cached == 0
    counted.batches.clear()
    seen: list[int] = []
    with cache_of(counted.encoder, tmp_path) as cache:
        again = embed(counted.encoder, ["c", "new", "c", "a b"], cache=cache, progress=seen.append)
    assert counted.batches == [[5]]  # "new" alone
    assert again.n_cached == 3
    assert again.n_tokens == 5
    assert again.vectors[[3, 0]].equal(first.vectors)
    assert seen == [3, 1]


def test_a_changed_model_gets_no_old_vector(
    counted: Counted, tiny_qwen3: Encoder, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    with cache_of(counted.encoder, tmp_path) as cache:
        embed(counted.encoder, ["a b"], cache=cache)
    changed = load_encoder(str(tiny_encoder_path))
    changed.fingerprint = "0" * 64
    assert embed(changed, ["a b"], cache=cache_of(changed, tmp_path)).n_cached == 0
    assert embed(tiny_qwen3, ["a b"], cache=cache_of(tiny_qwen3, tmp_path)).n_cached == 0
    assert embed(counted.encoder, ["a b"], cache=cache_of(counted.encoder, tmp_path)).n_cached == 1


def test_many_texts_go_through_in_windows(
    counted: Counted, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_WINDOW", 7)
    texts = [f"text number {i % 30}" for i in range(50)]
    seen: list[int] = []
    with cache_of(counted.encoder, tmp_path) as cache:
        embed(counted.encoder, texts[:5], cache=cache)
        embedded = embed(counted.encoder, texts, cache=cache, progress=seen.append)
    assert sum(seen) == 50
    assert embedded.n_cached == 10
    torch.testing.assert_close(embedded.vectors, embed(tiny_encoder, texts).vectors, atol=1e-5, rtol=0)


def test_vectors_that_are_not_finite(counted: Counted, tmp_path: Path) -> None:
    backbone: Any = counted.encoder.backbone
    backbone.embedding_norm.weight.fill_(float("inf"))
    with pytest.raises(
        EncoderError, match=r"encoder tiny-bert: vectors are not finite in torch\.float32; use float32 or bfloat16"
    ):
        embed(counted.encoder, ["x"], cache=cache_of(counted.encoder, tmp_path))
    assert not cache_of(counted.encoder, tmp_path).get(["x"])[1].any()


def test_one_text_instead_of_a_list(tiny_encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match="texts: expected a list of str, got one str"):
        embed(tiny_encoder, "one text")
    with pytest.raises(EncoderError, match=r"texts\[1\]: expected str, got int"):
        embed(tiny_encoder, ["x", 3])  # type: ignore[list-item]


def test_no_noise(tiny_encoder: Encoder, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        embed(tiny_encoder, ["x", "y " * 500])
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records
    assert np.isfinite(embed(tiny_encoder, ["x"]).vectors.numpy()).all()
