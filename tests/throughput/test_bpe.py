from __future__ import annotations

import pytest

from gpu_select.throughput import read_corpus
from gpu_select.throughput.bpe import END, N_SPECIAL, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(read_corpus(200_000), 1000)


def test_the_vocabulary_has_the_size_that_was_asked_for(tokenizer):
    assert tokenizer.get_vocab_size() == 1000
    assert max(tokenizer.get_vocab().values()) == 999


def test_special_tokens_stand_behind_the_trained_ones(tokenizer):
    assert tokenizer.token_to_id(END) == 1000 - N_SPECIAL


def test_every_text_ends_with_the_end_token(tokenizer):
    assert [tokenizer.encode(text).ids[-1] for text in ("", "x", "a longer text")] == [1000 - N_SPECIAL] * 3


@pytest.mark.parametrize("text", ["plain words", "Grüße, 北京 😀", "def f(x):\n    return x\n\n", "it's 1234 things"])
def test_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_digits_stand_alone_and_words_keep_the_space_before_them(tokenizer):
    assert tokenizer.encode("1234").tokens[:-1] == ["1", "2", "3", "4"]
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("don't stop now!!\n")]
    assert pieces == ["don", "'t", "Ġstop", "Ġnow", "!!Ċ"]


def test_the_same_text_gives_the_same_tokenizer(tokenizer):
    assert train_tokenizer(read_corpus(200_000), 1000).to_str() == tokenizer.to_str()


def test_a_small_corpus_gives_a_smaller_vocabulary():
    tokenizer = train_tokenizer(["a few words"], 5000)
    assert 256 + N_SPECIAL < tokenizer.get_vocab_size() < 300
