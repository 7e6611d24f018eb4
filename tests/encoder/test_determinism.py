"""A text's vector has the same bits in whatever batch it is, once `make_deterministic` was called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.encoder import Encoder, TokenBatch, Tokenized, backbone, embed, load_encoder, pack
from gpu_select.encoder.linear import Linear

CPU = torch.device("cpu")
DTYPES = ["float32", "bfloat16"]
WORDS = """
what is the of in and a number force energy law of patient explain how quickly market war answer difference between
solve 3x + 5 = 20 Grüße 北京 photosynthesis antidisestablishmentarianism def main(): return x[0] ?
"""

# two threads that wait for each other are slow on a busy machine, and bfloat16 hides most of what they could do
each_way = pytest.mark.parametrize(("dtype", "threads"), [("float32", 1), ("bfloat16", 1), ("float32", 2)])


def vectors_of(encoder: Encoder, tokenized: Tokenized, rows: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode(pack(tokenized, rows, CPU))


def alone(encoder: Encoder, tokenized: Tokenized) -> torch.Tensor:
    return torch.cat([vectors_of(encoder, tokenized, np.array([i])) for i in range(len(tokenized))])


def assert_bits_do_not_hang_on_the_batch(encoder: Encoder, tokenized: Tokenized, seed: int = 0) -> None:
    """Whole, in parts, in any order: what `embed` does, and what it could do."""
    generator = np.random.default_rng(seed)
    wanted = alone(encoder, tokenized)
    everything = np.arange(len(tokenized))
    by_length = np.argsort(-tokenized.lengths, kind="stable")
    some = generator.permutation(everything)[: len(everything) // 2]
    for rows in (everything, by_length, by_length[::-1], generator.permutation(everything), some, by_length[3::2]):
        assert vectors_of(encoder, tokenized, rows.copy()).equal(wanted[torch.from_numpy(rows.copy())])


# sizes that divide nothing, and those of real heads and widths
BERTS: list[dict[str, Any]] = [
    {"hidden_size": 39, "num_attention_heads": 3, "intermediate_size": 50},
    {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 192},
]
QWENS: list[dict[str, Any]] = [
    {"hidden_size": 50, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10, "intermediate_size": 70},
    {"hidden_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 160},
]
CONFIGS: dict[str, Any] = {
    **{
        f"bert {number}": transformers.BertConfig(**sizes, num_hidden_layers=2, vocab_size=97, initializer_range=0.2)
        for number, sizes in enumerate(BERTS)
    },
    **{
        f"qwen3 {number}": transformers.Qwen3Config(**sizes, num_hidden_layers=3, vocab_size=97, initializer_range=0.2)
        for number, sizes in enumerate(QWENS)
    },
}
LENGTHS = [300, 193, 60, 60, 58, *[50] * 3, 33, *[25] * 4, 16, 11, 11, 8, 5, 3, 1, 1]


@each_way
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_models(
    name: str,
    pooling: str,
    dtype: str,
    threads: int,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    tokenized_of: Callable[..., Tokenized],
    random_rows: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbone, "_TILE", {"cpu": 32})
    torch.set_num_threads(threads)  # `one_thread` sets it back
    encoder = encoder_of(model_of(CONFIGS[name]), pooling).to(getattr(torch, dtype))
    encoder.make_deterministic()
    assert_bits_do_not_hang_on_the_batch(encoder, tokenized_of(random_rows(LENGTHS)))


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> Callable[[str], Encoder]:
    """Call with a dtype: the deterministic MiniLM."""
    loaded: dict[str, Encoder] = {}

    def load(dtype: str) -> Encoder:
        if dtype not in loaded:
            loaded[dtype] = load_encoder(str(minilm_path), dtype=dtype)  # type: ignore[arg-type]
            loaded[dtype].make_deterministic()
        return loaded[dtype]

    return load


@each_way
def test_minilm(dtype: str, threads: int, minilm: Callable[[str], Encoder]) -> None:
    torch.set_num_threads(threads)
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS.split(), n)) for n in (200, 60, *generator.integers(1, 30, 6), 12, 12)]
    encoder = minilm(dtype)
    assert_bits_do_not_hang_on_the_batch(encoder, encoder.tokenizer.tokenize(texts))


some_texts = st.lists(
    st.text(max_size=30) | st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=40).map(" ".join),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(max_examples=6)
@given(some_texts, st.integers(1, 300), st.none() | st.integers(1, 4), st.randoms(use_true_random=False))
def test_no_budget_and_no_order_changes_a_bit(
    tiny: list[Encoder], texts: list[str], token_budget: int, batch_size: int | None, random: Any
) -> None:
    shuffled = texts.copy()
    random.shuffle(shuffled)
    for encoder in tiny:
        wanted = {text: embed(encoder, [text]).vectors[0] for text in texts}
        together = embed(encoder, shuffled, token_budget=token_budget, batch_size=batch_size).vectors
        for text, vector in zip(shuffled, together, strict=True):
            assert vector.equal(wanted[text])


@pytest.fixture(scope="module")
def tiny(
    tiny_encoder_path: Path, tiny_qwen3_path: Path, tmp_path_factory: pytest.TempPathFactory, write_tiny_bert: Any
) -> list[Encoder]:
    """Deterministic encoders; the last of each dtype is computed by transformers, text by text."""
    other = write_tiny_bert(tmp_path_factory.mktemp("encoders") / "relu", hidden_act="relu")
    paths = tiny_encoder_path, tiny_qwen3_path, other
    encoders = [load_encoder(str(path), dtype=dtype) for dtype in DTYPES for path in paths]  # type: ignore[arg-type]
    for encoder in encoders:
        encoder.make_deterministic()
        for module in encoder.modules():
            if isinstance(module, Linear):
                module.tile = 32
    assert [encoder.takes_packed for encoder in encoders] == [True, True, False] * 2
    return encoders


def test_one_bit_that_hangs_on_the_batch_is_noticed(
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    tokenized_of: Callable[..., Tokenized],
    random_rows: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the tests above could not fail. Not every CPU rounds by the batch, so one does here."""
    encoder = encoder_of(model_of(CONFIGS["qwen3 0"]), "last")
    encoder.make_deterministic()
    exact = encoder.encode

    def rounded(batch: TokenBatch) -> torch.Tensor:
        vectors = exact(batch)
        if len(batch.lengths) > 1:
            vectors[-1, 0] = torch.nextafter(vectors[-1, 0], torch.tensor(2.0))
        return vectors

    monkeypatch.setattr(encoder, "encode", rounded)
    with pytest.raises(AssertionError):
        assert_bits_do_not_hang_on_the_batch(encoder, tokenized_of(random_rows(LENGTHS)))
