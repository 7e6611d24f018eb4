from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics.choices import Choices, letter_of_truth, parse_choices

TEXTS = ("Rome", "Paris")


@pytest.mark.parametrize(
    "choices",
    [
        ["Rome", "Paris"],
        ("Rome", "Paris"),
        {"text": ["Rome", "Paris"], "label": ["A", "B"]},
        {"text": ["Rome", "Paris"], "labels": ["A", "B"]},
        {"A": "Rome", "B": "Paris"},
        '["Rome", "Paris"]',
        "['Rome', 'Paris']",
        "{'text': ['Rome', 'Paris'], 'labels': ['A', 'B']}",
        "A) Rome\nB) Paris",
        "(A) Rome\n(B) Paris\n",
        "A. Rome\nB. Paris",
    ],
)
def test_forms_of_choices(choices):
    assert parse_choices(choices) == Choices(TEXTS, ("A", "B"))


@pytest.mark.parametrize(
    "choices",
    [None, "", 5, "Rome,Paris", "[" * 100_000, "{'a'", "[1", "A) Rome\nC) Paris", "x" * 200_000, {"text": "Rome"}],
)
def test_what_cannot_be_taken_apart_is_unknown(choices):
    assert parse_choices(choices) == Choices()


def test_labels_of_the_data_set_are_kept():
    assert parse_choices({"text": ["Rome", "Paris"], "label": ["1", "2"]}).labels == ("1", "2")
    assert parse_choices({"text": ["Rome", "Paris"], "label": ["1"]}).labels == ("A", "B")


@pytest.mark.parametrize(
    ("truth", "letter"),
    [
        ("A", "A"),
        ("j", "J"),
        (0, "A"),
        (9, "J"),
        (10, None),
        (-1, None),
        ("1", "A"),
        ("10", "J"),
        ("11", None),
        (True, None),
    ],
)
def test_truths_without_choices(truth, letter):
    assert letter_of_truth(truth, Choices()) == letter


def test_the_text_of_a_choice_comes_before_a_number_from_one():
    assert letter_of_truth("2", Choices(("2", "1"), ("A", "B"))) == "A"


def test_an_index_beyond_the_choices_is_none_of_them():
    assert letter_of_truth(2, Choices(TEXTS, ("A", "B"))) is None
