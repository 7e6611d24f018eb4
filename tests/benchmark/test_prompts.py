from __future__ import annotations

import pytest

from gpu_select.benchmark.choices import check_choices, labelled_choices
from gpu_select.benchmark.prompts import prompt

LETTER = "End your answer with the letter of the right choice in parentheses."


def test_a_plain_query_is_sent_as_it_is():
    query = "  Why?\n\nBecause "
    assert prompt({"query": query}, "CEM", "plain") == query
    assert prompt({"query": query}, "em_mc", "plain") == query


@pytest.mark.parametrize(
    ("choices", "lines"),
    [
        (["Rome", "Paris", "Bonn"], "A. Rome\nB. Paris\nC. Bonn"),
        ({"A": "Rome", "B": "Paris"}, "A. Rome\nB. Paris"),
        ({"label": ["A", "B"], "text": ["Rome", "Paris"]}, "A. Rome\nB. Paris"),
        ({"labels": ["F", "G"], "text": ["Rome", "Paris"]}, "A. Rome\nB. Paris"),
        ("['Rome', 'Paris']", "A. Rome\nB. Paris"),
        ("A) Rome\nB) Paris", "A. Rome\nB. Paris"),
        ("Rome,Paris", "Rome,Paris"),
    ],
)
def test_choices_follow_the_query(choices, lines):
    assert prompt({"query": "Capital?", "choices": choices}, "em_mc", "plain") == f"Capital?\n\n{lines}\n\n{LETTER}"


def test_numbered_choices_keep_their_numbers():
    fields = {"query": "Capital?", "choices": {"label": ["1", "2"], "text": ["Rome", "Paris"]}}
    end = "End your answer with the number of the right choice in parentheses."
    assert prompt(fields, "em_mc", "plain") == f"Capital?\n\n1. Rome\n2. Paris\n\n{end}"
    end = "Answer with the number of the right choice only: 1 or 2."
    assert prompt(fields, "em_mc", "concise") == f"Capital?\n\n1. Rome\n2. Paris\n\n{end}"


@pytest.mark.parametrize(
    "lines", ["A) Rome\nB) Paris", "A. Rome\n B. Paris", "(A) Rome\n(B) Paris", "A: Rome\nB: Paris"]
)
def test_choices_that_the_query_lists_are_not_listed_twice(lines):
    fields = {"query": f"Capital?\n{lines}", "choices": ["Rome", "Paris"]}
    assert prompt(fields, "em_mc", "plain") == f"Capital?\n{lines}\n\n{LETTER}"


@pytest.mark.parametrize("query", ["A. Smith wrote it. Who?", "Vitamin\nA is what?\nB is what?", "x\nA.5 and\nB.5"])
def test_a_query_that_lists_no_choices_is_told_apart(query):
    assert "A. Rome\nB. Paris" in prompt({"query": query, "choices": ["Rome", "Paris"]}, "em_mc", "plain")


def test_choices_that_are_no_multiple_choice_ask_for_no_letter():
    assert (
        prompt({"query": "Capital?", "choices": ["Rome", "Paris"]}, "CEM", "plain") == "Capital?\n\nA. Rome\nB. Paris"
    )


@pytest.mark.parametrize(
    ("fields", "metric", "end"),
    [
        ({}, "CEM", "Answer in a few words, without any explanation."),
        ({}, "f1_score", "Answer in a few words, without any explanation."),
        ({}, "MATH", "Give the final answer only, without the steps that lead to it."),
        ({}, "GSM8K", "Give the final number only, without the steps that lead to it."),
        ({}, "code_eval", "Reply with the code only, without any explanation."),
        ({}, "commongen_coverage", "Reply with one sentence."),
        ({}, "em_mc", "Answer with the letter of the right choice only."),
        (
            {"query": "Q?\nA) 1\nB) 2\nC) 3\nD) 4\nE) 5"},
            "em_mc",
            "Answer with the letter of the right choice only: A, B, C, D or E.",
        ),
        ({"choices": "no,form"}, "em_mc", "Answer with the letter of the right choice only."),
        ({"choices": list("xy")}, "em_mc", "Answer with the letter of the right choice only: A or B."),
        (
            {"choices": list("abcdefghij")},
            "em_mc",
            "Answer with the letter of the right choice only: A, B, C, D, E, F, G, H, I or J.",
        ),
    ],
)
def test_a_concise_prompt_ends_with_what_is_wanted(fields, metric, end):
    text = prompt({"query": "Q?"} | fields, metric, "concise")
    assert text.startswith("Q?")
    assert text.endswith(f"\n\n{end}")


def test_the_labels_shown_are_those_that_answers_are_scored_by():
    assert labelled_choices({"label": ["A", "B"], "text": ["x", "y"]}) == [("A", "x"), ("B", "y")]
    assert labelled_choices("x, y") == []
    assert labelled_choices(None) == []


@pytest.mark.parametrize(
    "choices", [None, "", "x", ["x"], {"A": "x"}, {"text": ["x"] * 10, "label": list("ABCDEFGHIJ")}]
)
def test_good_choices(choices):
    check_choices(choices)


@pytest.mark.parametrize("choices", [5, True, [], {}, ["x"] * 11, {"text": ["x"] * 11, "label": list("ABCDEFGHIJK")}])
def test_bad_choices(choices):
    with pytest.raises(
        ValueError, match=r"^choices: expected a text, a list of at most 10 texts, a mapping from letter"
    ):
        check_choices(choices)
