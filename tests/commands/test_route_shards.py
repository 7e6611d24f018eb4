"""`route --shard-rows` with real processes: killed, stopped, and left alone."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpu_select.domains import DOMAIN_NAMES

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")

ROOT = Path(__file__).parents[2]
WORDS = ["what", "is", "the", "of", "in", "law", "court", "energy", "force", "war", "year", "money", "market"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """600 short queries as JSON lines, with embeddings as long as the tiny encoder's."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    generator = random.Random(0)
    with open(path, "w") as stream:
        for i in range(600):
            query = f"{' '.join(generator.choices(WORDS, k=generator.randint(2, 9)))} {i}"
            vector = [generator.gauss(0, 1) for _ in range(32)]
            row = {"id": i, "query": query, "domain": DOMAIN_NAMES[i % 14], "embedding": vector}
            stream.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def start(log, models_dir, tiny_encoder_path, tmp_path):
    """Call with the output's name and options: starts the command; whatever runs at the end is killed.

    encode= brings texts through the tiny encoder, in place of ready embeddings; threads= are those of each process.
    """
    processes = []

    def run(out, *options, encode=False, threads=1, **popen):
        arguments = [
            *("route", "--input", log, "--output", tmp_path / out, "--models-dir", models_dir, "--algorithm", "svm"),
            *(("--embedding-model", tiny_encoder_path) if encode else ("--embedding-field", "embedding")),
            *("--device", "cpu", "--shard-rows", 5, *options),
        ]
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_select", *map(str, arguments)],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
            cwd=ROOT,
            text=True,
            **popen,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def parts(folder):
    return sorted(path.name for path in folder.glob("part-*")) if folder.is_dir() else []


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_and_go_on(start, tmp_path, n_kills, generator, **options):
    """Kill a run some times at random moments, let it end, and compare it with one that was left alone."""
    alone = start("alone", "--workers", 1, threads=3, **options)
    assert alone.wait(300) == 0, alone.stderr.read()
    for _ in range(n_kills):
        process = start("out", "--workers", 2, **options)
        n_before, n_new = len(parts(tmp_path / "out")), generator.randint(0, 3)
        wait_for(lambda p=process, n=n_before + n_new: len(parts(tmp_path / "out")) >= n or p.poll() is not None)
        time.sleep(generator.uniform(0, 0.05))
        workers = children(process) if process.poll() is None else []
        process.kill()
        process.wait()
        wait_for(lambda workers=workers: not any(map(is_running, workers)), 5)
    last = start("out", "--workers", 2, **options)
    assert last.wait(300) == 0, last.stderr.read()
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert last.stderr.read().startswith(f"routed 600 of 600 rows to {tmp_path / 'out'} ")


def test_an_output_that_lies_in_an_input_folder_is_no_input(start, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "more.jsonl").write_text("{}\n")
    for told in ("in ", "before: nothing was left"):
        done = start("logs/routed", "--input", tmp_path / "logs", "--shard-rows", 300)
        assert done.wait(120) == 3
        assert f"routed 600 of 601 rows to {tmp_path / 'logs' / 'routed'} {told}" in done.stderr.read()


def test_a_killed_run_goes_on_and_ends_as_one_left_alone(start, tmp_path):
    kill_and_go_on(start, tmp_path, 2, random.Random(0))


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times(start, tmp_path):
    kill_and_go_on(start, tmp_path, 20, random.Random(1), encode=True)


def test_a_killed_worker_is_replaced_and_sigterm_ends_all(start, tmp_path):
    nohup = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start("out", "--workers", 2, **nohup)
    wait_for(lambda: len(parts(tmp_path / "out")) >= 2)
    process.send_signal(signal.SIGHUP)
    workers = children(process)
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    wait_for(lambda: len(set(children(process)) - {*workers}) == 1)
    workers += children(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not any(map(is_running, workers))
    said = f"stopped; finished shards are in {tmp_path / 'out'}, and the same command goes on\n"
    assert process.stderr.read() == said
    left = {path.name for path in (tmp_path / "out").iterdir()} - {*parts(tmp_path / "out")}
    assert left == {"manifest.json", ".journal"}


def test_ctrl_c_and_a_full_disk(start, tmp_path):
    process = start("out", "--workers", 2, process_group=0)
    wait_for(lambda: parts(tmp_path / "out"))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 1
    said = process.stderr.read().split("\n")
    assert said[0] == f"stopped; finished shards are in {tmp_path / 'out'}, and the same command goes on"
    assert "".join(said[1:]) == "Aborted!"
    n_kept = len(parts(tmp_path / "out"))
    limit = (tmp_path / "out" / "part-00000.jsonl").stat().st_size // 2
    full = start("out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert full.wait(120) == 1
    said = full.stderr.read()
    assert said.startswith(f"error: cannot write {tmp_path / 'out' / 'part-'}")
    assert said.endswith(".jsonl: File too large\n")
    assert said.count("\n") == 1
    assert len(parts(tmp_path / "out")) == n_kept


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--shard-rows", "0"), "shard-rows: expected an integer >= 1, got 0"),
        (("--shard-rows", "5", "--workers", "0"), "workers: expected an integer >= 1, got 0"),
        (("--shard-rows", "5", "--workers", "5000"), "workers: expected at most 1024, got 5000"),
        (("--shard-rows", "5", "--output-format", "csv"), "output-format: expected jsonl or parquet"),
        (("--shard-rows", "5", "--device", "cuda"), "device cuda: PyTorch sees 0 CUDA devices"),
        (("--shard-rows", "5", "--input", "none*"), "cannot read none*: no file matches this pattern"),
    ],
)
def test_a_bad_option_is_one_line(cli, log, tmp_path, options, text):
    done = cli("route", "--input", log, "--output", tmp_path / "out", *options)
    assert done.status == 1
    assert done.err.startswith(f"error: {text}")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--workers", "2"), "--workers share shards: give it with --shard-rows"),
        (("--embedding-field", "e", "--embedding-model", "minilm"), "--embedding-field names vectors: no encoder"),
        (("--embedding-field", "e", "--config", "c.yaml"), "give it without --features, --embedding-field"),
    ],
)
def test_options_that_do_not_go_together(cli, log, tmp_path, options, text):
    done = cli("route", "--input", log, "--output", tmp_path / "out", *options)
    assert done.status == 2
    assert text in done.err


def test_missing_shards_are_an_error_that_names_the_first(tmp_path):
    from gpu_select.commands.route_shards import check_shards
    from gpu_select.errors import GpuSelectError
    from gpu_select.pipeline import RouteReport
    from gpu_select.shards.run import Outcome

    check_shards(Outcome(RouteReport(), 3), "out")
    text = (
        r"^2 of 3 shards failed twice and are missing, the first of them part-00001 \(ended by signal 9\); the others a"
    )
    with pytest.raises(GpuSelectError, match=text):
        check_shards(Outcome(RouteReport(), 3, failed={2: "x", 1: "ended by signal 9"}), "out")
