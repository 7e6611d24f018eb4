from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.choices import LETTERS, Choices
from gpu_select.benchmark.metrics.em_mc import chosen_letter, em_mc

CITIES = ["Rome", "Paris", "Bonn", "Oslo"]


@pytest.mark.parametrize(
    "response",
    [
        "B",
        "b",
        "B.",
        "B)",
        "(B)",
        "(b)",
        "**B**",
        "`B`",
        "$B$",
        "Option B",
        "Answer: B",
        "Answer: (B) Paris",
        "answer:b",
        "**Answer:** B",
        "**Answer: B**",
        "### Answer\nB",
        "<answer>B</answer>",
        r"\boxed{B}",
        r"$\boxed{\text{B}}$",
        r"The final answer is $\boxed{\textbf{(B)}}$.",
        r"First \boxed{A}, but no: \boxed{B}",
        "B) Paris",
        "B. Paris",
        "B: Paris\nIt is the capital.",
        "**B) Paris**",
        "The answer is B",
        "The answer is b.",
        "the correct option is B",
        "The correct answer is option B.",
        "The correct answer is:\n\n**B) Paris**",
        "Therefore, the best answer to this question is (B), since Rome is not in France.",
        "Let us see. (A) is wrong. The answer is B. The other options (C) and (D) are wrong too.",
        "The answer is A? No. The answer is B.",
        "I think it's B because of the tower",
        "I would go with (B) over (C)",
        "I choose option B",
        "Option B is correct",
        "A is wrong and B is the correct answer",
        "(A) no (B) yes",
        "A) no\nB) yes\nC) no\n\nSo B",
        "A, C and D are not in France, so B.",
        "C is wrong.\nB",
        "\u201cB\u201d",
    ],
)
def test_a_chosen_letter_is_found(response):
    assert chosen_letter(response) == "B"
    assert em_mc(response, "B", None) == 1.0
    assert em_mc(response, "C", None) == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "It is a dog",
        "This is a test, and a long one",
        "The answer is a dog",
        "The correct answer is A dog that barks",
        "Let f(x) = x, g(a) = a and f(b) = c",
        "A dog and a cat",
        "I think so",
        "I believe I know this",
        "It is I who knows",
        "My plan B is to wait",
        "Plan B",
        "Vitamin C",
        "C++",
        "C. elegans\nD. melanogaster",
        "The answer is D.C.",
        "The answer is F = ma",
        "The answer is C-reactive protein",
        "The answer is not B.",
        "Option A is incorrect",
        "(K)",
        "bad",
    ],
)
def test_no_letter_is_made_of_other_things(response):
    assert chosen_letter(response) is None


@pytest.mark.parametrize("letter", LETTERS)
def test_letters_from_a_to_j(letter):
    for response in (letter, f"({letter})", f"The answer is {letter}.", f"Answer: {letter}", f"**{letter}**"):
        assert em_mc(response, letter, None) == 1.0
        assert em_mc(response, "B" if letter == "A" else "A", None) == 0.0


@pytest.mark.parametrize("letter", ["A", "I"])
def test_a_and_i_are_letters_where_they_are_no_words(letter):
    assert chosen_letter(f"The answer is {letter} because nothing else fits") == letter
    assert chosen_letter(f"The answer is {letter}, I am sure of it") == letter


def test_a_letter_beyond_the_choices_is_none():
    assert chosen_letter("The answer is (E)", Choices(tuple(CITIES))) is None
    assert chosen_letter("The answer is (D)", Choices(tuple(CITIES))) == "D"


@pytest.mark.parametrize("response", ["Paris", "The capital is Paris.", "I would say it is **Paris**, in the north."])
def test_the_text_of_a_choice_stands_for_its_letter(response):
    assert em_mc(response, "B", CITIES) == 1.0
    assert em_mc(response, "C", CITIES) == 0.0


def test_several_texts_are_no_choice_unless_one_is_part_of_the_other():
    assert em_mc("Rome or Paris", "B", CITIES) == 0.0
    assert em_mc("It is liquid nitrogen", "B", ["nitrogen", "liquid nitrogen"]) == 1.0
    assert em_mc("It is liquid nitrogen", "A", ["nitrogen", "liquid nitrogen"]) == 0.0


def test_a_letter_comes_before_a_text():
    assert em_mc("The answer is C. Not Paris.", "C", CITIES) == 1.0


@pytest.mark.parametrize("truth", ["B", "b", "(B)", "B.", "B) Paris", "Paris", "paris", 1, "2", ["B"]])
def test_forms_of_the_truth(truth):
    assert em_mc("(B)", truth, CITIES) == 1.0
    assert em_mc("(C)", truth, CITIES) == 0.0


@pytest.mark.parametrize("response", ["(4)", "The answer is 4.", "4", "D", "(D)"])
def test_arc_has_questions_whose_labels_are_digits(response):
    labelled = {"text": CITIES, "label": ["1", "2", "3", "4"]}
    assert em_mc(response, "4", None) == 1.0
    assert em_mc(response, "3", None) == 0.0
    if response in ("(4)", "The answer is 4.", "4"):
        assert em_mc(response, "4", labelled) == 1.0
    assert em_mc("Oslo", "4", labelled) == 1.0


def test_a_text_as_truth_where_the_choices_are_not_known():
    assert em_mc("I say Paris", "Paris", "Rome,Paris,Bonn") == 1.0
    assert em_mc("I say Parisian", "Paris", "Rome,Paris,Bonn") == 0.0


@given(st.text(alphabet=st.sampled_from("ABIabi ().:*\\{}boxed answer is the\n"), max_size=200))
def test_any_text_gives_a_letter_or_none(response):
    assert chosen_letter(response) in (*LETTERS, None)


def test_long_texts_are_quick():
    for text in (
        "answer is " + " " * 50_000,
        "answer " * 20_000,
        "(" * 100_000,
        "answer is the " * 10_000,
        "a" * 200_000,
    ):
        chosen_letter(text)
