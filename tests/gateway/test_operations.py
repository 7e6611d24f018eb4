"""Deciding alone, health, metrics, keys for administration, reloading."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
import time

import numpy as np
import pytest

from gpu_select.config.gateway import GatewayConfig, UpstreamConfig
from gpu_select.errors import ConfigError
from gpu_select.gateway.embedder import Embedding
from gpu_select.gateway.errors import AuthenticationError, PermissionError
from gpu_select.gateway.event_log import JsonLines
from gpu_select.gateway.keys import KeyRing
from gpu_select.gateway.openapi import document
from gpu_select.gateway.service import Service, embed_together


def route(gateway, body):
    return gateway.send("POST", "/v1/route", body)


def test_one_query_is_decided_and_nothing_sent_on(two):
    gateway, small, large = two
    answer = route(gateway, {"query": "the large one", "domain": "law"})
    assert answer.json == {
        "object": "route",
        "model": "large",
        "decision": "fast",
        "category": "law",
        "category_given": True,
        "score": 0.5,
        "margin": 0.25,
        "ranking": ["large", "small"],
        "tokens": 3,
    }
    assert answer.headers["x-vsr-selected-model"] == "large"
    assert small.requests == large.requests == []


def test_the_messages_of_a_chat_are_decided_alike(two):
    messages = [{"role": "user", "content": [{"type": "text", "text": "large"}]}]
    answer = route(two[0], {"messages": messages})
    assert answer.json["model"] == "large"
    assert "x-vsr-ignored-content" not in answer.headers


def test_what_of_a_chat_was_not_looked_at_is_named(two):
    content = [{"type": "input_audio"}, {"type": "text", "text": "large"}, {"type": "image_url"}, {"type": "image_url"}]
    answer = route(two[0], {"messages": [{"role": "user", "content": content}]})
    assert answer.headers["x-vsr-ignored-content"] == "image_url=2, input_audio=1"
    assert answer.headers["x-vsr-ignored-content"] == two[0].chat(content).headers["x-vsr-ignored-content"]


def test_many_queries_are_decided_in_order_with_errors_in_their_place(two):
    queries = ["large", {"query": "small", "domain": "law"}, "nothing", *["x large"] * 300]
    answer = route(two[0], {"queries": queries})
    data = answer.json["data"]
    assert [entry["index"] for entry in data] == [*range(303)]
    assert [entry.get("model") for entry in data] == ["large", "small", None, *["large"] * 300]
    assert data[1]["category"] == "law"
    assert data[2]["error"]["message"] == "no decision matches, and there is no default"
    assert float(answer.headers["x-vsr-routing-ms"]) > 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "expected one of query, queries and messages, got none"),
        ({"query": "x", "queries": ["y"]}, "got query and queries"),
        ({"query": ""}, "query: expected a text that is not empty, got ''"),
        ({"query": 5}, "query: expected a text that is not empty, got 5"),
        ({"query": "x", "domain": 5}, "domain: expected the name of a domain, got 5"),
        ({"queries": []}, "queries: expected a list of 1 to 2048 queries, got 0"),
        ({"queries": "x"}, "queries: expected a list of 1 to 2048 queries, got 'x'"),
        ({"queries": ["x", 5]}, "queries[1]: expected a text that is not empty, got 5"),
        ({"queries": [{"text": "x"}]}, "queries[0].query: expected a text that is not empty, got none"),
        ({"queries": [{"query": "x", "domain": []}]}, "queries[0].domain: expected the name of a domain, got []"),
        ({"query": "nothing"}, "no decision matches, and there is no default"),
    ],
)
def test_a_bad_request_to_decide(two, body, message):
    answer = route(two[0], body)
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
    assert message in answer.json["error"]["message"]


def test_health_and_readiness(two):
    gateway, _, _ = two
    assert gateway.send("GET", "/healthz").json == {"status": "ok"}
    assert gateway.send("GET", "/readyz").json == {"status": "ready", "generation": 1}
    gateway.gateway.stopping = True
    assert gateway.send("GET", "/readyz").status == 503
    assert gateway.send("GET", "/healthz").status == 200


def test_metrics_are_what_prometheus_reads(two):
    from prometheus_client.parser import text_string_to_metric_families

    gateway, _, _ = two
    gateway.chat("large")
    gateway.chat("nothing")
    answer = gateway.send("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["gpu_select_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted == {("/v1/chat/completions", "200"): 1.0, ("/v1/chat/completions", "400"): 1.0}
    decisions = families["gpu_select_decisions"].samples[0]
    assert decisions.labels == {"decision": "fast", "model": "large"}
    assert families["gpu_select_undecided"].samples[0].value == 1
    assert families["gpu_select_queue_length"].samples[0].value == 0


def test_paths_of_clients_make_no_labels(two):
    gateway, _, _ = two
    for i in range(3):
        gateway.send("GET", f"/{i}")
        gateway.send("GET", f"/v1/models/m{i}")
    lines = gateway.send("GET", "/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith("gpu_select_requests_total")]
    assert len(counted) == 2


def test_the_description_names_every_path(two):
    gateway, _, _ = two
    described = gateway.send("GET", "/openapi.json").json
    assert described == json.loads(json.dumps(document(["auto", "small", "large", "stub-embedder"])))
    paths = {
        (route.resource.canonical, route.method.lower())
        for route in gateway.gateway_app.router.routes()
        if route.method != "HEAD"
    }
    assert paths == {(path, method) for path, methods in described["paths"].items() for method in methods}


# ---------------------------------------------------------------- keys


def test_programs_that_watch_need_no_key(world):
    gateway = world.gateway([world.upstream("small")[1]], GatewayConfig(api_keys=("k",)))
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert gateway.send("GET", path).status == 200
    for path in ("/v1/models", "/nowhere"):
        answer = gateway.send("GET", path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert gateway.send("POST", "/admin/reload").status == 401
    assert gateway.send("GET", "/v1/models", authorization="Basic k").status == 401
    assert gateway.send("GET", "/v1/models", authorization="bearer k").status == 200


@pytest.mark.parametrize(
    ("api_keys", "admin_keys", "authorization", "peer", "error"),
    [
        ((), (), None, "127.0.0.1", None),
        ((), (), None, "::1", None),
        ((), (), None, "10.0.0.1", PermissionError),
        ((), (), None, None, PermissionError),
        (("a",), (), "Bearer a", "10.0.0.1", None),
        (("a",), (), None, "127.0.0.1", AuthenticationError),
        (("a",), ("b",), "Bearer a", "127.0.0.1", AuthenticationError),
        (("a",), ("b",), "Bearer b", "10.0.0.1", None),
        ((), ("b",), "Bearer é", "127.0.0.1", AuthenticationError),
        ((), ("b",), "Bearer \udce9", "127.0.0.1", AuthenticationError),
        ((), ("b",), "b", "127.0.0.1", AuthenticationError),
    ],
)
def test_who_may_administer(api_keys, admin_keys, authorization, peer, error):
    ring = KeyRing(api_keys, admin_keys)
    if error is None:
        ring.check_admin(authorization, peer)
    else:
        with pytest.raises(error):
            ring.check_admin(authorization, peer)


# ---------------------------------------------------------------- reloading


def service_of(gateway, **changes):
    old = gateway.gateway.generation.service
    return Service(**{**vars(old), **changes})


def test_a_reload_takes_the_new_decisions_endpoints_and_keys(world):
    small, large = world.upstream("small")[1], world.upstream("large")[1]
    gateway = world.gateway([small, large])
    assert gateway.chat("small").headers["x-vsr-selected-model"] == "small"
    other = world.upstream("other")[1]
    from gpu_select.decisions import Decided

    gateway.loads.append(
        lambda: Service(
            GatewayConfig(api_keys=("new",)),
            (other,),
            lambda queries: [Decided("other", ("other",), "d", "math", False, 1.0, 1.0, 1) for _ in queries],
        )
    )
    assert gateway.send("POST", "/admin/reload").json == {"status": "reloaded", "generation": 2}
    assert gateway.chat("small").status == 401
    answer = gateway.chat("small", headers={"authorization": "Bearer new"})
    assert answer.headers["x-vsr-selected-model"] == "other"
    assert gateway.send("GET", "/readyz").json["generation"] == 2


def raising(error):
    def load():
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("decisions", 5, "a list"), "decisions: expected a list, got 5"),
        (MemoryError("x"), "MemoryError"),
    ],
)
def test_a_reload_that_fails_changes_nothing(two, error, message):
    gateway, _, _ = two
    before = gateway.gateway.generation
    gateway.loads.append(raising(error))
    answer = gateway.send("POST", "/admin/reload")
    assert (answer.status, answer.json["error"]["code"]) == (422, "invalid_config")
    assert answer.json["error"]["message"] == f"The configuration was not reloaded: {message}"
    assert gateway.gateway.generation is before
    assert gateway.chat("x").status == 200
    assert gateway.metric("gpu_select_reloads_total", outcome="refused") == 1


def test_an_alias_that_is_a_model_too_is_refused(world):
    with pytest.raises(ConfigError, match=r"gateway\.aliases: 'auto' is the name of an endpoint, too"):
        world.gateway([world.dead("auto")])


def test_requests_are_answered_while_files_are_loaded(two):
    gateway, _, _ = two
    go = threading.Event()

    def load():
        assert go.wait(10)
        return service_of(gateway)

    gateway.loads.append(load)
    reload = threading.Thread(target=gateway.send, args=("POST", "/admin/reload"))
    reload.start()
    assert gateway.chat("x").status == 200
    assert gateway.gateway.generation.number == 1
    go.set()
    reload.join()
    assert gateway.gateway.generation.number == 2


@pytest.mark.parametrize("name", ["origin", "sec-fetch-site"])
def test_pages_in_a_browser_cannot_make_it_reload(two, name):
    gateway, _, _ = two
    gateway.loads.append(lambda: service_of(gateway))
    answer = gateway.send("POST", "/admin/reload", **{name: "null"})
    assert (answer.status, answer.json["error"]["type"]) == (403, "invalid_request_error")
    assert answer.json["error"]["message"] == (
        "/admin is not for browsers: the request has the header Origin or Sec-Fetch-Site"
    )
    assert gateway.gateway.generation.number == 1


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def test_a_reload_goes_on_when_its_client_leaves(two):
    gateway, _, _ = two
    loading, go = threading.Event(), threading.Event()

    def load():
        loading.set()
        assert go.wait(10)
        return service_of(gateway)

    gateway.loads.append(load)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"POST /admin/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert loading.wait(10)
    wait_until(lambda: gateway.metric("gpu_select_requests_total", route="/admin/reload", status="499") == 1)
    go.set()
    wait_until(lambda: gateway.gateway.generation.number == 2)
    assert gateway.metric("gpu_select_reloads_total", outcome="done") == 1


def test_reloads_that_wait_are_one(world, two):
    gateway, _, _ = two
    loading, go = threading.Event(), threading.Event()

    def load():
        loading.set()
        assert go.wait(10)
        return service_of(gateway)

    gateway.loads += [load, load]  # a third one would fail

    async def reload():
        tasks = [gateway.gateway.start_reload()]
        while not loading.is_set():
            await asyncio.sleep(0.01)
        tasks += [gateway.gateway.start_reload() for _ in range(5)]
        go.set()
        return [(await task).number for task in tasks]

    assert world.run(reload()) == [2, 3, 3, 3, 3, 3]


def test_settings_of_the_start_are_named_each_time_that_a_reload_brings_others(two, log_lines):
    gateway, _, _ = two
    others = GatewayConfig(shutdown_s=7, upstream=UpstreamConfig(max_connections=5))
    for settings in (others, others, GatewayConfig()):
        gateway.loads.append(lambda settings=settings: service_of(gateway, settings=settings))
        assert gateway.send("POST", "/admin/reload").status == 200
    warned = [json.loads(line)["event"] for line in log_lines() if '"level":"warning"' in line]
    assert warned == ["shutdown_s takes effect at the next start"] * 2


class HalfWay:
    """An embedder whose first call waits until it is let go."""

    name = "stub-embedder"
    dim = 1

    def __init__(self, value):
        self.value = value
        self.running, self.go = threading.Event(), threading.Event()

    def embed(self, texts):
        self.running.set()
        assert self.go.wait(10)
        return [Embedding(np.array([self.value], np.float32), 1, False) for _ in texts]


@pytest.mark.parametrize("has_embedder", [True, False])
def test_one_answer_has_the_vectors_of_one_encoder(two, has_embedder):
    gateway, _, _ = two
    old, new = HalfWay(1), HalfWay(2)
    new.go.set()
    gateway.loads += [lambda: service_of(gateway, embedder=old)]
    gateway.send("POST", "/admin/reload")
    answers = []
    body = {"model": "stub-embedder", "input": ["x"] * 200}
    asking = threading.Thread(target=lambda: answers.append(gateway.send("POST", "/v1/embeddings", body)))
    asking.start()
    assert old.running.wait(10)
    gateway.loads += [lambda: service_of(gateway, embedder=new if has_embedder else None)]
    assert gateway.send("POST", "/admin/reload").status == 200
    old.go.set()
    asking.join()
    assert answers[0].status == 200
    assert [row["embedding"] for row in answers[0].json["data"]] == [[1.0]] * 200
    if has_embedder:
        assert gateway.send("POST", "/v1/embeddings", body).json["data"][0]["embedding"] == [2.0]


def test_texts_of_two_encoders_in_a_batch_get_their_own_vectors():
    old, new = HalfWay(1), HalfWay(2)
    old.go.set(), new.go.set()
    items = [(old, "a"), (new, "b"), (old, "c"), (new, "d")]
    assert [one.vector_D[0] for one in embed_together(items)] == [1, 2, 1, 2]


def test_an_endpoint_that_stays_keeps_its_circuit(two):
    gateway, _, _ = two
    breaker = gateway.gateway.generation.endpoints["small"].breaker
    gateway.loads.append(lambda: service_of(gateway))
    gateway.send("POST", "/admin/reload")
    assert gateway.gateway.generation.endpoints["small"].breaker is breaker


# ---------------------------------------------------------------- the log


@pytest.fixture
def log_lines(caplog):
    """What was logged so far, as it is written."""
    caplog.set_level(logging.INFO, "gpu_select.gateway")
    return lambda: [JsonLines().format(record) for record in caplog.records]


def test_a_request_is_one_line_of_json_without_keys_or_texts(two, log_lines):
    gateway, _, _ = two
    image = {"type": "image_url", "image_url": {"url": "data:secret-image"}}
    content = [{"type": "text", "text": "secret-prompt large"}, image]
    gateway.chat(content, headers={"authorization": "Bearer secret-key", "x_request_id": "id-1"}, user="secret-user")
    gateway.chat("x", model="secret-model")
    gateway.send("GET", "/secret-path?secret=query")
    gateway.send("POST", "/v1/chat/completions", b'{"secret-json')
    lines = log_lines()
    requests = [json.loads(line) for line in lines if '"event":"request"' in line]
    assert len(requests) == 4
    assert "secret" not in "".join(lines)
    first = requests[0]
    expected = {
        "request_id": "id-1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "model": "large",
        "decision": "fast",
        "category": "math",
    }
    assert first | expected == first
    assert first["ignored_parts"] == 1
    assert first["level"] == "info"
    assert first["time"].endswith("Z")
    assert 0 < first["routing_ms"] <= first["ms"]
    assert [line.get("error") for line in requests[1:]] == ["model_not_found", "not_found", "invalid_request_error"]


def test_a_fault_of_our_own_is_logged_with_its_place_and_without_its_text(world, log_lines):
    def decide(queries):
        raise ZeroDivisionError(f"secret: {queries}")

    gateway = world.gateway([world.dead("small")], decide=decide)
    answer = gateway.chat("secret", headers={"x_request_id": "id-2"})
    assert answer.status == 500
    assert answer.json["error"]["message"] == "The gateway failed; its log has the id id-2"
    (line,) = [line for line in log_lines() if "request failed" in line]
    entry = json.loads(line)
    assert (entry["error"], entry["request_id"], entry["level"]) == ("ZeroDivisionError", "id-2", "error")
    assert entry["stack"][-1].endswith(" decide")
    assert "secret" not in line


def test_logs_of_others_are_json_too():
    try:
        raise ValueError("secret")
    except ValueError:
        record = logging.LogRecord("aiohttp.server", logging.ERROR, __file__, 1, "went %s", ("wrong",), sys.exc_info())
    entry = json.loads(JsonLines().format(record))
    assert (entry["event"], entry["error"], entry["level"]) == ("went wrong", "ValueError", "error")
    assert "secret" not in json.dumps(entry)
