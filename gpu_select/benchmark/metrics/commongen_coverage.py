"""CommonGen: which of the given concepts a sentence uses."""

from __future__ import annotations

import re

from gpu_select.benchmark.metrics.word_forms import word_forms
from gpu_select.benchmark.metrics.words import words

__all__ = ["commongen_coverage", "concepts_of"]


def concepts_of(truths: list[str]) -> list[list[str]]:
    """The distinct concepts, each as its words: of a list, or of a text between commas or `#`, or else blanks."""
    parts = [part for truth in truths for part in re.split(r"[,;#\n]", truth)]
    if len(parts) == 1:
        parts = parts[0].split()
    distinct = dict.fromkeys(tuple(words(part, articles=True)) for part in parts)
    return [list(concept) for concept in distinct if concept]


def commongen_coverage(response: str, truths: list[str]) -> float:
    """Share of the concepts that the answer uses as whole words, in any form: drive counts for drove and driving.

    Source:
        The coverage of CommonGen (Lin et al., 2020, arXiv:1911.03705), with word forms in place of a lemmatiser.
    """
    said = words(response, articles=True)
    concepts = concepts_of(truths)
    return sum(_is_used(concept, said) for concept in concepts) / len(concepts)


def _is_used(concept: list[str], said: list[str]) -> bool:
    forms = word_forms(concept[-1])
    start = concept[:-1]
    n = len(start)
    return any(said[i] in forms and said[i - n : i] == start for i in range(n, len(said)))
