from __future__ import annotations

import json
import shutil

import pytest

from gpu_select.commands.replay import command
from gpu_select.simulation import MODEL_NAMES, query_log

SMALL, LARGE = "sim-small-1b", "sim-generalist-70b"
PRICES = {"sim-biomed-13b": 0.5, "sim-coder-13b": 0.5, LARGE: 4.0, "sim-math-7b": 0.25, SMALL: 0.05}


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def priced(data_dir, write_lines, tmp_path_factory):
    """Folder of records with token counts (train.jsonl, held_out.jsonl), models.yaml, and a log without outcomes."""
    folder = tmp_path_factory.mktemp("priced")
    for name in ("train", "held_out"):
        rows = rows_of(data_dir / f"{name}.jsonl")
        for row in rows:
            row.update(input_tokens=4 + len(row["query"].split()), output_tokens=round(100 * row["response_time"]))
        write_lines(folder / f"{name}.jsonl", rows)
    models = [
        f"  - {{name: {m}, pricing: {{prompt_per_1m: {p}, completion_per_1m: {p}}}}}\n" for m, p in PRICES.items()
    ]
    (folder / "models.yaml").write_text("models:\n" + "".join(models))
    write_lines(folder / "log.jsonl", query_log(90, seed=0))
    return folder


@pytest.fixture
def replay(cli, priced, models_dir, tiny_encoder_path, tmp_path):
    """Call with a log and options, which win over the usual ones; gives the result and the JSON, where there is one."""

    def run(*options, log=priced / "log.jsonl", data=priced / "train.jsonl", models=models_dir, stdin=b""):
        out = tmp_path / "replay.json"
        done = cli(
            *("replay", log, "--data-file", data, "--models-dir", models, "--embedding-model", tiny_encoder_path),
            *("--cache-dir", tmp_path / "cache", "--json", out, *options),
            stdin=stdin,
        )
        return done, json.loads(out.read_bytes()) if out.exists() else None

    return run


@pytest.fixture
def prices(priced):
    return "--models-config", priced / "models.yaml"


def policy(document, name: str) -> dict:
    return next(p for p in document["policies"] if p["name"] == name)


def share(found: dict, model: str) -> float:
    return next(row["queries"] for row in found["models"] if row["model"] == model) / found["queries"]


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
    assert [name for name, option in options.items() if option.required] == ["logs", "--data-file", "--models-dir"]
    assert options["--cache-dir"].default == ".cache/"
    assert options["--max-share"].multiple
    for name in ("--budget", "--budget-per-1000", "--quality-weight", "--candidates", "--json", "--policy-output"):
        assert name in options


def test_a_log_without_outcomes(replay, prices):
    done, document = replay(*prices)
    assert done.status == 0, done.err
    assert [line.rpartition(": ")[2] for line in done.err.splitlines()] == [
        f"{n} queries are longer than the encoder takes and were truncated" for n in (116, 89)
    ]
    assert (document["queries"], document["record_queries"], document["encoder"]) == (90, 120, "tiny-bert")
    assert document["models"] == list(MODEL_NAMES)
    names = [p["name"] for p in document["policies"]]
    assert names[:4] == ["knn", "kmeans", "svm", "mlp"]
    assert sorted(names[4:9]) == sorted(f"always:{name}" for name in MODEL_NAMES)
    assert names[9:] == ["best-expected"]
    for found in document["policies"]:
        assert found["outcomes"] == []
        assert sum(row["queries"] for row in found["models"]) == found["queries"] == 90
        assert sum(row["queries"] for row in found["domains"]) == 90
        assert 0 < found["quality"] < 1
        assert found["cost_usd"] > 0
    best = policy(document, "best-expected")
    assert all(p["quality"] <= best["quality"] + 1e-6 for p in document["policies"])
    assert [s["against"] for s in document["sweeps"]] == ["time", "cost"]
    assert document["limits"] is None
    assert share(policy(document, f"always:{SMALL}"), SMALL) == 1


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_a_selector_does_what_route_does(replay, cli, priced, models_dir, tiny_encoder_path, algorithm):
    done = cli(
        *("route", "--input", priced / "log.jsonl", "--output", "-", "--models-dir", models_dir),
        *("--algorithm", algorithm, "--embedding-model", tiny_encoder_path),
    )
    routed = [json.loads(line)["model"] for line in done.out.splitlines()]
    found = policy(replay()[1], algorithm)
    assert {row["model"]: row["queries"] for row in found["models"] if row["queries"]} == {
        name: routed.count(name) for name in set(routed)
    }


def test_the_printed_tables(replay, prices):
    done, document = replay(*prices, "--budget", 0.01, "--max-share", f"{LARGE}=10%")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{document['log_file']}: 90 rows x 5 models, as 120 queries of ")
    assert lines[1].split() == ["policy", "quality", "time", "$/1000", "$", "models"]
    for line, found in zip(lines[2:], document["policies"], strict=False):
        assert line.split()[:2] == [found["name"], f"{found['quality']:.4f}"]
        assert f"{1000 * found['cost_usd']:.4g}" in line
    assert "within-limits, by model" in lines
    assert "within-limits, by domain" in lines
    assert "sweep of the quality weight against time: the best choices at each time" in lines
    assert "sweep of the quality weight against cost: the best choices at each cost" in lines
    assert any(line.startswith("a weight alone: train --quality-weight ") for line in lines)
    assert any(line.startswith("quality is expected, not measured") for line in lines)
    assert [line for line in lines[1:] if len(line) > 120] == []


def test_a_budget_and_shares_are_kept(replay, prices, tmp_path):
    out = tmp_path / "policy.csv"
    free = replay(*prices)[1]
    budget = 0.5 * policy(free, "best-expected")["cost_usd"] * 90
    limits = "--budget", budget, "--max-share", f"{LARGE}=20", "--max-share", "sim-math-7b=5.6"
    done, document = replay(*prices, *limits, "--policy-output", out)
    assert done.status == 0, done.err
    own = policy(document, "within-limits")
    assert own["cost_usd"] * 90 <= budget * (1 + 1e-6)
    assert share(own, LARGE) <= 0.2
    assert share(own, "sim-math-7b") <= 5 / 90
    assert own["quality"] <= document["limits"]["bound"] + 1e-6
    assert own["quality"] < policy(document, "best-expected")["quality"]
    assert document["limits"]["max_share"] == pytest.approx({LARGE: 0.2, "sim-math-7b": 0.056})
    table = [line.split(",") for line in out.read_text().splitlines()]
    assert table[0] == ["row", "model", "error"]
    assert [row[0] for row in table[1:]] == [str(i) for i in range(90)]
    chosen = [row[1] for row in table[1:]]
    assert chosen.count(LARGE) == round(share(own, LARGE) * 90)


def test_a_budget_for_1000_rows(replay, prices):
    document = replay(*prices, "--budget-per-1000", 0.1)[1]
    assert document["limits"]["budget_usd"] == pytest.approx(0.009)
    assert policy(document, "within-limits")["cost_usd"] <= 0.0001 * (1 + 1e-6)


def test_a_weight_alone(replay):
    document = replay("--quality-weight", 0.5)[1]
    own = document["policies"][-1]
    assert own["name"] == "quality-weight 0.5"
    assert own["time_s"] < policy(document, "best-expected")["time_s"]
    assert own["cost_usd"] is None
    assert document["limits"]["nearest"] is None


def test_outcomes_in_the_log_are_set_against_what_was_expected(replay, priced, prices, write_lines, tmp_path):
    """Records as a log: every model answered every query, so that all of a policy's choices have outcomes."""
    done, document = replay(*prices, log=priced / "held_out.jsonl")
    assert done.status == 0, done.err
    logged = policy(document, "as logged")
    rows = rows_of(priced / "held_out.jsonl")
    outcomes = {found["figure"]: found for found in logged["outcomes"]}
    assert set(outcomes) == {"quality", "time_s", "cost_usd"}
    for figure, field in (("quality", "performance"), ("time_s", "response_time")):
        assert outcomes[figure]["rows"] == len(rows) == 300
        assert outcomes[figure]["realised"] == pytest.approx(sum(row[field] for row in rows) / 300)
    spent = sum((row["input_tokens"] + row["output_tokens"]) * PRICES[row["model_name"]] for row in rows) / 1e6
    assert outcomes["cost_usd"]["realised"] == pytest.approx(spent / 300)
    low, high = outcomes["quality"]["ci95"]
    assert low < outcomes["quality"]["realised"] - outcomes["quality"]["expected"] < high
    (knn,) = [o for o in policy(document, "knn")["outcomes"] if o["figure"] == "quality"]
    assert knn["rows"] == 60
    assert "as logged      quality      300" in done.out


def test_a_production_log_tells_of_one_model_a_row(replay, priced, prices, write_lines, tmp_path):
    rows = [row for row in rows_of(priced / "held_out.jsonl") if row["model_name"] == SMALL]
    log = write_lines(
        tmp_path / "log.jsonl",
        (
            {
                "query": r["query"],
                "domain": r["category"],
                "served_by": SMALL if i else "gone",
                "performance": r["performance"],
            }
            for i, r in enumerate(rows)
        ),
    )
    done, document = replay(*prices, "--model-field", "served_by", log=log)
    assert done.status == 0
    logged = policy(document, "as logged")
    assert (logged["queries"], share(logged, SMALL)) == (59, 1)
    assert "rows of models that " in done.err
    assert "does not have count as unanswered: gone (1)" in done.err


def test_queries_of_the_records_are_counted(replay, priced):
    done, document = replay(log=priced / "train.jsonl")
    assert document["queries_in_records"] == document["queries"] == 600
    assert "600 rows are queries of the records, estimated without their own outcomes" in done.out


def test_bad_rows_are_left_out_and_counted(replay, tmp_path, prices):
    rows = b'{"query": "What is a tort?"}\n{"q": 1}\nnot json\n{"query": "Integrate x.", "performance": 7}\n'
    out = tmp_path / "policy.jsonl"
    done, document = replay("--max-share", f"{LARGE}=50", "--policy-output", out, log="-", stdin=rows)
    assert done.status == 0
    assert (document["rows"], document["queries"]) == (4, 2)
    assert "2 of 4 rows are left out: row 2: query: expected a text that is not empty, got no such field" in done.err
    assert "2 of 2 rows have no domain" in done.err
    assert "performance: expected a number in [0, 1], got 7" in done.err
    written = rows_of(out)
    assert [row["row"] for row in written] == [0, 1, 2, 3]
    assert ["error" in row for row in written] == [False, True, True, False]


def test_other_formats(replay, tmp_path):
    log = tmp_path / "log.csv"
    rows = "What is a tort?,law,sim-small-1b,0.5", "Integrate x.,math,,", "What is force?,physics,sim-small-1b,0.75"
    log.write_text("\n".join(["text,area,model,performance", *rows, ""]))
    done, document = replay("--query-field", "text", "--domain-field", "area", log=log)
    assert done.status == 0, done.err
    assert (document["queries"], policy(document, "as logged")["queries"]) == (3, 2)
    assert policy(document, "as logged")["outcomes"][0]["realised"] == 0.625


def test_candidates_restrict_all_policies(replay, prices):
    document = replay(*prices, "--candidates", f"{SMALL},{LARGE}")[1]
    assert document["candidates"] == [SMALL, LARGE]
    assert [p["name"] for p in document["policies"] if p["kind"] == "single"] != []
    for found in document["policies"]:
        assert {row["model"] for row in found["models"] if row["queries"]} <= {SMALL, LARGE}
    for found in document["sweeps"]:
        assert set(found["points"][0]["shares"]) == {SMALL, LARGE}


def test_models_without_prices_have_no_cost_and_are_named(replay, priced, tmp_path):
    some = tmp_path / "some.yaml"
    some.write_text(f"models:\n  - {{name: {SMALL}, pricing: {{prompt_per_1m: 1, completion_per_1m: 1}}}}\n")
    done, document = replay("--models-config", some)
    assert done.status == 0
    assert f"no cost where these models are chosen: {MODEL_NAMES[0]}: it has no prices" in done.err
    assert policy(document, f"always:{LARGE}")["cost_usd"] is None
    assert policy(document, f"always:{SMALL}")["cost_usd"] > 0
    assert [s["against"] for s in document["sweeps"]] == ["time"]


def test_records_without_tokens_say_what_is_missing(replay, data_dir, prices):
    done, _ = replay(*prices, data=data_dir / "train.jsonl")
    assert f"{LARGE}: the records have no output_tokens of it" in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--budget", 1e-9), "budget: expected at least "),
        (("--budget", -1), "budget: expected USD, a number >= 0, got -1.0"),
        (("--budget", 1, "--budget-per-1000", 1), "budget-per-1000: expected one of the two budgets, got 1.0"),
        (("--quality-weight", 2), "quality-weight: expected a number in [0, 1], got 2.0"),
        (("--max-share", "nobody=5"), f"max-share: expected one of the candidates {MODEL_NAMES[0]}"),
        (("--max-share", f"{SMALL}=-5"), f"max-share of {SMALL}: expected percent, a number in [0, 100], got -5.0"),
        (
            [option for name in MODEL_NAMES for option in ("--max-share", f"{name}=10")],
            "max-share: expected shares with room for all 90 rows together, got 45",
        ),
        (("--candidates", "nobody"), "candidates: expected models of "),
        (
            ("--candidates", f"{SMALL},{LARGE},{SMALL}", "--max-share", f"{SMALL}=20"),
            f"candidates: expected names of models with commas between, each once, got '{SMALL},{LARGE},{SMALL}'",
        ),
        (("--candidates", ","), "candidates: expected names of models with commas between, each once, got ''"),
        (("--algorithm", "mlp"), "algorithm: expected one of knn, which "),
    ],
)
def test_a_mistake_is_one_line(replay, prices, models_dir, tmp_path, options, text):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(models_dir / "knn_model.json", models)
    check_failed(*replay(*prices, *options, models=models), text)


def test_a_budget_without_prices_says_what_it_needs(replay):
    text = f"budget: needs costs: prices in --models-config, tokens in the records, and has none for {MODEL_NAMES[0]}"
    check_failed(*replay("--budget", 1), text)


@pytest.mark.parametrize(
    ("option", "path", "text"),
    [
        ("--json", "-", "json: expected a file, as the tables go to standard output, got '-'"),
        ("--policy-output", "-", "policy-output: expected a file, as the tables go to standard output, got '-'"),
        ("--json", "file/out.json", "cannot write "),
        ("--policy-output", "out.xyz", "out.xyz: "),
        ("--json", "folder.json", "folder.json: it is a folder"),
        ("--policy-output", "folder.json", "folder.json: it is a folder"),
        ("--policy-output", "replay.json", "policy-output: expected a file that nothing else "),
    ],
)
def test_an_output_that_cannot_be_written_is_known_before_anything_is_read(replay, tmp_path, option, path, text):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    path = path if path == "-" else tmp_path / path
    done, _ = replay("--quality-weight", 0.5, option, path, log=tmp_path / "none.jsonl")
    check_failed(done, None, text)
    assert "none.jsonl" not in done.err


@pytest.mark.parametrize("option", ["--json", "--policy-output"])
def test_no_output_takes_the_place_of_what_is_read(replay, priced, prices, tmp_path, option):
    log = tmp_path / "log.jsonl"
    shutil.copy(priced / "log.jsonl", log)
    (tmp_path / "link.jsonl").symlink_to(log)
    for path in (log, tmp_path / "link.jsonl"):
        done, _ = replay(*prices, "--quality-weight", 0.5, option, path, log=log)
        check_failed(done, None, f"{option[2:]}: expected a file that nothing else is read from or written to, got ")
    assert log.read_bytes() == (priced / "log.jsonl").read_bytes()


def test_records_of_one_query(replay, priced, write_lines, tmp_path):
    first, *others = rows_of(priced / "train.jsonl")
    write_lines(tmp_path / "one.jsonl", [first, *(row for row in others if row["query"] == first["query"])])
    done, document = replay(data=tmp_path / "one.jsonl")
    check_failed(done, document, "one.jsonl: expected records of two queries at least, got one")


def test_a_model_field_that_no_row_has(replay, write_lines, tmp_path):
    log = tmp_path / "log.jsonl"
    write_lines(log, [{"query": "What is a tort?", "model": SMALL}, {"query": "Why?", "who": None}])
    done, document = replay("--model-field", "who", log=log)
    assert f"warning: {log}: no row names a model in who: nothing is known of what the log did\n" in done.err
    assert "as logged" not in [p["name"] for p in document["policies"]]
    assert "no row names a model" not in replay(log=log)[0].err


def test_several_files_are_one_log(replay, priced, tmp_path):
    whole = replay()[1]
    lines = (priced / "log.jsonl").read_text().splitlines(keepends=True)
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, rows in (("a.jsonl", lines[:40]), ("b.jsonl", ["no JSON\n", *lines[40:]])):
        (folder / name).write_text("".join(rows))
    choices = tmp_path / "choices.jsonl"
    for log in ([folder], [folder / "*.jsonl"], [folder / "a.jsonl", folder / "b.jsonl"]):
        done, document = replay("--quality-weight", 1, "--policy-output", choices, *log[1:], log=log[0])
        assert f": 1 of 91 rows are left out: row 41: {folder / 'b.jsonl'}: " in done.err
        assert document["log_file"] == ", ".join(map(str, log))
        assert policy(document, "knn") == policy(whole, "knn")
        rows = rows_of(choices)
        assert [row["row"] for row in rows] == [*range(91)]
        assert [row["row"] for row in rows if row["model"] is None] == [40]


def test_no_output_is_one_of_the_logs(replay, write_lines, tmp_path):
    other = write_lines(tmp_path / "other.jsonl", [{"query": "Why?"}])
    done, document = replay(other, "--quality-weight", 1, "--policy-output", other)
    check_failed(done, document, "policy-output: expected a file that nothing else is read from or written to, got ")


def test_an_empty_log(replay, tmp_path):
    check_failed(*replay(log="-"), "-: expected at least one row with a query, got no row at all")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": ""}\n')
    check_failed(*replay(log=bad), f"{bad}: expected at least one row with a query, got 1 rows, the first with row 1: ")


def test_a_log_that_is_not_there_is_known_before_anything_is_embedded(replay, tmp_path):
    check_failed(*replay(log=tmp_path / "none.jsonl"), "cannot read ")
    assert not (tmp_path / "cache").exists()


def test_a_column_that_a_table_does_not_have(replay, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("query,model\nWhat is a tort?,a\n")
    check_failed(*replay("--model-field", "who", log=log), "model-field: expected one of the columns of ")


def test_a_selector_of_models_that_the_records_do_not_have(replay, priced, write_lines, tmp_path):
    rows = [row for row in rows_of(priced / "train.jsonl") if row["model_name"] != SMALL]
    data = write_lines(tmp_path / "fewer.jsonl", rows)
    check_failed(*replay(data=data), f"got none of {SMALL}; give records that have them, or leave them out with")
    others = ",".join(name for name in MODEL_NAMES if name != SMALL)
    done, document = replay("--candidates", others, data=data)
    assert done.status == 0
    assert len(document["models"]) == 4


def test_files_of_another_encoder(cli, priced, models_dir, write_tiny_bert, tmp_path):
    other = write_tiny_bert(tmp_path / "other", hidden_size=48)
    done = cli(
        *("replay", priced / "log.jsonl", "--data-file", priced / "train.jsonl", "--models-dir", models_dir),
        *("--embedding-model", other, "--cache-dir", tmp_path / "cache"),
    )
    check_failed(done, None, "trained with encoder 'tiny-bert'")


def test_policy_output_without_limits_is_wrong_usage(replay, tmp_path):
    done, document = replay("--policy-output", tmp_path / "out.jsonl")
    assert done.status == 2
    assert "--policy-output writes the choices within limits" in done.err
    assert document is None


@pytest.mark.parametrize("value", ["a", "a=", "=5", "a=x", "a=nan"])
def test_a_share_that_is_none_is_wrong_usage(replay, value):
    done, _ = replay("--max-share", value)
    assert done.status == 2
    assert f"expected MODEL=PERCENT, each model once, got '{value}'" in done.err


def test_the_report_takes_it(replay, cli, prices, tmp_path):
    pytest.importorskip("plotly")
    replay(*prices, "--budget", 0.01)
    done = cli("report", "--replay", tmp_path / "replay.json", "--output", tmp_path / "report.html")
    assert done.status == 0, done.err
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="replay-1">Replay of log.jsonl</h2>' in text
