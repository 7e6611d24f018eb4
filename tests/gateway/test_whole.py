"""`gpu-select serve` as users run it, with an encoder, selectors and a domain head."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import shutil
import signal
import statistics
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from gpu_select.config import read_config
from gpu_select.decision_router import Decided, DecisionRouter
from gpu_select.decisions import Query
from gpu_select.encoder import embed, load_encoder

openai = pytest.importorskip("openai")
WORDS = ("what", "why", "how", "city", "law", "disease", "cell", "energy", "war", "market", "mind", "function", "solve")


def texts_of(n, seed=0):
    generator = random.Random(seed)
    return [f"{' '.join(generator.choices(WORDS, k=generator.randint(2, 12)))} {i}" for i in range(n)]


def client_of(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=60)


def post(gateway, path, body):
    request = urllib.request.Request(
        gateway.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_what_is_served_is_what_the_router_decides(served, config, tiny_encoder_path):
    texts = [*texts_of(100), "solve it asap"]
    router = DecisionRouter.from_config(read_config(config), device="cpu")
    expected = router.decide([Query(text) for text in texts])
    data = post(served, "/v1/route", {"queries": texts})["data"]
    assert {entry["decision"] for entry in data} == {"exact", "now", "rest"}
    for decided, entry in zip(expected, data, strict=True):
        assert isinstance(decided, Decided)
        assert (entry["model"], entry["decision"], entry["category"]) == (
            decided.model,
            decided.decision,
            decided.domain,
        )
        assert tuple(entry["ranking"]) == decided.ranking
        assert entry["score"] == pytest.approx(decided.score, abs=2e-5)
    client = client_of(served)
    for text, decided in list(zip(texts, expected, strict=True))[-10:]:
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": text}]
        )
        assert raw.headers["x-vsr-selected-model"] == raw.parse().model == decided.model
        assert raw.headers["x-vsr-selected-decision"] == decided.decision
        assert raw.headers["x-vsr-selected-category"] == decided.domain
    vectors = embed(load_encoder(str(tiny_encoder_path), device="cpu"), texts[:3]).vectors
    answer = client.embeddings.create(model="auto", input=texts[:3])
    assert [row.embedding for row in answer.data] == [pytest.approx(vector.tolist(), abs=1e-5) for vector in vectors]
    assert answer.model == "tiny-bert"


def test_requests_that_arrive_together_share_a_forward_pass(processes, config):
    config.write_text(config.read_text().replace("gateway: {}", "gateway: {batching: {max_wait_ms: 1000}}"))
    served = processes.serve(config)
    texts = texts_of(64)
    threads = [threading.Thread(target=post, args=(served, "/v1/route", {"query": text})) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with urllib.request.urlopen(f"{served.url}/metrics") as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    assert float(lines["gpu_select_batch_size_sum"]) == 64
    assert float(lines["gpu_select_batch_size_count"]) < 64


def test_new_selector_files_are_taken_and_broken_ones_refused(served, config, models_dir, tmp_path):
    text = config.read_text()
    changed = text.replace("name: rest", "name: other_rest")
    config.write_text(changed)
    served.signal(signal.SIGHUP)
    served.wait_for("reloaded")
    names = {entry["decision"] for entry in post(served, "/v1/route", {"queries": texts_of(30)})["data"]}
    assert names == {"exact", "other_rest"}
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in models_dir.iterdir():
        (broken / path.name).write_bytes(
            path.read_bytes()[:-20] if path.name == "svm_model.json" else path.read_bytes()
        )
    config.write_text(text.replace(str(models_dir), str(broken)))
    served.signal(signal.SIGHUP)
    assert "svm_model.json" in served.wait_for("reload refused")["reason"]
    names = {entry["decision"] for entry in post(served, "/v1/route", {"queries": texts_of(30)})["data"]}
    assert names == {"exact", "other_rest"}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.slow
def test_a_hundred_reloads_under_load_cost_no_request(processes, config, models_dir, write_tiny_bert, tmp_path):
    own = tmp_path / "models"
    text = config.read_text().replace(str(models_dir), str(own))
    encoder = next(line for line in text.splitlines() if "qwen3_model_path" in line)
    other_encoder = encoder.partition(":")[0] + f": {write_tiny_bert(tmp_path / 'other-bert', hidden_size=48)}"
    breaks = {
        "line": lambda: config.write_text("decisions: ["),
        "svm_model.json": lambda: cut(own / "svm_model.json"),
        "domain_model.safetensors": lambda: cut(own / "domain_model.safetensors"),
        "other-bert": lambda: config.write_text(text.replace(encoder, other_encoder)),
        "expected a model that an endpoint serves": lambda: config.write_text(
            text.replace("- name: a\n", "- name: z\n")
        ),
    }
    shutil.copytree(models_dir, own)
    config.write_text(text)
    served = processes.serve(config)
    done = threading.Event()
    failures, decisions, n_vectors = [], Counter(), 0

    def load(seed):
        nonlocal n_vectors
        client = client_of(served)
        for asked in itertools.cycle(texts_of(1000, seed)):
            if done.is_set():
                break
            try:
                messages = [{"role": "user", "content": asked}]
                answer = client.chat.completions.with_raw_response.create(model="auto", messages=messages)
                decisions[answer.headers["x-vsr-selected-decision"]] += 1
                n_vectors += len(client.embeddings.create(model="auto", input=[asked]).data)
            except openai.OpenAIError as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    n_done = n_refused = 0
    for i in range(100):
        shutil.copytree(models_dir, own, dirs_exist_ok=True)
        config.write_text(text.replace("name: rest", f"name: rest{i % 2}"))
        reason = [*breaks][n_refused % len(breaks)] if i % 5 == 4 else None
        if reason is not None:
            breaks[reason]()
        if i % 3:
            served.signal(signal.SIGHUP)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            connection.request("POST", "/admin/reload")
            assert connection.getresponse().status == (200 if reason is None else 422)
        if reason is None:
            n_done += 1
            served.wait_for("reloaded", n_done)
        else:
            n_refused += 1
            assert reason in served.wait_for("reload refused", n_refused)["reason"]
    done.set()
    for thread in threads:
        thread.join()
    assert n_refused == 20
    assert failures == []
    assert {"exact", "rest0", "rest1"} <= set(decisions)
    assert n_vectors > 100


def resident_kb(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_in_three_minutes_of_load(served):
    done = threading.Event()
    failures, counts = [], [0] * 8

    def load(number):
        client = client_of(served)
        generator = random.Random(number)
        while not done.is_set():
            counts[number] += 1
            text = f"{' '.join(generator.choices(WORDS, k=generator.randint(2, 40)))} {counts[number]}"
            messages = [{"role": "user", "content": text}]
            try:
                kind = counts[number] % 10
                if kind < 5:
                    assert list(client.chat.completions.create(model="auto", messages=messages, stream=True))
                elif kind < 7:
                    assert client.chat.completions.create(model="auto", messages=messages, user="u" * 50_000)
                elif kind == 7:
                    assert len(post(served, "/v1/route", {"queries": [text, text + "x"]})["data"]) == 2
                elif kind == 8:
                    assert client.embeddings.create(model="auto", input=[text, text])
                else:
                    stream = client.chat.completions.create(model="auto", messages=messages, stream=True)
                    next(iter(stream))
                    stream.response.close()
                    with pytest.raises(openai.NotFoundError):
                        client.chat.completions.create(model=f"m{generator.random()}", messages=messages)
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    samples = []
    while (elapsed := time.monotonic() - start) < 180:
        samples.append((elapsed, resident_kb(served.process)))
        time.sleep(1)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(counts) > 2000
    early = statistics.median(kb for elapsed, kb in samples if 30 <= elapsed < 60)
    late = statistics.median(kb for elapsed, kb in samples if elapsed >= 150)
    print(f"{sum(counts)} requests; {early} kB after 45 s, {late} kB at the end, {late / early - 1:+.2%}")
    assert late < 1.05 * early
