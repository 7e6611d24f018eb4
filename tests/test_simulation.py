from __future__ import annotations

import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from gpu_select import jsonio
from gpu_select.domains import DOMAIN_NAMES
from gpu_select.errors import ConfigError, OutputError
from gpu_select.simulation import MAX_QUERIES, MODEL_NAMES, benchmark_records, query_log, write_demo_data
from gpu_select.simulation_templates import FAMILIES, OPENERS, SLOTS

N_MODELS = len(MODEL_NAMES)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def question(query: str) -> str:
    """The query without its opener."""
    return next((query.removeprefix(opener) for opener in OPENERS if opener and query.startswith(opener)), query)


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return list(benchmark_records(2000, seed=0))


def test_a_record_is_what_a_benchmark_line_holds(records):
    assert len(records) == 2000 * N_MODELS
    for record in records[:500]:
        assert list(record) == ["query", "category", "task_name", "model_name", "performance", "response_time"]
        assert record["task_name"] == "simulated"
        assert record["performance"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert 0.0 < record["response_time"] < 60.0


def test_each_query_is_answered_by_all_models_one_after_the_other(records):
    for start in range(0, len(records), N_MODELS):
        group = records[start : start + N_MODELS]
        assert len({record["query"] for record in group}) == 1
        assert tuple(record["model_name"] for record in group) == MODEL_NAMES


def test_model_names_say_that_they_are_simulated():
    assert all(name.startswith("sim-") for name in MODEL_NAMES)


def test_all_documented_domains_occur_about_equally_often(records):
    counts: dict[str, int] = defaultdict(int)
    for record in records[::N_MODELS]:
        counts[record["category"]] += 1
    assert sorted(counts) == sorted(DOMAIN_NAMES)
    assert min(counts.values()) > 90
    assert max(counts.values()) < 200


def test_the_best_choice_depends_on_the_query_and_a_good_guess_is_worth_it(records):
    by_query = [records[start : start + N_MODELS] for start in range(0, len(records), N_MODELS)]
    train, held_out = by_query[:1500], by_query[1500:]
    singles = {name: fmean(group[m]["performance"] for group in held_out) for m, name in enumerate(MODEL_NAMES)}
    by_domain: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for group in train:
        by_domain[group[0]["category"]].append(group)
    choice = {
        domain: max(range(N_MODELS), key=lambda m: sum(group[m]["performance"] for group in groups))
        for domain, groups in by_domain.items()
    }
    per_domain = fmean(group[choice[group[0]["category"]]]["performance"] for group in held_out)
    oracle = fmean(max(record["performance"] for record in group) for group in held_out)
    assert 0.57 < max(singles.values()) < 0.68
    assert per_domain > max(singles.values()) + 0.08
    assert 0.87 < oracle < 0.95
    assert oracle > per_domain + 0.08


def test_each_model_is_the_fastest_of_the_best_somewhere_and_none_everywhere(records):
    wins = dict.fromkeys(MODEL_NAMES, 0)
    for start in range(0, len(records), N_MODELS):
        group = records[start : start + N_MODELS]
        best = min(group, key=lambda record: (-record["performance"], record["response_time"]))
        wins[best["model_name"]] += 1
    assert min(wins.values()) > 100
    assert max(wins.values()) < 900


def test_response_times_differ_by_model(records):
    medians = {
        name: median(record["response_time"] for record in records[m::N_MODELS]) for m, name in enumerate(MODEL_NAMES)
    }
    assert medians["sim-small-1b"] * 10 < medians["sim-generalist-70b"]


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    assert list(benchmark_records(50, seed=3)) == list(benchmark_records(50, seed=3))
    assert list(query_log(50, seed=3)) == list(query_log(50, seed=3))
    assert list(query_log(50, seed=3)) != list(query_log(50, seed=4))
    assert list(benchmark_records(50, seed=3)) != list(benchmark_records(50, seed=4))


def test_fewer_queries_are_a_prefix():
    assert list(benchmark_records(20, seed=1)) == list(islice(benchmark_records(400, seed=1), 20 * N_MODELS))
    assert list(query_log(20, seed=1)) == list(islice(query_log(400, seed=1), 20))


def test_log_rows_have_an_id_of_their_own_a_query_and_a_domain():
    rows = list(query_log(300, seed=0))
    assert [list(row) for row in rows[:3]] == [["id", "query", "domain"]] * 3
    assert rows[0]["id"] == "q000000"
    assert len({row["id"] for row in rows}) == 300
    assert {row["domain"] for row in rows} <= set(DOMAIN_NAMES)


def test_the_largest_log_is_all_distinct_and_overlaps_with_no_benchmark(records):
    log = {question(row["query"]) for row in query_log(MAX_QUERIES, seed=5)}
    assert len(log) == MAX_QUERIES
    assert log.isdisjoint(question(record["query"]) for record in records)


@pytest.mark.parametrize("n_queries", [0, -1, MAX_QUERIES + 1])
@pytest.mark.parametrize("make", [benchmark_records, query_log])
def test_a_number_of_queries_that_cannot_be_is_refused_at_the_call(make, n_queries):
    with pytest.raises(ConfigError, match=rf"^n_queries: expected 1 to {MAX_QUERIES}, got {n_queries}$"):
        make(n_queries, seed=0)


def test_the_demo_files_are_disjoint_and_of_the_sizes_asked_for(tmp_path):
    files = write_demo_data(tmp_path / "new", n_train=60, n_validate=30, n_log=40, seed=2)
    train, validation, log = (rows_of(path) for path in files)
    assert [path.name for path in files] == ["train.jsonl", "validation.jsonl", "log.jsonl"]
    assert (len(train), len(validation), len(log)) == (60 * N_MODELS, 30 * N_MODELS, 40)
    questions = [{question(row["query"]) for row in rows} for rows in (train, validation, log)]
    assert [len(each) for each in questions] == [60, 30, 40]
    assert len(set.union(*questions)) == 130


def test_the_demo_files_are_the_same_bytes_for_the_same_seed_with_and_without_orjson(tmp_path, monkeypatch):
    first = write_demo_data(tmp_path / "a", n_train=20, n_validate=10, n_log=10, seed=7)
    monkeypatch.setattr(jsonio, "orjson", None)
    second = write_demo_data(tmp_path / "b", n_train=20, n_validate=10, n_log=10, seed=7)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("field", ["n_train", "n_validate"])
def test_a_demo_without_queries_is_refused_and_writes_nothing(tmp_path, field):
    with pytest.raises(ConfigError, match=rf"^{field}: expected at least 1, got 0$"):
        write_demo_data(tmp_path / "out", **{field: 0})
    assert not (tmp_path / "out").exists()


def test_a_log_size_that_cannot_be_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="n_queries: expected 1 to"):
        write_demo_data(tmp_path / "out", n_log=0)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"^cannot write .*train\.jsonl: "):
        write_demo_data(tmp_path / "file", n_train=1, n_validate=1, n_log=1)


def test_each_domain_asks_for_three_different_skills():
    skills = defaultdict(set)
    for family in FAMILIES:
        skills[family.domain].add(family.skill)
    assert sorted(skills) == sorted(DOMAIN_NAMES)
    assert {len(each) for each in skills.values()} == {3}


def test_the_words_of_a_slot_are_distinct():
    for slot, words in SLOTS.items():
        assert len(set(words)) == len(words), slot
