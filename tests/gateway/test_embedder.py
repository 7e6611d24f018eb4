"""The router's own encoder as an embedding model."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_select.encoder import Tokenizer, embed, load_encoder
from gpu_select.errors import EncoderError
from gpu_select.gateway.embedder import Embedder

TEXTS = ["why is the sky", "city", "why is the sky", "law " * 600, "city"]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path):
    return load_encoder(str(tiny_encoder_path), device="cpu")


def test_vectors_are_those_of_embed_with_tokens_counted(encoder):
    embedder = Embedder(encoder)
    embedded = embedder.embed(TEXTS)
    expected = embed(encoder, TEXTS)
    np.testing.assert_allclose(np.stack([one.vector_D for one in embedded]), expected.vectors.numpy(), atol=1e-6)
    assert [one.truncated for one in embedded] == [False, False, False, True, False]
    assert [one.n_tokens for one in embedded] == encoder.tokenizer.tokenize(TEXTS).lengths.tolist()
    assert (embedder.name, embedder.dim) == ("tiny-bert", encoder.dim)
    assert embedder.embed([]) == []


def test_each_text_is_tokenised_once(encoder, monkeypatch):
    seen = []
    tokenize = Tokenizer.tokenize
    monkeypatch.setattr(Tokenizer, "tokenize", lambda self, texts: seen.extend(texts) or tokenize(self, texts))
    Embedder(encoder).embed(TEXTS)
    assert sorted(seen) == sorted(set(TEXTS))


def test_vectors_that_are_not_finite_are_refused(encoder, monkeypatch):
    encode = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, batch: encode(self, batch) * float("nan"))
    with pytest.raises(EncoderError, match=r"encoder tiny-bert: vectors are not finite in torch\.float32"):
        Embedder(encoder).embed(["x"])
