from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics.commongen_coverage import commongen_coverage, concepts_of
from gpu_select.benchmark.metrics.word_forms import word_forms


@pytest.mark.parametrize(
    ("response", "concepts", "expected"),
    [
        ("A dog catches the frisbee.", "dog, frisbee, catch, throw", 3 / 4),
        ("The dog drove because of Sunday", "drive, use, sun, dog", 1 / 2),
        ("He stopped skiing and sold the leaves", "stop, ski, sell, leaf", 1.0),
        ("ICE CREAMS melt", "ice cream, melt", 1.0),
        ("ice and cream melt", "ice cream, melt", 1 / 2),
        ("", "dog", 0.0),
    ],
)
def test_coverage(response, concepts, expected):
    assert commongen_coverage(response, [concepts]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "truths", [["dog, cat,dog"], ["dog", "cat"], ["dog\ncat"], ["Dog; cat."], ["dog#cat"], ["dog cat"]]
)
def test_forms_of_concepts(truths):
    assert concepts_of(truths) == [["dog"], ["cat"]]


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("run", {"runs", "ran", "running"}),
        ("carry", {"carries", "carried", "carrying"}),
        ("play", {"plays", "played", "playing"}),
        ("drive", {"drives", "drove", "driven", "driving"}),
        ("die", {"dies", "died", "dying"}),
        ("see", {"sees", "saw", "seen", "seeing"}),
        ("box", {"boxes", "boxed"}),
        ("child", {"children"}),
    ],
)
def test_a_word_has_its_forms(word, forms):
    assert forms | {word} <= word_forms(word)


@pytest.mark.parametrize(("word", "other"), [("sun", "sunday"), ("use", "because"), ("car", "care"), ("part", "party")])
def test_another_word_is_no_form(word, other):
    assert other not in word_forms(word)
