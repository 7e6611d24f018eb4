"""Whole benchmarks by the command line, against servers in other processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from gpu_select.benchmark.scoring import Scorer
from gpu_select.errors import IsolationError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks and signals")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def benchmark(cli, server, tmp_path, output, write_lines):
    """Call with questions and options: what the command line says, on two models unless --models is given."""

    def run(questions, *options, models="x,y"):
        queries = write_lines(tmp_path / "queries.jsonl", questions)
        usual = "benchmark", "--queries", queries, "--output", output, "--endpoint", server.endpoint
        return cli(*usual, *(("--models", models) if models else ()), *options)

    return run


def script(*steps, note=""):
    """A query that tells the server what to do."""
    return json.dumps(steps) + note


def pairs(records):
    return sorted((record["model_name"], record["query"]) for record in records)


QUESTIONS = [
    {"query": "What is 2 + 2?", "category": "math", "ground_truth": "x says", "own": {"x": 1}},
    {"query": "Why?", "category": "law"},
    {"query": "Which?", "ground_truth": "B", "choices": ["Rome", "Paris"]},
]


def test_records_that_train_takes(benchmark, server, output, read_lines, model_server):
    done = benchmark(QUESTIONS)
    assert done.status == 0
    records = read_lines(output)
    assert pairs(records) == sorted((m, q["query"]) for m in "xy" for q in QUESTIONS)
    first = next(r for r in records if r["model_name"] == "x" and "2 + 2" in r["query"])
    assert {name: first[name] for name in QUESTIONS[0]} == QUESTIONS[0]
    assert first["response"] == model_server.text_of("x", "What is 2 + 2?")
    assert (first["performance"], first["input_tokens"], first["finish_reason"]) == (1.0, 7, "stop")
    assert 0 < first["time_to_first_token"] <= first["response_time"] < 10
    scores = {(r["model_name"], r["query"]): r.get("performance", r.get("unscored")) for r in records}
    assert scores["y", "What is 2 + 2?"] == 0.0
    assert scores["x", "Why?"] == "no ground_truth"
    prompts = {call["prompt"] for call in server.calls()}
    assert (
        "Which?\n\nA. Rome\nB. Paris\n\nEnd your answer with the letter of the right choice in parentheses." in prompts
    )
    assert done.out.splitlines()[0].split()[:3] == ["model", "answered", "scored"]
    assert done.out.endswith(f"-> {output}\n")
    assert "6 of 6 calls (100.0%)" in done.err


def test_a_rerun_asks_for_nothing_that_is_there(benchmark, server, output, read_lines):
    assert benchmark(QUESTIONS, "--limit", 2, models="x").status == 0
    assert len(server.calls()) == 2
    before = output.read_bytes()
    assert benchmark(QUESTIONS, "--limit", 2, models="x").status == 0
    assert (output.read_bytes(), len(server.calls())) == (before, 2)
    done = benchmark(QUESTIONS, "--no-progress")
    assert (done.status, done.err) == (0, "2 of 6 answers are there already\n")
    assert output.read_bytes().startswith(before)
    assert len(read_lines(output)) == len(server.calls()) == 6


def test_records_of_other_queries_and_models_stay(benchmark, output, read_lines):
    benchmark(QUESTIONS)
    assert benchmark([{"query": "Something else?"}], models="z").status == 0
    assert len(read_lines(output)) == 7


def test_an_output_is_an_input(benchmark, cli, server, output, tmp_path, read_lines):
    benchmark(QUESTIONS)
    second = tmp_path / "second.jsonl"
    done = cli("benchmark", "--queries", output, "--output", second, "--endpoint", server.endpoint, "--models", "z")
    assert done.status == 0
    assert pairs(read_lines(second)) == sorted(("z", q["query"]) for q in QUESTIONS)
    assert next(r for r in read_lines(second) if "2 + 2" in r["query"])["own"] == {"x": 1}


def test_failed_calls_are_records_that_the_next_run_replaces(benchmark, output, read_lines):
    flaky = {"query": script({"status": 400, "body": "busy"}, {"status": 400}, {"text": "42"}), "ground_truth": "42"}
    done = benchmark([flaky, QUESTIONS[1]], models="x")
    assert done.status == 3
    assert "warning: 1 calls of x failed, most or all with: HTTP 400: busy\n" in done.err
    assert "warning: 1 of 2 answers are missing; the same command asks for them\n" in done.err
    (failed,) = [r for r in read_lines(output) if "error" in r]
    assert failed == flaky | {"model_name": "x", "error": "HTTP 400: busy", "attempts": 1}
    done = benchmark([flaky, QUESTIONS[1]], models="x")
    assert done.status == 3
    assert [r["error"] for r in read_lines(output) if "error" in r] == ["HTTP 400"]
    done = benchmark([flaky, QUESTIONS[1]], models="x")
    assert done.status == 0
    records = read_lines(output)
    assert len(records) == 2
    assert [r["performance"] for r in records if "performance" in r] == [1.0]


def test_what_may_help_is_tried_again_and_the_time_is_that_of_the_good_try(benchmark, server, output, read_lines):
    query = script({"status": 429, "headers": {"Retry-After": "1"}}, {"fault": "cut before"}, {"text": "42"})
    start = time.monotonic()
    done = benchmark([{"query": query}], models="x")
    assert done.status == 0
    assert time.monotonic() - start > 1.0
    (record,) = read_lines(output)
    assert (record["attempts"], record["response"]) == (3, "42")
    assert record["response_time"] < 0.9
    assert "warning: x: HTTP 429; trying again\n" in done.err
    assert "x 2 retried" in done.err


def test_a_model_with_a_wrong_key_costs_a_few_calls(benchmark, server, output, read_lines):
    refused = script({"status": 401, "body": '{"error": {"message": "wrong key KEY"}}'})
    questions = [{"query": refused + "\n" * i} for i in range(40)]
    done = benchmark(questions, "--api-key", "sk-secret", "--concurrency", 2, models="x")
    assert done.status == 3
    assert 3 <= len(server.calls()) <= 4
    text = "x: given up after 3 refusals; check its name, endpoint and key (HTTP 401: wrong key ***); 3"
    assert f"warning: {text}" in done.err
    assert len(read_lines(output)) == len(server.calls())
    assert "sk-secret" not in done.out + done.err + output.read_text()


def test_a_truth_that_changes_scores_answers_again_without_a_call(benchmark, server, output, read_lines):
    benchmark(QUESTIONS)
    changed = [QUESTIONS[0] | {"ground_truth": "y says", "category": "physics"}, *QUESTIONS[1:]]
    done = benchmark(changed)
    assert done.status == 0
    assert len(server.calls()) == 6
    found = {r["model_name"]: r for r in read_lines(output) if "2 + 2" in r["query"]}
    assert {name: (r["performance"], r["category"]) for name, r in found.items()} == {
        "x": (0.0, "physics"),
        "y": (1.0, "physics"),
    }
    assert len(read_lines(output)) == 6


def test_answers_that_were_asked_for_otherwise_are_not_mixed(benchmark, server, output):
    benchmark(QUESTIONS)
    before = output.read_bytes()
    for options, text in (
        (
            ["--max-tokens", 5],
            "'x' was asked with max_tokens 1024, and now would be with 5, as were 5 more: answers of",
        ),
        (["--temperature", 1], "'x' was asked with temperature 0.0, and now would be with 1.0, as were 5 more"),
        (["--concise"], "'x' was asked with a prompt that is 'plain', and now would be with one that is 'concise'"),
    ):
        done = benchmark(QUESTIONS, *options)
        assert done.status == 1
        assert text in done.err
    assert (output.read_bytes(), len(server.calls())) == (before, 6)


def test_concise_prompts(benchmark, server, output, read_lines):
    assert benchmark(QUESTIONS, "--concise", models="x").status == 0
    prompts = {call["prompt"] for call in server.calls()}
    assert "Why?\n\nAnswer in a few words, without any explanation." in prompts
    assert {r["request"]["prompt"] for r in read_lines(output)} == {"concise"}


def test_models_of_a_file_and_what_wins_over_what(benchmark, server, tmp_path, output, read_lines, monkeypatch):
    monkeypatch.setenv("PORT", str(server.port))
    monkeypatch.setenv("TOKEN", "t0ken-of-b")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    config = tmp_path / "models.yaml"
    config.write_text(
        "models:\n"
        "- {name: x, endpoint: 'http://127.0.0.1:${PORT}/v1', max_tokens: 7,"
        " pricing: {prompt_per_1m: 1, completion_per_1m: 2}}\n"
        "- {name: y, endpoint: 'http://127.0.0.1:${PORT}/v1', temperature: 0.5, headers: {X-Token: 'T ${TOKEN}'}}\n"
    )
    queries = tmp_path / "queries.jsonl"
    benchmark([{"query": "q"}], "--no-stream", models="unrelated")

    def bodies(*options):
        server.reset()
        output.unlink()
        done = benchmark([{"query": "q"}], "--model-config", config, *options, models=None)
        assert done.status == 0, done.err
        assert "t0ken" not in done.out + done.err + output.read_text()
        return {call["model"]: call for call in server.calls()}

    assert queries.exists()
    # the command line names an endpoint, which would win: leave it out
    calls = bodies()
    assert {name: (c["body"]["max_tokens"], c["body"]["temperature"]) for name, c in calls.items()} == {
        "x": (7, 0.0),
        "y": (1024, 0.5),
    }
    assert calls["y"]["headers"]["x-token"] == "T t0ken-of-b"
    assert all("authorization" not in call["headers"] for call in calls.values())
    costs = {r["model_name"]: r.get("cost") for r in read_lines(output)}
    assert costs == {"x": pytest.approx((7 * 1 + 11 * 2) / 1e6), "y": None}
    calls = bodies("--max-tokens", 9, "--temperature", 0.0, "--api-key", "given-key")
    assert {name: (c["body"]["max_tokens"], c["body"]["temperature"]) for name, c in calls.items()} == {
        "x": (9, 0.0),
        "y": (9, 0.0),
    }
    assert {call["headers"]["authorization"] for call in calls.values()} == {"Bearer given-key"}


def test_a_key_of_the_environment_goes_to_named_models(benchmark, server, monkeypatch):
    monkeypatch.delenv("LLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    benchmark([{"query": "1"}], models="x")
    monkeypatch.setenv("LLM_API_KEY", "first")
    benchmark([{"query": "2"}], models="x")
    benchmark([{"query": "3"}], "--api-key", "given", models="x")
    keys = [call["headers"]["authorization"] for call in server.calls()]
    assert keys == ["Bearer second", "Bearer first", "Bearer given"]


def test_limits_of_calls_at_once(benchmark, server, tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(
        "models:\n"
        + "".join(
            f"- {{name: {name}, endpoint: '{server.endpoint}'{limit}}}\n"
            for name, limit in (("x", ", concurrency: 2"), ("y", ""), ("z", ""))
        )
    )
    questions = [{"query": script({"wait": 0.05, "text": "x"}) + "\n" * i} for i in range(12)]
    assert benchmark(questions, "--model-config", config, "--concurrency", 5, models=None).status == 0
    most = server.log()["most"]
    assert (most["x"], most[""]) == (2, 5)
    order = [call["model"] for call in server.calls()]
    assert set(order[:5]) == {"x", "y"}  # z waits for its turn
    assert "y" not in order[order.index("z") :]


def test_the_summary_as_json(benchmark, output):
    done = benchmark(QUESTIONS, "--json")
    document = json.loads(done.out)
    assert (document["output"], document["calls"], document["interrupted"]) == (str(output), 6, False)
    x, y = document["models"]
    assert (x["model"], x["answered"], x["scored"], x["mean_performance"]) == ("x", 3, 2, 0.5)
    assert (y["failed"], y["missing"], y["stopped"], y["input_tokens"]) == (0, 0, None, 21)


def test_two_benchmarks_of_one_file(benchmark, server, output, tmp_path, write_lines):
    queries = write_lines(tmp_path / "slow.jsonl", [{"query": script({"wait": 3, "text": "x"})}])
    first = start(queries, output, server, "x")
    while not server.calls():
        time.sleep(0.05)
    done = benchmark(QUESTIONS)
    assert done.status == 1
    text = f"error: cannot write {output}: another benchmark is writing it; let it end, or give another --output\n"
    assert done.err == text
    assert first.wait(30) == 0


def test_code_is_not_run_unless_that_is_allowed(benchmark, server, output, read_lines):
    code = "def double(n):\n    return 2 * n"
    truth = "assert double(2) == 4\nassert double(3) == 7"
    questions = [{"query": script({"text": code}), "metric": "code_eval", "ground_truth": truth}]
    done = benchmark(questions, models="x")
    assert done.status == 0
    assert "warning: 1 queries are scored by running the code of their answers: without --allow-code-exec" in done.err
    (record,) = read_lines(output)
    assert (record["response"], record.get("performance")) == (code, None)
    assert record["unscored"] == "no score; code_eval needs --allow-code-execution, and assertions in ground_truth"
    try:
        Scorer(allow_code_execution=True).close()
    except IsolationError:
        pytest.skip("this system cannot isolate code")
    assert benchmark(questions, "--allow-code-execution", models="x").status == 0
    (record,) = read_lines(output)
    assert (record["performance"], len(server.calls())) == (0.5, 1)


# ---------------------------------------------------------------- interrupts and crashes


def start(queries, output, server, models, *options):
    command = [sys.executable, "-m", "gpu_select", "benchmark", "--queries", queries, "--output", output]
    command += ["--models", models, "--endpoint", server.endpoint, *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_one_interrupt_keeps_what_is_under_way(server, output, tmp_path, write_lines, read_lines):
    queries = write_lines(
        tmp_path / "slow.jsonl", [{"query": script({"wait": 1, "text": "x"}) + "\n" * i} for i in range(50)]
    )
    process = start(queries, output, server, "x", "--concurrency", 3)
    while len(server.calls()) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(read_lines(output)) == len(server.calls()) == 3
    assert "warning: stopping; 3 calls are under way (Ctrl-C once more drops them)\n" in err
    assert "warning: 47 of 50 answers are missing; the same command asks for them\n" in err
    assert "3/50" in out
    assert "Traceback" not in err


def test_two_interrupts_end_at_once(server, output, tmp_path, write_lines, read_lines):
    slow = [{"query": script({"wait": 60, "text": "x"}) + "\n" * i} for i in range(5)]
    queries = write_lines(tmp_path / "slow.jsonl", [{"query": "quick"}, *slow])
    process = start(queries, output, server, "x", "--concurrency", 3)
    while len(server.calls()) < 4:
        time.sleep(0.05)
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.3)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert [record["query"] for record in read_lines(output)] == ["quick"]
    assert "Traceback" not in err


def kill_and_resume(serve, model_server, tmp_path, read_lines, write_lines, *, n, kills, fail, latency_ms, concurrency):
    """Kill benchmarks of three models at random moments, then let one end; check all there is to check."""
    rng = random.Random(kills)
    output, models = tmp_path / "out.jsonl", ["a", "b", "c"]
    queries = write_lines(
        tmp_path / "queries.jsonl", [{"query": f"Question {i}?", "ground_truth": "Grüße"} for i in range(n)]
    )
    options = ["--concurrency", concurrency, "--retries", 8, "--no-progress"]
    with serve("--latency-ms", latency_ms, "--fail", fail) as server:
        before: list[str] = []
        for _ in range(kills):
            size = output.stat().st_size if output.exists() else 0
            process = start(queries, output, server, ",".join(models), *options)
            while process.poll() is None and (not output.exists() or output.stat().st_size == size):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            out, err = process.communicate()
            assert process.returncode == -9, f"it ended before it was killed: {out}{err}"
            lines = output.read_text().splitlines()
            assert lines[: len(before)] == before  # nothing that was there is lost
            before = [line for line in lines if line.endswith("}")]
        for _ in range(5):
            process = start(queries, output, server, ",".join(models), *options)
            _, err = process.communicate(timeout=500)
            assert "Traceback" not in err
            if process.returncode == 0:
                break
            assert process.returncode == 3, err  # a call may fail nine times
        assert process.returncode == 0
        answered = {(model, prompt): count for model, prompt, count in server.log()["answered"]}
    records = read_lines(output)
    wanted = sorted((model, f"Question {i}?") for model in models for i in range(n))
    assert pairs(records) == wanted
    for record in records:
        assert record["response"] == model_server.text_of(record["model_name"], record["query"])
        assert record["performance"] == 1.0
        assert 0 < record["response_time"] < 10
    assert sorted(answered) == wanted
    # what was under way when it was killed is all that was paid for twice
    assert sum(answered.values()) - len(wanted) <= kills * concurrency
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    return Counter(record["attempts"] for record in records)


def test_kills_lose_and_double_nothing(serve, model_server, tmp_path, read_lines, write_lines):
    attempts = kill_and_resume(
        serve, model_server, tmp_path, read_lines, write_lines, n=100, kills=2, fail=0.15, latency_ms=60, concurrency=16
    )
    assert attempts[2] > 5


@pytest.mark.slow
def test_5000_calls_and_20_kills(serve, model_server, tmp_path, read_lines, write_lines):
    attempts = kill_and_resume(
        serve,
        model_server,
        tmp_path,
        read_lines,
        write_lines,
        n=1667,
        kills=20,
        fail=0.3,
        latency_ms=100,  # however fast the machine, the killed runs leave half of the calls to the last one
        concurrency=64,
    )
    assert attempts.total() == 5001
    assert attempts[3] > 50
