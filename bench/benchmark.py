"""How much of the possible rate do benchmarks of models keep?

    python bench/benchmark.py [--latency-ms 200] [--parallel 16,64,256] [--seconds 10] [--repeats 3]

An endpoint in another process (bench/benchmark_endpoint.py) answers each call after the latency, so that P calls at
once can be answered at P / latency a second. Two models are asked, one after the other; every answer is scored and
written. Timed from the start of the run to its end, the reading of the file included. Where others use the machine, the
endpoint itself answers late: besides the share of P / latency stands that of P / (how long it really held answers back,
by its own clock), and the load average before the run.

The peer is what the older tool does: a pool of P threads that call OpenAI's own client. It neither scores nor writes.
Medians of interleaved repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

from common import save

from gpu_select.benchmark.progress import Progress
from gpu_select.benchmark.questions import Question
from gpu_select.benchmark.run import RunSettings, run_benchmark
from gpu_select.benchmark.scoring import Scorer
from gpu_select.benchmark.targets import CallSettings, named_models, resolve_targets

ENDPOINT = Path(__file__).with_name("benchmark_endpoint.py")
MODELS = ("a", "b")
WAYS = ("streamed", "whole", "openai, threads")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--parallel", default="16,64,256", help="numbers of calls at once, with commas between")
    parser.add_argument("--seconds", type=float, default=10, help="that a run takes at the possible rate")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    results = {}
    with endpoint(options.latency_ms) as url:
        for parallel in map(int, options.parallel.split(",")):
            possible = parallel / (options.latency_ms / 1000)
            n_queries = max(1, round(possible * options.seconds / len(MODELS)))
            n_calls = n_queries * len(MODELS)
            runs: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
            for _ in range(options.repeats):
                for way in WAYS:
                    cpu_s = time.process_time()
                    seconds = time_of(way, url, n_queries, parallel)
                    cpu_s = time.process_time() - cpu_s
                    held_s = float(urlopen(url.removesuffix("v1") + "held").read())
                    runs[way].append((n_calls / seconds, n_calls / seconds * held_s / parallel, 1e3 * cpu_s / n_calls))
            rates, shares_held, cpu_ms = (
                {way: statistics.median(run[i] for run in of_way) for way, of_way in runs.items()} for i in range(3)
            )
            results[str(parallel)] = {
                "calls": n_calls,
                "possible_per_s": possible,
                "calls_per_s": rates,
                "share": {way: rate / possible for way, rate in rates.items()},
                "share_of_held": shares_held,
                "cpu_ms_per_call": cpu_ms,
            }
            shown = (
                f"{way} {rate:.1f}/s ({rate / possible:.1%}, {shares_held[way]:.1%})" for way, rate in rates.items()
            )
            print(f"{parallel} at once: {', '.join(shown)}")
    about = {"latency_ms": options.latency_ms, "seconds": options.seconds, "repeats": options.repeats, "load": load}
    save("benchmark-cpu", {**about, "results": results})


@contextlib.contextmanager
def endpoint(latency_ms: float) -> Iterator[str]:
    command = [sys.executable, str(ENDPOINT), "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def time_of(way: str, url: str, n_queries: int, parallel: int) -> float:
    queries = [f"What is the answer, for the {i}th time?" for i in range(n_queries)]
    if way not in ("streamed", "whole"):
        return time_of_threads(url, queries, parallel)
    targets = resolve_targets(named_models(MODELS), CallSettings(url, 64, 0.0, 60.0), ())
    questions = [Question({"query": query, "ground_truth": "42"}) for query in queries]
    settings = RunSettings(concurrency=parallel, stream=way == "streamed")
    with tempfile.TemporaryDirectory() as folder, Scorer() as scorer:
        output = Path(folder) / "out.jsonl"
        start = time.perf_counter()
        result = run_benchmark(questions, targets, str(output), settings, scorer, Silent())
        seconds = time.perf_counter() - start
        records = [json.loads(line) for line in output.read_text().splitlines()]
    if not result.is_complete or [record["performance"] for record in records] != [1.0] * len(records):
        sys.exit("expected every call to be answered and scored 1")
    return seconds


class Silent:
    def begin(self, progress: Progress, answered: int) -> None: ...

    def change(self) -> None: ...

    def say(self, text: str) -> None:
        sys.exit(text)


def time_of_threads(url: str, queries: list[str], parallel: int) -> float:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="any", max_retries=0)

    def ask(model: str, query: str) -> str | None:
        message = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": query}], max_tokens=64, temperature=0.0
        )
        return message.choices[0].message.content

    with ThreadPoolExecutor(parallel) as pool:
        start = time.perf_counter()
        answers = [pool.submit(ask, model, query) for model in MODELS for query in queries]
        if not all("42" in (answer.result() or "") for answer in answers):
            sys.exit("expected every call to be answered")
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
