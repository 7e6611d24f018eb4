"""Simulated benchmark records and query logs: data for the demo and for tests, said to be simulated in every name.

Queries come from templates over the 14 documented domains. Five simulated models answer them; the chance that a model
succeeds follows the Rasch model of item response theory (Rasch, 1960, Probabilistic Models for Some Intelligence and
Attainment Tests): P = sigmoid(ability - difficulty). A model's ability depends on the skill and the domain that a query
asks for; the difficulty is drawn for each query and shared by all models. No model was called, and no figure says
anything about a real one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from gpu_select.errors import ConfigError
from gpu_select.files import atomic_write
from gpu_select.jsonio import dumps
from gpu_select.simulation_templates import FAMILIES, OPENERS, SLOTS, Family

__all__ = ["MAX_QUERIES", "MODEL_NAMES", "DemoFiles", "benchmark_records", "query_log", "write_demo_data"]

MAX_QUERIES = 20_000
"""Most queries of one benchmark or log: every family of templates holds enough distinct questions for its share."""

_TASK_NAME = "simulated"


class _SimulatedModel(NamedTuple):
    """Abilities on the logit scale: with 0 a model succeeds on half of the queries of average difficulty."""

    name: str
    median_response_s: float
    skills: Mapping[str, float]
    domains: Mapping[str, float]
    """Added to the skill in these domains."""


_MODELS = (
    _SimulatedModel(
        "sim-biomed-13b",
        1.1,
        {"recall": 0.0, "calculation": -2.4, "proof": -3.5, "code": -3.0, "explanation": -0.8, "judgement": -1.6},
        {"biology": 3.2, "chemistry": 3.0, "health": 3.2, "psychology": 2.8},
    ),
    _SimulatedModel(
        "sim-coder-13b",
        1.0,
        {"recall": 0.4, "calculation": -0.8, "proof": -1.6, "code": 2.0, "explanation": -2.0, "judgement": -2.4},
        {"computer science": 1.4, "engineering": 1.0},
    ),
    _SimulatedModel(
        "sim-generalist-70b",
        3.2,
        {"recall": 1.4, "calculation": -1.2, "proof": -2.0, "code": -0.8, "explanation": 0.2, "judgement": 1.2},
        {"business": 0.8, "history": 1.4, "law": 1.4, "other": 0.8, "philosophy": 1.2},
    ),
    _SimulatedModel(
        "sim-math-7b",
        0.7,
        {"recall": 0.2, "calculation": 1.8, "proof": 1.2, "code": -1.5, "explanation": -1.8, "judgement": -2.2},
        {"economics": 0.8, "engineering": 0.8, "math": 1.6, "physics": 1.4},
    ),
    _SimulatedModel(
        "sim-small-1b",
        0.2,
        {"recall": 1.9, "calculation": -2.6, "proof": -4.0, "code": -2.4, "explanation": -2.4, "judgement": -2.2},
        {},
    ),
)

MODEL_NAMES = tuple(model.name for model in _MODELS)
"""The simulated models, in the order of their records."""

_LENGTH = {"recall": 0.5, "calculation": 1.2, "proof": 2.0, "code": 1.6, "explanation": 1.3, "judgement": 1.4}
"""How long an answer takes, as a multiple of the model's median response time."""

_GRADED = ("explanation", "judgement")
"""Skills marked against a rubric of four points; the others are right or wrong."""

_DIFFICULTY_SD = 1.2
_RESPONSE_LOG_SD = 0.3
"""Response times are log-normal around the median."""


class DemoFiles(NamedTuple):
    """Where `write_demo_data` put its files."""

    train: Path
    validation: Path
    log: Path


def benchmark_records(n_queries: int, seed: int) -> Iterator[dict[str, Any]]:
    """Simulated benchmark records, one a query and model: `n_queries * len(MODEL_NAMES)` in all, a query's together.

    Keys: query, category (one of the 14 documented domains), task_name, model_name, performance in [0, 1],
    response_time in seconds. The same arguments give the same records, and a smaller n_queries a prefix of them. No
    query occurs twice, nor in any `query_log`.

    Raises:
        ConfigError: n_queries is not between 1 and MAX_QUERIES.
    """
    return _records(_queries(n_queries, seed, for_log=False), Random(f"{seed}/outcomes"))


def query_log(n_queries: int, seed: int) -> Iterator[dict[str, Any]]:
    """Simulated log rows with the keys id, query and domain; like `benchmark_records`, without outcomes.

    Raises:
        ConfigError: n_queries is not between 1 and MAX_QUERIES.
    """
    queries = _queries(n_queries, seed, for_log=True)
    return ({"id": f"q{row:06d}", "query": text, "domain": family.domain} for row, (text, family) in enumerate(queries))


def write_demo_data(
    folder: str | Path, *, n_train: int = 1500, n_validate: int = 500, n_log: int = 2000, seed: int = 0
) -> DemoFiles:
    """Write train.jsonl, validation.jsonl and log.jsonl into `folder`; their queries do not overlap.

    Args:
        folder: created where missing.
        n_train: queries in train.jsonl, which has a line for each query and model.
        n_validate: queries in validation.jsonl, in the same form.
        n_log: rows in log.jsonl.
        seed: the same seed gives the same bytes.

    Raises:
        ConfigError: a number is below 1, or above MAX_QUERIES (n_train and n_validate together).
        OutputError: a file cannot be written.
    """
    for field, value in (("n_train", n_train), ("n_validate", n_validate)):
        if value < 1:
            raise ConfigError(field, value, "at least 1")
    files = DemoFiles(*(Path(folder) / f"{name}.jsonl" for name in ("train", "validation", "log")))
    records = benchmark_records(n_train + n_validate, seed)
    log = query_log(n_log, seed)
    _write_lines(files.train, itertools.islice(records, n_train * len(_MODELS)))
    _write_lines(files.validation, records)
    _write_lines(files.log, log)
    return files


def _queries(n_queries: int, seed: int, *, for_log: bool) -> Iterator[tuple[str, Family]]:
    if not 1 <= n_queries <= MAX_QUERIES:
        raise ConfigError("n_queries", n_queries, f"1 to {MAX_QUERIES}")
    return _distinct(n_queries, Random(f"{seed}/{'log' if for_log else 'benchmark'}"), for_log)


def _distinct(n_queries: int, rng: Random, for_log: bool) -> Iterator[tuple[str, Family]]:
    seen: set[str] = set()
    while len(seen) < n_queries:
        family = rng.choice(FAMILIES)
        question = _fill(rng.choice(family.templates), rng)
        # whatever the seeds, a question belongs either to logs or to benchmarks
        belongs_to_log = hashlib.sha256(question.encode()).digest()[0] % 2 == 1
        if belongs_to_log == for_log and question not in seen:
            seen.add(question)
            yield rng.choice(OPENERS) + question, family


def _fill(template: str, rng: Random) -> str:
    names = dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(template) if name)
    by_slot: dict[str, list[str]] = {}
    for name in names:
        by_slot.setdefault(name.rstrip(string.digits), []).append(name)
    words: dict[str, object] = {}
    for slot, group in by_slot.items():
        words |= zip(group, rng.sample(SLOTS[slot], len(group)), strict=True)
    return template.format_map(words)


def _records(queries: Iterator[tuple[str, Family]], rng: Random) -> Iterator[dict[str, Any]]:
    for text, family in queries:
        difficulty = rng.gauss(0.0, _DIFFICULTY_SD)
        for model in _MODELS:
            ability = model.skills[family.skill] + model.domains.get(family.domain, 0.0)
            response_s = model.median_response_s * _LENGTH[family.skill] * rng.lognormvariate(0.0, _RESPONSE_LOG_SD)
            yield {
                "query": text,
                "category": family.domain,
                "task_name": _TASK_NAME,
                "model_name": model.name,
                "performance": _performance(ability - difficulty, family.skill, rng),
                "response_time": round(response_s, 3),
            }


def _performance(logit: float, skill: str, rng: Random) -> float:
    points = 4 if skill in _GRADED else 1
    probability = 1.0 / (1.0 + math.exp(-logit))
    return sum(rng.random() < probability for _ in range(points)) / points


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic_write(path) as stream:
        stream.writelines(dumps(row) + b"\n" for row in rows)
