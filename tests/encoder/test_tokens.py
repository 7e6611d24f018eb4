from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from gpu_select.encoder import Encoder, Tokenizer
from gpu_select.encoder import tokens as tokens_module
from gpu_select.encoder.settings import EncoderSettings
from gpu_select.errors import EncoderError

PLAIN = EncoderSettings(pooling="mean", prefix="", max_length=8)


def rows(tokenized: Any) -> list[list[int]]:
    ends = tokenized.offsets.tolist()
    return [tokenized.ids[a:b].tolist() for a, b in itertools.pairwise(ends)]


def word_tokenizer(settings: EncoderSettings = PLAIN) -> Tokenizer:
    """a, b and c are tokens 1 to 3, all else 0; no special tokens."""
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, settings, pad_id=9)


@settings(max_examples=50)
@given(st.lists(st.text(max_size=200), max_size=6))
def test_ids_are_those_of_transformers(
    tiny_encoder: Encoder, tiny_encoder_path: Path, tiny_qwen3: Encoder, tiny_qwen3_path: Path, texts: list[str]
) -> None:
    for encoder, path in ((tiny_encoder, tiny_encoder_path), (tiny_qwen3, tiny_qwen3_path)):
        reference = REFERENCES.setdefault(path, transformers.AutoTokenizer.from_pretrained(path))
        tokenized = encoder.tokenizer.tokenize(texts)
        limit = encoder.settings.max_length
        full = [reference(text)["input_ids"] for text in texts]
        assert rows(tokenized) == [reference(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
        assert tokenized.truncated.tolist() == [len(ids) > limit for ids in full]
        assert tokenized.lengths.tolist() == [min(len(ids), limit) for ids in full]


REFERENCES: dict[Path, Any] = {}


def test_a_text_at_the_limit_is_not_counted_as_truncated() -> None:
    tokenized = word_tokenizer().tokenize(["a " * 8, "a " * 9, "a " * 7])
    assert tokenized.lengths.tolist() == [8, 8, 7]
    assert tokenized.truncated.tolist() == [False, True, False]
    assert tokenized.n_truncated == 1


def test_shapes_and_dtypes() -> None:
    tokenized = word_tokenizer().tokenize(["a b", "c"])
    assert (tokenized.ids.dtype, tokenized.offsets.dtype) == (np.int32, np.int64)
    assert rows(tokenized) == [[1, 2], [3]]
    assert len(tokenized) == 2
    assert len(word_tokenizer().tokenize([])) == 0


def test_a_text_without_any_token_gets_one() -> None:
    assert rows(word_tokenizer().tokenize(["", "a", "   "])) == [[9], [1], [9]]


def test_prefix_comes_before_every_text() -> None:
    prefixed = word_tokenizer(dataclasses.replace(PLAIN, prefix="b c "))
    assert rows(prefixed.tokenize(["a", ""])) == [[2, 3, 1], [2, 3]]


def test_lower_casing_comes_before_the_tokenizers_own_normalizer() -> None:
    assert rows(word_tokenizer(dataclasses.replace(PLAIN, lowercase=True)).tokenize(["A b C"])) == [[1, 2, 3]]
    assert rows(word_tokenizer().tokenize(["A b C"])) == [[0, 2, 0]]


def test_many_texts_are_tokenised_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a " * (i % 7) + "b" for i in range(100)]
    whole = rows(word_tokenizer().tokenize(texts))
    monkeypatch.setattr(tokens_module, "_CHUNK_TEXTS", 7)
    monkeypatch.setattr(tokens_module, "_CHUNK_CHARS", 40)
    assert rows(word_tokenizer().tokenize(texts)) == whole


def test_spaces_that_fill_the_first_cut_hide_nothing() -> None:
    texts = [" " * 10_000 + "a b", "a " * 5_000, "c"]
    tokenized = word_tokenizer().tokenize(texts)
    assert rows(tokenized) == [[1, 2], [1] * 8, [3]]
    assert tokenized.truncated.tolist() == [False, True, False]


def test_spaces_beyond_the_last_cut_count_as_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_MAX_CHARS", 500)
    tokenized = word_tokenizer().tokenize(["a" + " " * 600 + "b", "a" + " " * 400 + "b"])
    assert rows(tokenized) == [[1], [1, 2]]
    assert tokenized.truncated.tolist() == [True, False]


def test_a_huge_text_costs_little(tiny_encoder: Encoder) -> None:
    text = "word " * 20_000_000
    start = time.perf_counter()
    tokenized = tiny_encoder.tokenizer.tokenize([text])
    assert time.perf_counter() - start < 10  # all of it would take minutes
    assert tokenized.lengths.tolist() == [tiny_encoder.settings.max_length]
    assert tokenized.n_truncated == 1


def test_lone_surrogates_are_replaced(tiny_qwen3: Encoder) -> None:
    tokenize = tiny_qwen3.tokenizer.tokenize
    assert rows(tokenize(["x\ud800y", "\udfff"])) == rows(tokenize(["x\ufffdy", "\ufffd"]))
    assert rows(tokenize(["\ud83d\ude00"])) == rows(tokenize(["😀"]))  # a pair that came as two escapes


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "texts: expected a list of str, got one str"),
        (["fine", None], r"texts\[1\]: expected str, got NoneType"),
        ([b"bytes"], r"texts\[0\]: expected str, got bytes"),
    ],
)
def test_texts_that_are_no_texts(texts: Any, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        word_tokenizer().tokenize(texts)


def test_limit_that_leaves_no_room(tiny_encoder_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(tiny_encoder_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="max_length: expected more than the 2 special tokens of every text, got 2"):
        Tokenizer(backend, dataclasses.replace(PLAIN, max_length=2), pad_id=0)


@settings(max_examples=50)
@given(st.lists(st.text(max_size=400), max_size=6))
def test_tokens_of_whole_texts_are_counted(tiny_encoder: Encoder, tiny_encoder_path: Path, texts: list[str]) -> None:
    reference = REFERENCES.setdefault(tiny_encoder_path, transformers.AutoTokenizer.from_pretrained(tiny_encoder_path))
    full = [len(reference(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert tiny_encoder.tokenizer.count(texts).tolist() == full


def test_neither_prefix_nor_limit_counts() -> None:
    tokenizer = word_tokenizer(dataclasses.replace(PLAIN, prefix="a a a "))
    assert tokenizer.count(["b " * 100_000, "", "c"]).tolist() == [100_000, 0, 1]
    with pytest.raises(EncoderError, match="expected a list of str, got one str"):
        tokenizer.count("b")


def test_the_tokenizer_as_a_file_cuts_and_pads_as_the_encoder_wants_it(tiny_encoder: Encoder) -> None:
    tokenizer = tiny_encoder.tokenizer
    texts = ["what is the law", "solve", "x " * 100]
    again = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    encodings = again.encode_batch(texts)
    expected = tokenizer.tokenize(texts)
    assert [sum(one.attention_mask) for one in encodings] == expected.lengths.tolist()
    assert [one.ids[: sum(one.attention_mask)] for one in encodings] == rows(expected)
    assert {len(one.ids) for one in encodings} == {32}
    assert set(encodings[1].ids[expected.lengths[1] :]) == {tokenizer.pad_id}
    assert rows(tokenizer.tokenize(texts)) == rows(expected)  # the tokenizer itself goes on without padding
