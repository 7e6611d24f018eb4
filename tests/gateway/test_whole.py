"""`gpu-select serve` as users run it, with an encoder, selectors and a domain head."""

from __future__ import annotations

import json
import random
import signal
import statistics
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from gpu_select.config import read_config
from gpu_select.decision_router import Decided, DecisionRouter
from gpu_select.decisions import Query
from gpu_select.encoder import embed, load_encoder

openai = pytest.importorskip("openai")
MODELS = "abc"
WORDS = ("what", "why", "how", "city", "law", "disease", "cell", "energy", "war", "market", "mind", "function", "solve")


def texts_of(n, seed=0):
    generator = random.Random(seed)
    return [f"{' '.join(generator.choices(WORDS, k=generator.randint(2, 12)))} {i}" for i in range(n)]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory, tiny_encoder_path, write_tiny_models):
    encoder = load_encoder(str(tiny_encoder_path))
    own = {"encoder": {"name": str(tiny_encoder_path), "fingerprint": encoder.fingerprint}}
    return write_tiny_models(tmp_path_factory.mktemp("models"), own, models=MODELS)


@pytest.fixture
def config(models_dir, tiny_encoder_path, write_config, processes):
    """Where a configuration lies: three decisions with selectors of their own, an endpoint for each model."""
    refs = [{"model": name} for name in MODELS]
    domains = [{"type": "domain", "name": name} for name in ("math", "physics", "law", "biology", "history")]
    decisions = [
        {
            "name": "exact",
            "priority": 5,
            "rules": {"operator": "OR", "conditions": domains},
            "algorithm": {"type": "knn", "knn": {"k": 3}},
            "modelRefs": refs,
        },
        {"name": "now", "priority": 9, "rules": {"type": "keyword", "name": "urgent"}, "modelRefs": refs[1:]},
        {
            "name": "rest",
            "rules": {"operator": "AND", "conditions": []},
            "algorithm": {"type": "svm"},
            "modelRefs": refs[:2],
        },
    ]
    return write_config(
        {name: processes.upstream(name) for name in MODELS},
        decisions=decisions,
        keyword_rules=[{"name": "urgent", "operator": "OR", "keywords": ["asap"]}],
        model_selection={"ml": {"models_path": str(models_dir)}},
        embedding_models={"qwen3_model_path": str(tiny_encoder_path)},
    )


@pytest.fixture
def served(processes, config):
    return processes.gateway("-m", "gpu_select", "serve", "--config", config, "--port", 0, "--device", "cpu")


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


def test_requests_that_arrive_together_share_a_forward_pass(served):
    texts = texts_of(64)
    threads = [threading.Thread(target=post, args=(served, "/v1/route", {"query": text})) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with urllib.request.urlopen(f"{served.url}/metrics") as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    assert float(lines["gpu_select_batch_size_sum"]) == 64
    assert float(lines["gpu_select_batch_size_count"]) < 40


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
