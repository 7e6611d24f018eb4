from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.training.tuning.folds import FoldedData, assign_folds, best_of_domains, best_single

NAN = float("nan")
words = st.lists(st.sampled_from(["What", "is", "law", "mass", "of", "two"]), min_size=1, max_size=4)


@given(st.lists(words, min_size=1, max_size=40), st.integers(2, 7), st.integers(0, 100))
def test_texts_that_differ_in_spaces_and_case_alone_share_their_fold(texts, n_folds, seed):
    rng = np.random.default_rng(seed)
    written = [
        (" " * int(rng.integers(1, 3))).join(w.upper() if rng.random() < 0.5 else w.lower() for w in t) for t in texts
    ]
    folds = assign_folds(written, n_folds, seed=seed)
    seen: dict[tuple[str, ...], int] = {}
    for text, fold in zip(texts, folds.tolist(), strict=True):
        assert seen.setdefault(tuple(w.lower() for w in text), fold) == fold


def test_folds_are_of_equal_size_and_the_seeds():
    queries = [f"q{i}" for i in range(103)]
    folds = assign_folds(queries, 5, seed=0)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    np.testing.assert_array_equal(folds, assign_folds(queries, 5, seed=0))
    assert not np.array_equal(folds, assign_folds(queries, 5, seed=1))


def test_folds_follow_queries_not_their_places():
    queries = [f"q{i}" for i in range(50)]
    folds = dict(zip(queries, assign_folds(queries, 5, seed=3).tolist(), strict=True))
    back = dict(zip(queries[::-1], assign_folds(queries[::-1], 5, seed=3).tolist(), strict=True))
    assert folds == back


def test_what_is_held_out_is_not_known(task):
    features, table = task(40)
    data = FoldedData.of(features, table, n_folds=4, quality_weight=1.0, seed=0)
    for fold in range(4):
        learned, held_out = data.rows(fold)
        assert sorted([*learned, *held_out]) == list(range(40))
        assert (data.fold_Q[held_out] == fold).all()
        assert np.isnan(data.gains(fold).gain_QM[held_out]).all()
        assert np.isfinite(data.gains(fold).gain_QM[learned]).all()


def test_the_best_models_are_chosen_without_the_fold(task):
    """Model a is the best on all queries but those of fold 0, where b wins by so much that it is the best overall."""
    features, table = task(60)
    fold = assign_folds(table.queries, 3, seed=0)
    quality = np.where(fold[:, None] == 0, [0.0, 1.0, 0.5], [0.6, 0.4, 0.3])
    table = replace(table, quality_QM=quality, domains=["law"] * 60)
    data = FoldedData.of(features, table, n_folds=3, quality_weight=1.0, seed=0)
    assert quality.mean(axis=0).argmax() == 1
    for choice in (best_single(data), best_of_domains(data)):
        assert set(choice[fold == 0]) == {0}
        assert set(choice[fold != 0]) == {1}


def test_domains_have_their_best_model_where_enough_is_known(task):
    features, table = task(300)
    rare = np.arange(300) < 3
    law = (np.arange(300) % 2 == 0) & ~rare
    quality = np.select([rare[:, None], law[:, None]], [[0.5, 1.0], [0.2, 0.8]], [0.9, 0.1])
    domains = np.select([rare, law], ["math", "law"], "other").tolist()
    table = replace(table, models=["a", "b"], quality_QM=quality, latency_s_QM=quality * NAN, domains=domains)
    data = FoldedData.of(features, table, n_folds=3, quality_weight=1.0, seed=0)
    choice = best_of_domains(data)
    assert set(choice[law]) == {1}
    assert set(choice[~law & ~rare]) == {0}
    # two or three queries of math do not outweigh what all others say
    assert set(choice[rare]) == {int(data.gains(0).mean_M.argmax())}
