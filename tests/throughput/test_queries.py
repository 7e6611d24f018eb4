from __future__ import annotations

import json

import numpy as np
import pytest

from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError, InputError
from gpu_select.throughput import cut_queries, read_corpus, write_log


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(2_000_000)


@pytest.mark.parametrize("mean", [16, 61])
def test_lengths_have_the_mean_and_are_spread(corpus, random_tiny, mean):
    queries = cut_queries(corpus, random_tiny.tokenizer, 1000, mean)
    assert queries.lengths.mean() == pytest.approx(mean, rel=0.02)
    assert queries.lengths.std() > mean / 3
    assert len(set(queries.texts)) == len(queries.texts) == len(queries.domains) == 1000
    assert (queries.lengths == random_tiny.tokenizer.tokenize(queries.texts).lengths).all()
    assert all(text == text.strip() != "" for text in queries.texts)
    assert set(queries.domains) == set(WIRE_ORDER)


def test_fixed_lengths_are_near_the_mean(corpus, random_tiny):
    lengths = cut_queries(corpus, random_tiny.tokenizer, 300, 50, fixed=True).lengths
    assert lengths.mean() == pytest.approx(50, rel=0.02)
    assert (np.abs(lengths - 50) <= 5).mean() > 0.9


def test_lengths_end_at_the_encoders_limit(corpus, random_tiny):
    queries = cut_queries(corpus, random_tiny.tokenizer, 300, 120)
    tokens = random_tiny.tokenizer.tokenize(queries.texts)
    assert tokens.lengths.max() <= 256
    assert tokens.truncated.mean() < 0.1
    assert tokens.lengths.mean() == pytest.approx(120, rel=0.02)


def test_the_seed_decides(corpus, random_tiny):
    first, again, other = (cut_queries(corpus, random_tiny.tokenizer, 50, 20, seed=seed) for seed in (1, 1, 2))
    assert (first.texts, first.domains) == (again.texts, again.domains)
    assert set(first.texts).isdisjoint(other.texts)


@pytest.mark.parametrize("mean", [3, 257])
def test_a_mean_that_the_encoder_cannot_take_is_refused(corpus, random_tiny, mean):
    with pytest.raises(
        ConfigError, match=f"lengths: expected 4 to 256 tokens, which is what the encoder takes, got {mean}"
    ):
        cut_queries(corpus, random_tiny.tokenizer, 10, mean)


def test_a_corpus_that_is_too_small_is_an_error_not_an_endless_loop(random_tiny):
    with pytest.raises(InputError, match=r"the text at hand gives \d+ different ones, 5000 were asked for"):
        cut_queries(["only a few words are here"], random_tiny.tokenizer, 5000, 8)


def test_the_log_has_query_and_domain(tmp_path, corpus, random_tiny):
    queries = cut_queries(corpus, random_tiny.tokenizer, 7, 20)
    write_log(tmp_path / "log.jsonl", queries)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["query"] for row in rows] == queries.texts
    assert [row["domain"] for row in rows] == queries.domains
