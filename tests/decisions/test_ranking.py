"""Rankings: each query by its own list and selector; ties as the selector breaks them."""

from __future__ import annotations

import math

import torch

from gpu_select.decisions import CandidateRanking
from gpu_select.selectors import KMeansSelector


def clusters(models, seed):
    return KMeansSelector(torch.randn(len(models), 20, generator=torch.Generator().manual_seed(seed)), list(models))


def test_each_query_is_ranked_by_the_selector_of_its_list():
    selectors = [clusters("abcd", 0), clusters("dcx", 1)]
    lists = ["dab", "xc", "bz", "abcd", ""]
    ranking = CandidateRanking(lists, selectors, [0, 1, None, 0, None])
    assert ranking.models == ("d", "a", "b", "x", "c", "z")
    features, list_B = torch.randn(63, 20), torch.arange(63) % 5
    ranked = ranking(features, list_B)
    for i, e in enumerate(list_B.tolist()):
        names = [ranking.models[m] for m in ranked.model_BK[i].tolist()][: len(lists[e])]
        score, margin = ranked.score_B[i].item(), ranked.margin_B[i].item()
        if e == 4:
            assert (score, margin) == (0.0, math.inf)
        elif e == 2:
            assert (names, score, margin) == (["b", "z"], 0.0, 1.0)
        else:
            selector = selectors[e == 1]
            scores = dict(zip(selector.models, selector(features[i : i + 1])[0].tolist(), strict=True))
            assert names == sorted(lists[e], key=lambda name: -scores[name])
            assert math.isclose(score - margin, scores[names[1]], abs_tol=1e-5)


def test_a_tie_goes_to_the_model_that_the_selector_has_first():
    selector = KMeansSelector(torch.ones(3, 20), ["c", "a", "b"])
    ranked = CandidateRanking(["abc", "ab"], [selector], [0, 0])(torch.randn(4, 20), torch.tensor([0, 1, 0, 1]))
    assert ranked.model_BK[:, 0].tolist() == [2, 0, 2, 0]


def test_candidates_that_the_selector_does_not_have_come_last():
    selector = clusters("abc", 0)
    ranking = CandidateRanking(["xbya", "zc", "abc"], [selector], [0, 0, 0])
    features = torch.randn(30, 20)
    ranked = ranking(features, torch.arange(30) % 3)
    for i, row in enumerate(ranked.model_BK.tolist()):
        names = "".join(ranking.models[m] for m in row[: len(["xbya", "zc", "abc"][i % 3])])
        scores = dict(zip("abc", selector(features[i : i + 1])[0].tolist(), strict=True))
        by_score = sorted("abc", key=lambda name: -scores[name])
        assert names == ["".join(n for n in by_score if n != "c") + "xy", "cz", "".join(by_score)][i % 3]
    assert ranked.margin_B[1::3].isinf().all()
    assert ranked.margin_B[0::3].isfinite().all()


def test_one_candidate_has_no_runner_up():
    ranked = CandidateRanking(["a", "b"], [clusters("ab", 0)], [0, None])(torch.randn(2, 20), torch.tensor([0, 1]))
    assert ranked.model_BK.tolist() == [[0], [1]]
    assert ranked.margin_B.tolist() == [math.inf, math.inf]


def test_a_vector_that_is_not_finite_has_no_score():
    features = torch.randn(2, 20)
    features[1, 3] = math.nan
    ranked = CandidateRanking(["ab", "ba"], [clusters("ab", 0)], [0, None])(features, torch.tensor([0, 1]))
    assert ranked.score_B.isnan().tolist() == [False, True]
