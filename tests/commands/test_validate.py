from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from gpu_select.commands.validate import command
from gpu_select.encoder import Encoder
from gpu_select.simulation import MODEL_NAMES

SELECTORS = ["knn", "kmeans", "svm", "mlp"]


@pytest.fixture
def validate(cli, data_dir, models_dir, tiny_encoder_path, tmp_path):
    """Call with options, which win over the usual ones; gives the result and the JSON, where there is one."""

    def run(*options, models=models_dir, data=data_dir / "held_out.jsonl", json_path=tmp_path / "table.json"):
        usual = "--data-file", data, "--models-dir", models, "--embedding-model", tiny_encoder_path
        done = cli("validate", *usual, "--cache-dir", tmp_path / "cache", "--json", json_path, *options)
        return done, json.loads(json_path.read_bytes()) if json_path.exists() else None

    return run


def by_name(document: dict) -> dict[str, dict]:
    return {strategy["name"]: strategy for strategy in document["strategies"]}


def difference(document: dict, a: str, b: str) -> dict:
    """The comparison of two strategies, whichever comes first."""
    for found in document["comparisons"]:
        if (found["a"], found["b"]) == (a, b):
            return found
        if (found["a"], found["b"]) == (b, a):
            low, high = found["ci95"]
            return {"difference": -found["difference"], "ci95": [-high, -low]}
    raise AssertionError(f"no comparison of {a} and {b}")


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_failed(done, document, text: str) -> None:
    assert done.status == 1
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert text in errors[0]
    assert document is None


def test_the_documented_options():
    options = {name: option for option in command.params for name in option.opts}
    for name in ("--data-file", "--models-dir", "--embedding-model", "--cache-dir", "--device", "--json"):
        assert name in options
    assert options["--cache-dir"].default == ".cache/"
    assert [name for name, option in options.items() if option.required] == ["--data-file", "--models-dir"]


def test_the_json_has_the_documented_shape(validate):
    done, document = validate()
    assert done.status == 0
    assert (document["format"], document["version"]) == ("gpu_select.validation", 1)
    assert (document["queries"], document["encoder"]) == (60, "tiny-bert")
    assert document["left_out"] == {"in_training": 0, "examples": []}
    assert document["models"] == list(MODEL_NAMES)
    names = [strategy["name"] for strategy in document["strategies"]]
    assert names[:5] == ["oracle", *SELECTORS]
    assert sorted(names[5:10]) == [f"always:{name}" for name in MODEL_NAMES]
    assert names[10] == "per-domain"
    assert names[11].startswith("fastest:")
    assert names[12:] == ["random"]
    assert len(document["comparisons"]) == 13 * 12 / 2
    assert sum(row["queries"] for row in document["domains"]) == 60
    assert [(c["strategy"], c["against"]) for c in document["curves"]] == [(name, "latency") for name in SELECTORS]
    assert [entry["strategy"] for entry in document["confidence"]] == SELECTORS
    for strategy in document["strategies"]:
        assert {"name", "mean_quality", "mean_latency_s", "best_rate", "ci95"} <= set(strategy)
        low, high = strategy["ci95"]
        assert 0 <= low <= strategy["mean_quality"] <= high <= 1
        assert 0 <= strategy["best_rate"] <= 1
        assert strategy["mean_latency_s"] > 0


def test_the_figures_are_those_of_the_records(validate, data_dir):
    found = by_name(validate()[1])
    rows = records(data_dir / "held_out.jsonl")
    by_query: dict[str, list[dict]] = {}
    for row in rows:
        by_query.setdefault(row["query"], []).append(row)
    assert found["random"]["mean_quality"] == pytest.approx(sum(row["performance"] for row in rows) / 300)
    oracle = sum(max(row["performance"] for row in group) for group in by_query.values()) / 60
    assert found["oracle"]["mean_quality"] == pytest.approx(oracle)
    for name in MODEL_NAMES:
        own = [row for row in rows if row["model_name"] == name]
        single = found[f"always:{name}"]
        assert single["mean_quality"] == pytest.approx(sum(row["performance"] for row in own) / 60)
        assert single["mean_latency_s"] == pytest.approx(sum(row["response_time"] for row in own) / 60)


@pytest.mark.parametrize("algorithm", SELECTORS)
def test_a_selector_is_judged_by_what_route_decides(validate, cli, models_dir, data_dir, tiny_encoder_path, algorithm):
    rows = {(row["query"], row["model_name"]): row for row in records(data_dir / "held_out.jsonl")}
    queries = {query: rows[query, MODEL_NAMES[0]]["category"] for query, _ in rows}
    log = "".join(json.dumps({"query": query, "category": domain}) + "\n" for query, domain in queries.items())
    done = cli(
        *("route", "--input", "-", "--output", "-", "--models-dir", models_dir, "--algorithm", algorithm),
        *("--embedding-model", tiny_encoder_path),
        stdin=log.encode(),
    )
    chosen = [rows[row["query"], row["model"]] for row in map(json.loads, done.out.splitlines())]
    strategy = by_name(validate()[1])[algorithm]
    assert strategy["mean_quality"] == pytest.approx(sum(row["performance"] for row in chosen) / 60)
    assert strategy["mean_latency_s"] == pytest.approx(sum(row["response_time"] for row in chosen) / 60)


def test_the_table_shows_every_strategy(validate):
    done, document = validate()
    lines = done.out.splitlines()
    assert lines[0] == "60 queries x 5 models"
    assert lines[1].split() == [
        *("strategy", "quality", "95", "%", "interval", "latency", "best"),
        *("vs", "best", "single", "of", "gap"),
    ]
    single = next(name for name in by_name(document) if name.startswith("always:"))
    for line, strategy in zip(lines[2:], document["strategies"], strict=False):
        low, high = strategy["ci95"]
        assert line.split()[:3] == [strategy["name"], f"{strategy['mean_quality']:.4f}", f"{low:.4f}-{high:.4f}"]
        assert f" {strategy['best_rate']:.1%} " in line
        assert line.endswith(f"{strategy['gap_share']:.1%}")
        if strategy["name"] == single:
            assert line.split()[-2] == "-"
        else:
            low, high = difference(document, strategy["name"], single)["ci95"]
            assert f"{strategy['gain_over_best_single']:+.4f} [{low:+.4f}, {high:+.4f}]" in line
    for line, name in zip(lines[15:19], SELECTORS, strict=True):
        assert line.startswith(f"{name}: ")
    assert lines[-1] == "per-domain: the best model of each domain on the training data; random: its expectation"


def test_a_verdict_says_whether_the_interval_excludes_zero(validate):
    done, document = validate()
    single = next(name for name in by_name(document) if name.startswith("always:"))
    for line in done.out.splitlines()[15:19]:
        name, _, verdicts = line.partition(": ")
        for verdict, other in zip(verdicts.split("; "), (single, "per-domain"), strict=False):
            found = difference(document, name, other)
            low, high = found["ci95"]
            if low > 0 or high < 0:
                word = "better" if low > 0 else "worse"
                assert verdict.startswith(f"{word} than {other} by {abs(found['difference']):.4f} [{low:+.4f}")
            else:
                assert verdict == f"not distinguishable from {other} ({found['difference']:+.4f})"


def test_lines_stay_narrow(validate, data_dir, models_dir, write_lines, tmp_path):
    long = "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo"
    rows = records(data_dir / "held_out.jsonl")
    for row in rows:
        row.update(cost=1e-4, model_name=row["model_name"].replace("sim-math-7b", long))
    folder = tmp_path / "renamed"
    folder.mkdir()
    content = (models_dir / "knn_model.json").read_text()
    (folder / "knn_model.json").write_text(content.replace("sim-math-7b", long))
    done, document = validate(models=folder, data=write_lines(tmp_path / "long.jsonl", rows))
    assert done.status == 0, done.err
    table = done.out.splitlines()[1 : len(document["strategies"]) + 2]
    assert "$/1000" in table[0]
    assert max(map(len, table)) <= 120
    assert any(line.startswith(f"always:{long}"[:28] + "...  ") for line in table)
    assert f"always:{long}" in by_name(document)


def test_without_json_nothing_is_written(cli, data_dir, models_dir, tiny_encoder_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = "--data-file", data_dir / "held_out.jsonl", "--models-dir", models_dir
    done = cli("validate", *arguments, "--embedding-model", tiny_encoder_path)
    assert done.status == 0
    assert [path.name for path in tmp_path.iterdir()] == [".cache"]


def test_texts_are_embedded_once_for_all_selectors(validate, monkeypatch):
    encode, rows = Encoder.encode, []
    monkeypatch.setattr(
        Encoder, "encode", lambda self, batch: (rows.append(len(batch.lengths)), encode(self, batch))[1]
    )
    assert validate()[0].status == 0
    assert sum(rows) == 60
    assert validate()[0].status == 0
    assert sum(rows) == 60


@pytest.mark.parametrize("algorithm", SELECTORS)
def test_a_folder_with_one_file_is_enough(validate, models_dir, tmp_path, algorithm):
    folder = tmp_path / "one"
    folder.mkdir()
    content = (models_dir / f"{algorithm}_model.json").read_bytes()
    (folder / f"{algorithm}_model.json.gz").write_bytes(gzip.compress(content))
    done, document = validate(models=folder)
    assert done.status == 0
    assert [name for name in by_name(document) if name in SELECTORS] == [algorithm]


def foreign(models_dir: Path, folder: Path, algorithms: list[str]) -> Path:
    """The files as another program would have written them."""
    folder.mkdir()
    for algorithm in algorithms:
        document = json.loads((models_dir / f"{algorithm}_model.json").read_bytes())
        del document["gpu_select"]
        (folder / f"{algorithm}_model.json").write_text(json.dumps(document))
    return folder


def test_files_of_other_programs_validate_too(validate, models_dir, tmp_path):
    ours = by_name(validate()[1])
    done, document = validate(models=foreign(models_dir, tmp_path / "foreign", SELECTORS))
    assert done.status == 0
    theirs = by_name(document)
    assert {name: theirs[name] for name in SELECTORS} == {name: ours[name] for name in SELECTORS}
    last_of_all = "the files do not name their training queries: whether some are among these cannot be checked"
    assert done.out.splitlines()[-1] == last_of_all
    # nobody told which model did best in training: each query's domain without the query itself
    last = "per-domain: the best model of each domain on the other queries of this file; random: its expectation"
    assert done.out.splitlines()[-2] == last
    assert theirs["per-domain"] != ours["per-domain"]


def test_one_file_of_ours_tells_for_all(validate, models_dir, tmp_path):
    folder = foreign(models_dir, tmp_path / "mixed", ["knn", "kmeans"])
    shutil.copy(models_dir / "svm_model.json", folder)
    done, document = validate(models=folder)
    assert by_name(document)["per-domain"] == by_name(validate()[1])["per-domain"]
    assert "on the training data" in done.out


def test_models_without_outcomes_are_left_out_with_a_word(validate, data_dir, write_lines, tmp_path):
    rows = [row for row in records(data_dir / "held_out.jsonl") if row["model_name"] != "sim-math-7b"]
    data = write_lines(tmp_path / "data.jsonl", rows)
    done, document = validate(data=data)
    assert done.status == 0
    assert f"warning: svm: no outcomes of sim-math-7b in {data}; it chooses among the others\n" in done.err
    assert "always:sim-math-7b" not in by_name(document)
    assert by_name(document)["svm"]["n_scored"] == 60


def test_holes_are_counted(validate, data_dir, write_lines, tmp_path):
    rows = records(data_dir / "held_out.jsonl")
    data = write_lines(tmp_path / "data.jsonl", [row for i, row in enumerate(rows) if i % 7])
    done, document = validate(data=data)
    assert done.status == 0
    singles = [by_name(document)[f"always:{name}"]["n_scored"] for name in MODEL_NAMES]
    assert all(40 < n < 60 for n in singles)
    assert "pairs have no outcome; means are over what is there" in done.err
    assert f"always:{MODEL_NAMES[0]} {singles[0]}" in done.out.splitlines()[-1]


def test_without_times_there_is_no_latency(validate, data_dir, write_lines, tmp_path):
    rows = records(data_dir / "held_out.jsonl")
    for row in rows:
        del row["response_time"]
    done, document = validate(data=write_lines(tmp_path / "data.jsonl", rows))
    assert done.status == 0
    assert {strategy["mean_latency_s"] for strategy in document["strategies"]} == {None}


def test_records_of_other_models_are_an_error(validate, write_lines, tmp_path):
    record = {"query": "why?", "category": "law", "model_name": "gpt", "performance": 1.0}
    data = write_lines(tmp_path / "data.jsonl", [record])
    done, document = validate(data=data)
    check_failed(done, document, f"error: {data}: expected outcomes of sim-")
    assert "got gpt" in done.err


def test_missing_files_name_the_cure(validate, tmp_path):
    done, document = validate(models=tmp_path / "none")
    check_failed(done, document, f"error: pretrained model not found: {tmp_path / 'none'} holds none of knn_model.json")
    assert f"(train them: gpu-select train --data-file RECORDS.jsonl --output-dir {tmp_path / 'none'})" in done.err


def test_another_encoder_is_an_error_that_names_both(validate, write_tiny_bert, tmp_path):
    other = write_tiny_bert(tmp_path / "other-bert", num_hidden_layers=1)
    done, document = validate("--embedding-model", other)
    check_failed(done, document, "trained with encoder 'tiny-bert' (fingerprint ")
    assert "got 'other-bert'" in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--device", "abacus"], "error: device: expected cpu, cuda, cuda:N or mps, got 'abacus'"),
        (["--data-file", "nonesuch.jsonl"], "error: cannot read nonesuch.jsonl: No such file or directory"),
        (["--embedding-model", "nonesuch"], "error: encoder 'nonesuch': no such folder"),
    ],
)
def test_a_bad_option_is_one_line(validate, options, text):
    check_failed(*validate(*options), text)


def test_a_json_that_cannot_be_written(validate, tmp_path):
    (tmp_path / "folder").mkdir()
    done, _ = validate("--json", tmp_path / "folder")
    assert done.status == 1
    assert done.err.splitlines()[-1] == f"error: cannot write {tmp_path / 'folder'}: it is a folder"


def test_strict_stops_at_the_first_bad_record(validate, data_dir, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"{broken\n" + (data_dir / "held_out.jsonl").read_bytes())
    assert validate(data=data)[0].status == 0
    (tmp_path / "table.json").unlink()
    check_failed(*validate("--strict", data=data), f"error: {data}: line 1: not JSON")


@pytest.mark.parametrize("arguments", [[], ["--data-file", "x"], ["--models-dir", "x"]])
def test_wrong_usage_is_status_two(cli, arguments):
    done = cli("validate", *arguments)
    assert done.status == 2
    assert done.err.startswith("Usage: gpu-select validate ")


def test_a_curve_starts_at_the_selectors_own_decisions(validate):
    document = validate()[1]
    for found in document["curves"]:
        first, last = found["points"][0], found["points"][-1]
        strategy = by_name(document)[found["strategy"]]
        assert first["weight"] == 1
        assert first["quality"] == pytest.approx(strategy["mean_quality"])
        assert first["latency_s"] == pytest.approx(strategy["mean_latency_s"])
        assert first["shares"] == pytest.approx(strategy["shares"])
        (alone,) = (name for name, share in last["shares"].items() if share)  # the fastest that it may choose
        assert last["latency_s"] == pytest.approx(by_name(document)[f"always:{alone}"]["mean_latency_s"])
        assert last["latency_s"] < first["latency_s"]


# --- queries that were in training ---


@pytest.fixture
def leaky(data_dir, write_lines, tmp_path):
    """The held-out records and those of seven training queries, written a little differently."""
    seen = records(data_dir / "train.jsonl")[:35]
    for row in seen:
        row["query"] = f"  {row['query'].upper()}\n"
    return write_lines(tmp_path / "leaky.jsonl", [*seen, *records(data_dir / "held_out.jsonl")])


def test_queries_of_the_training_data_are_named_and_left_out(validate, leaky):
    done, document = validate(data=leaky)
    assert done.status == 0
    first = document["left_out"]["examples"][0]
    assert document["left_out"]["in_training"] == 7
    assert len(document["left_out"]["examples"]) == 5
    assert f"warning: {leaky}: 7 of 67 queries were in training, such as " in done.err
    assert " ".join(first.split())[:30] in done.err
    assert "they are left out (--keep-training-queries keeps them)\n" in done.err
    assert document["queries"] == 60
    clean = validate()[1]
    assert document["strategies"] == clean["strategies"]
    assert document["curves"] == clean["curves"]


def test_they_can_be_kept_with_a_warning(validate, leaky):
    done, document = validate("--keep-training-queries", data=leaky)
    assert done.status == 0
    assert document["queries"] == 67
    assert document["left_out"] == {"in_training": 0, "examples": []}
    assert f"warning: {leaky}: 7 of 67 queries were in training, such as " in done.err
    assert "; they are kept, and flatter the selectors\n" in done.err


def test_nothing_but_training_queries_is_an_error(validate, data_dir):
    done, document = validate(data=data_dir / "train.jsonl")
    check_failed(
        done, document, "train.jsonl: all 120 queries were in training; validate on queries that were held out"
    )
    assert "--keep-training-queries" in done.err
    assert validate("--keep-training-queries", data=data_dir / "train.jsonl")[1]["queries"] == 120


def test_a_query_that_any_of_the_files_knows_is_left_out(validate, models_dir, leaky, tmp_path):
    folder = foreign(models_dir, tmp_path / "mixed", ["knn", "kmeans"])
    shutil.copy(models_dir / "svm_model.json", folder)
    assert validate(models=folder, data=leaky)[1]["left_out"]["in_training"] == 7
    shutil.rmtree(folder)
    done, document = validate(models=foreign(models_dir, tmp_path / "mixed", ["knn"]), data=leaky)
    assert document["left_out"]["in_training"] == 0
    assert "in training" not in done.err


def test_digests_that_are_none_are_an_error(validate, models_dir, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    document = json.loads((models_dir / "knn_model.json").read_bytes())
    document["gpu_select"]["data"]["query_digests"] = "?"
    (folder / "knn_model.json").write_text(json.dumps(document))
    text = "knn_model.json: gpu_select.data.query_digests: expected what train writes there, got '?'"
    check_failed(*validate(models=folder), text)


# --- costs ---


def with_tokens(data_dir: Path) -> list[dict]:
    """Held-out records with token counts that depend on the query and the model."""
    rows = records(data_dir / "held_out.jsonl")
    for i, row in enumerate(rows):
        row["usage"] = {
            "prompt_tokens": 100 + i % 7,
            "completion_tokens": 50 * (1 + MODEL_NAMES.index(row["model_name"])),
        }
    return rows


def prices_of(path: Path, names=MODEL_NAMES) -> Path:
    lines = [
        f"  {name}: {{pricing: {{prompt_per_1m: 1, completion_per_1m: {1 + i}}}}}\n" for i, name in enumerate(names)
    ]
    path.write_text("models:\n" + "".join(lines))
    return path


def test_prices_give_costs_and_curves(validate, data_dir, write_lines, tmp_path):
    rows = with_tokens(data_dir)
    data = write_lines(tmp_path / "data.jsonl", rows)
    done, document = validate("--models-config", prices_of(tmp_path / "models.yaml"), data=data)
    assert done.status == 0, done.err
    assert "cost" not in done.err
    for i, name in enumerate(MODEL_NAMES):
        usages = [row["usage"] for row in rows if row["model_name"] == name]
        cost = sum(u["prompt_tokens"] + (1 + i) * u["completion_tokens"] for u in usages) / len(usages) / 1e6
        assert by_name(document)[f"always:{name}"]["mean_cost_usd"] == pytest.approx(cost)
    assert f"cheapest:{MODEL_NAMES[0]}" in by_name(document)
    assert [c["against"] for c in document["curves"]] == ["cost", "latency"] * len(SELECTORS)
    lines = done.out.splitlines()
    assert "$/1000" in lines[1]
    assert f" {1000 * by_name(document)['oracle']['mean_cost_usd']:.4g} " in lines[2]


def test_prices_without_token_counts_are_one_warning(validate, data_dir, tmp_path):
    done, document = validate("--models-config", prices_of(tmp_path / "models.yaml"))
    assert done.status == 0
    assert done.err.count("cost") == 2
    data = data_dir / "held_out.jsonl"
    assert f"warning: no cost where these models are chosen: {data} has neither cost nor input_tokens and " in done.err
    assert {strategy["mean_cost_usd"] for strategy in document["strategies"]} == {None}


def test_a_model_without_a_price_is_named(validate, data_dir, write_lines, tmp_path):
    data = write_lines(tmp_path / "data.jsonl", with_tokens(data_dir))
    done, document = validate("--models-config", prices_of(tmp_path / "m.yaml", MODEL_NAMES[1:]), data=data)
    assert done.status == 0
    assert (
        f"warning: no cost where these models are chosen: {tmp_path / 'm.yaml'} has no prices of {MODEL_NAMES[0]} "
        f"(0 and 0 for a model that costs nothing)\n"
    ) in done.err
    found = by_name(document)
    assert found[f"always:{MODEL_NAMES[0]}"]["mean_cost_usd"] is None
    assert found[f"always:{MODEL_NAMES[1]}"]["mean_cost_usd"] > 0
    assert found["random"]["mean_cost_usd"] is None
    assert not any(name.startswith("cheapest:") for name in found)


def test_a_bad_prices_file_is_one_line_before_anything_else(validate, tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text("models:\n- {name: a, price: 3}\n")
    text = f"error: {path}: models[0].price: unknown key; expected one of "
    check_failed(*validate("--models-config", path, "--data-file", "nonesuch.jsonl"), text)
    check_failed(
        *validate("--models-config", tmp_path / "none.yaml"), f"cannot read {tmp_path / 'none.yaml'}: No such file"
    )
