"""What a client gets, and what an endpoint gets: requests by HTTP from end to end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import threading
import time

import pytest

from gpu_select.config.gateway import BreakerConfig, GatewayConfig, UpstreamConfig


def test_auto_goes_to_the_chosen_model_and_the_headers_say_why(two):
    gateway, small, large = two
    answer = gateway.chat("the large one")
    assert answer.status == 200
    assert answer.json["model"] == "large"
    assert answer.headers["x-vsr-selected-model"] == "large"
    assert answer.headers["x-vsr-selected-decision"] == "fast"
    assert answer.headers["x-vsr-selected-category"] == "math"
    assert 0 < float(answer.headers["x-vsr-routing-ms"]) < 10_000
    assert answer.headers["x-vsr-attempts"] == "1"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert small.requests == []
    (request,) = large.requests
    assert request[0] == "/v1/chat/completions"


def test_the_body_goes_on_byte_for_byte_but_for_the_model(two):
    gateway, small, _ = two
    message = b'{"role":"user","content":"caf\\u00e9 \\ud83d 1.50"}'
    body = b'{ "messages" : [%s],\n "seed": 1e2, "model" :"auto","x":1.0 }' % message
    assert gateway.send("POST", "/v1/chat/completions", body).status == 200
    assert small.requests[0][2] == body.replace(b'"auto"', b'"small"')


def test_a_named_model_is_not_routed(two):
    gateway, _, large = two
    body = b'{"model":"large","messages":"not even a list"}'
    answer = gateway.send("POST", "/v1/chat/completions", body)
    assert answer.status == 200
    assert large.requests[0][2] == body
    assert answer.headers["x-vsr-selected-model"] == "large"
    assert "x-vsr-selected-decision" not in answer.headers
    assert gateway.metric("gpu_select_routing_seconds_count") == 0


def test_an_endpoint_gets_its_own_key_and_none_of_the_clients(two):
    gateway, small, _ = two
    gateway.chat("x", headers={"authorization": "Bearer client", "cookie": "c=1", "x_request_id": "id-7", "x_a": "b"})
    headers = small.requests[0][1]
    assert headers["authorization"] == "Bearer key-of-small"
    assert headers["x-extra"] == "for small"
    assert headers["x-request-id"] == "id-7"
    assert not {"cookie", "x-a"} & set(headers)


def test_the_clients_encoding_is_kept(two):
    gateway, small, _ = two
    gateway.chat("x", headers={"accept_encoding": "gzip, br"})
    assert small.requests[0][1]["accept-encoding"] == "gzip, br"


def test_headers_of_an_endpoint_come_back_but_for_those_of_the_connection(two):
    gateway, _, _ = two
    answer = gateway.chat("please evil headers", headers={"x_request_id": "mine"})
    assert answer.headers["x-own"] == "2"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-vsr-selected-decision"] == "fast"
    assert answer.headers["server"] == "gpu-select"
    assert not {"set-cookie", "x-hop"} & set(answer.headers)


def test_a_given_domain_counts(two):
    gateway, _, _ = two
    answer = gateway.chat("x", headers={"x_vsr_domain": "law"})
    assert answer.headers["x-vsr-selected-category"] == "law"


def test_content_parts_are_joined_and_images_ignored_and_said(two):
    gateway, _, large = two
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = gateway.chat([{"type": "text", "text": "the"}, image, image, {"type": "text", "text": "large one"}])
    assert answer.headers["x-vsr-selected-model"] == "large"
    assert answer.headers["x-vsr-ignored-content"] == "image_url=2"
    assert b"data:image/png" in large.requests[0][2]


def test_the_last_message_of_the_user_decides(two):
    gateway, _, _ = two
    messages = [
        {"role": "user", "content": "small"},
        {"role": "assistant", "content": "small"},
        {"role": "user", "content": "large"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "small", "tool_call_id": "1"},
    ]
    answer = gateway.send("POST", "/v1/chat/completions", {"model": "auto", "messages": messages})
    assert answer.headers["x-vsr-selected-model"] == "large"


def test_the_whole_conversation_may_decide(world):
    endpoints = [world.upstream(name)[1] for name in ("small", "large")]
    gateway = world.gateway(endpoints, GatewayConfig(route_on="conversation"))
    messages = [{"role": "system", "content": "large"}, {"role": "user", "content": "small"}]
    answer = gateway.send("POST", "/v1/chat/completions", {"model": "auto", "messages": messages})
    assert answer.headers["x-vsr-selected-model"] == "large"


@pytest.mark.parametrize("prompt", ["large", ["the", "large", "one"]])
def test_completions_are_routed_on_the_prompt(two, prompt):
    gateway, _, large = two
    answer = gateway.send("POST", "/v1/completions", {"model": "auto", "prompt": prompt})
    assert answer.json["object"] == "text_completion"
    assert large.requests[0][0] == "/v1/completions"


def test_other_names_may_stand_for_auto(world):
    endpoints = [world.upstream(name)[1] for name in ("small", "large")]
    gateway = world.gateway(endpoints, GatewayConfig(aliases=("MoM", "best")))
    assert gateway.chat("small", model="MoM").status == 200
    assert gateway.chat("small", model="auto").status == 404


# ---------------------------------------------------------------- errors


def error_of(answer):
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    return answer.json["error"]


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        (b"", 400, None, "not valid JSON: Expecting value"),
        (b'{"model": "auto"', 400, None, "not valid JSON: Expecting ',' delimiter (line 1, column 17)"),
        (b"{'model': 1}", 400, None, "Expecting property name enclosed in double quotes"),
        (b"[]", 400, None, "the body is not a JSON object"),
        (b'{"model": NaN}', 400, None, "NaN is not a JSON number"),
        (b"\xff", 400, None, "not UTF-8: byte 0 is 0xff"),
        (b'{"a": ' + b"[" * 100_000, 400, None, "nested too deep"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", 400, None, "nested deeper than 200 levels"),
        (b'{"model": "auto", "model": "large"}', 400, "model", "occurs twice"),
        (b'{"model": "auto", "mod\\u0065l": "large"}', 400, "model", "occurs twice"),
        (b"{}", 400, "model", "model: expected the name of a model, got none"),
        (b'{"model": 7}', 400, "model", "got 7"),
        (b'{"model": "gpt-9"}', 404, "model", "The model 'gpt-9' does not exist"),
        (b'{"model": "auto"}', 400, "messages", "expected a list of at least one message, got none"),
        (b'{"model": "auto", "messages": []}', 400, "messages", "got an empty list"),
        (b'{"model": "auto", "messages": "hi"}', 400, "messages", "got 'hi'"),
        (b'{"model": "auto", "messages": ["hi"]}', 400, "messages[0]", "expected an object with a role"),
        (b'{"model": "auto", "messages": [{"role": "system", "content": "x"}]}', 400, "messages", "the role user"),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            400,
            "messages[0].content",
            "expected text to choose a model by; or name a model",
        ),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": [{"text": "x"}]}]}',
            400,
            "messages[0].content[0]",
            "a content part with a type",
        ),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}',
            400,
            "messages[0].content[0].text",
            "expected a text",
        ),
        (b'{"model": "auto", "messages": [{"role": "user", "content": 5}]}', 400, "messages[0].content", "got 5"),
        (
            b'{"model": "auto", "stream": "yes", "messages": [{"role": "user", "content": "x"}]}',
            400,
            "stream",
            "stream: expected true or false, got 'yes'",
        ),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": "nothing"}]}',
            400,
            None,
            "no decision matches",
        ),
    ],
)
def test_a_bad_body_is_answered_with_what_is_wrong(two, body, status, param, message):
    gateway, small, large = two
    answer = gateway.send("POST", CHAT, body)
    error = error_of(answer)
    assert (answer.status, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert message in error["message"]
    assert len(error["message"]) < 300
    assert small.requests == large.requests == []


@pytest.mark.parametrize("prompt", [None, [1, 2], [[1]], [], " "])
def test_a_prompt_without_text_cannot_be_routed(two, prompt):
    answer = two[0].send("POST", "/v1/completions", {"model": "auto", "prompt": prompt})
    assert (answer.status, error_of(answer)["param"]) == (400, "prompt")


def test_a_model_that_nobody_knows(two):
    answer = two[0].chat("x", model="gpt-9" * 100)
    assert (answer.status, error_of(answer)["code"]) == (404, "model_not_found")
    assert len(answer.body) < 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_megabytes_is_refused(two, chunked):
    gateway, small, _ = two
    big = json.dumps({"model": "small", "messages": [{"role": "user", "content": "x" * (10 << 20)}]}).encode()
    body = iter([big[: 5 << 20], big[5 << 20 :]]) if chunked else big
    answer = gateway.send("POST", CHAT, body) if not chunked else send_chunked(gateway, body)
    assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")
    assert small.requests == []
    assert gateway.chat("x").status == 200


def send_chunked(gateway, pieces):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)) as connection:
        connection.request("POST", CHAT, pieces, {"content-type": "application/json"}, encode_chunked=True)
        answer = connection.getresponse()
        return type(gateway.send("GET", "/healthz"))(answer.status, dict(answer.getheaders()), answer.read())


def test_a_large_body_within_the_limit_goes_on(two):
    gateway, small, _ = two
    text = "x" * (7 << 20)
    assert gateway.chat(text).status == 200
    assert json.loads(small.requests[0][2])["messages"][0]["content"] == text


def test_a_small_body_does_not_become_a_large_one(two):
    bomb = gzip.compress(b'{"model": "auto", "x": "' + b"a" * (64 << 20) + b'"}')
    answer = two[0].send("POST", CHAT, bomb, content_encoding="gzip")
    assert answer.status == 413
    broken = two[0].send("POST", CHAT, b"no gzip", content_encoding="gzip")
    assert broken.status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_taken(two, content_type):
    answer = two[0].send("POST", CHAT, b"{}", content_type=content_type)
    assert (answer.status, error_of(answer)["code"]) == (415, "unsupported_media_type")


def test_other_paths_and_methods(two):
    gateway, _, _ = two
    assert error_of(gateway.send("GET", "/v2"))["code"] == "not_found"
    answer = gateway.send("GET", CHAT)
    assert (answer.status, error_of(answer)["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")


# ---------------------------------------------------------------- failing endpoints


def test_the_next_candidate_answers_where_the_best_is_out_of_order(two):
    gateway, small, large = two
    large.broken = True
    answer = gateway.chat("large")
    assert answer.status == 200
    assert answer.headers["x-vsr-selected-model"] == "small"
    assert answer.headers["x-vsr-attempts"] == "2"
    assert json.loads(small.requests[0][2])["model"] == "small"
    assert gateway.metric("gpu_select_endpoint_tries_total", model="large", outcome="failed") == 1


def test_the_next_candidate_answers_where_the_best_cannot_be_reached(world):
    gateway = world.gateway([world.upstream("small")[1], world.dead("large")])
    assert gateway.chat("large").headers["x-vsr-selected-model"] == "small"
    assert gateway.metric("gpu_select_endpoint_tries_total", model="large", outcome="unreachable") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_candidate_answers_where_the_best_is_too_slow(world, stream):
    upstream, slow = world.upstream("large")
    small, model = world.upstream("small")
    small.special = lambda *_: None
    limits = UpstreamConfig(first_byte_s=0.2, total_s=0.2)
    gateway = world.gateway([model, slow], GatewayConfig(upstream=limits))
    answer = gateway.chat("large please slow answer", stream=stream)
    assert (answer.status, answer.headers["x-vsr-selected-model"]) == (200, "small")
    assert gateway.metric("gpu_select_endpoint_tries_total", model="large", outcome="timeout") == 1
    assert upstream.gone == 1


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (422, 1), (429, 2), (401, 2), (404, 2), (503, 2), (302, 2)])
def test_what_every_endpoint_would_refuse_is_not_tried_again(world, status, tries):
    large, large_model = world.upstream("large")
    small, small_model = world.upstream("small")
    small.special = lambda *_: None
    gateway = world.gateway([small_model, large_model])
    answer = gateway.chat(f"large please status {status}")
    assert len(large.requests) == 1
    assert len(small.requests) == tries - 1
    assert answer.status == (200 if tries == 2 else status)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_of_the_only_endpoint_comes_back_as_it_is(two, status):
    answer = two[0].chat(f"please status {status}", model="large")
    assert answer.status == status
    assert answer.json["error"]["message"] == f"large says {status}"
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_of_the_only_endpoint_does_not_lead_the_client_past_the_gateway(two, status):
    answer = two[0].chat(f"please status {status}", model="large")
    assert (answer.status, error_of(answer)["code"]) == (502, "endpoint_failed")
    assert error_of(answer)["message"] == f"The endpoint of large redirects elsewhere ({status})"
    assert "location" not in answer.headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_an_endpoint_refuses_is_not_the_clients(two, status):
    answer = two[0].chat(f"please status {status}", model="large")
    assert (answer.status, error_of(answer)["code"]) == (502, "endpoint_failed")
    assert error_of(answer)["message"] == f"The endpoint of large refused the gateway's key ({status})"


def test_nobody_answers(world):
    gateway = world.gateway([world.dead("small"), world.dead("large")])
    answer = gateway.chat("x")
    assert (answer.status, error_of(answer)["code"]) == (502, "endpoint_failed")
    assert error_of(answer)["message"] == "The endpoint of large cannot be reached"


def test_nobody_answers_in_time(world):
    limits = UpstreamConfig(total_s=0.1)
    gateway = world.gateway([world.upstream("small")[1]], GatewayConfig(upstream=limits))
    answer = gateway.chat("please slow answer", model="small")
    assert (answer.status, error_of(answer)["code"]) == (504, "endpoint_timeout")


def test_an_endpoint_that_keeps_failing_is_left_alone_and_tried_again(world):
    upstream, model = world.upstream("small")
    settings = GatewayConfig(breaker=BreakerConfig(failures=3, open_s=0.3))
    gateway = world.gateway([model], settings)
    upstream.broken = True
    assert [gateway.chat("x", model="small").status for _ in range(3)] == [500] * 3
    answer = gateway.chat("x", model="small")
    assert (answer.status, error_of(answer)["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
    assert len(upstream.requests) == 3
    assert gateway.send("GET", "/metrics").body.count(b'gpu_select_circuit_open{model="small"} 1.0') == 1
    upstream.broken = False
    for _ in range(100):
        if gateway.chat("x", model="small").status == 200:
            break
        time.sleep(0.05)
    assert gateway.metric("gpu_select_circuit_open", model="small") == 0


def cut(gateway):
    """A stream that breaks off: true. One that is refused: its status."""
    try:
        return gateway.chat("please cut stream", model="small", stream=True).status
    except http.client.IncompleteRead:
        return "cut"


def test_an_endpoint_that_keeps_breaking_off_is_left_alone_and_its_probe_has_to_come_to_its_end(world):
    upstream, model = world.upstream("small")
    gateway = world.gateway([model], GatewayConfig(breaker=BreakerConfig(failures=3, open_s=60, max_open_s=120)))
    breaker = gateway.gateway.generation.endpoints["small"].breaker
    assert [cut(gateway) for _ in range(4)] == ["cut", "cut", "cut", 503]
    assert len(upstream.requests) == 3
    breaker._opened_at -= 60  # its rest is over
    assert breaker.state == "half-open"
    assert [cut(gateway) for _ in range(2)] == ["cut", 503]
    assert breaker.retry_after_s > 60
    breaker._opened_at -= 120
    assert gateway.chat("x", model="small", stream=True).status == 200
    wait_until(lambda: breaker.state == "closed")


def wait_until(holds):
    for _ in range(250):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def in_thread(function, *arguments, **named):
    thread = threading.Thread(target=function, args=arguments, kwargs=named, daemon=True)
    thread.start()
    return thread


def test_an_endpoint_that_hangs_leaves_connections_to_others_and_is_not_at_fault_for_those_it_does_not_get(world):
    (small, small_model), (large, large_model) = world.upstream("small"), world.upstream("large")
    limits = UpstreamConfig(connect_s=0.1, total_s=3, max_connections=2, max_connections_per_endpoint=1)
    settings = GatewayConfig(upstream=limits, breaker=BreakerConfig(failures=1))
    gateway = world.gateway([small_model, large_model], settings)
    waiting = [in_thread(gateway.chat, "please slow answer", model="large")]
    wait_until(lambda: len(large.requests) == 1)
    answer = gateway.chat("large")
    assert (answer.status, answer.headers["x-vsr-selected-model"], answer.headers["x-vsr-attempts"]) == (
        200,
        "small",
        "1",
    )
    answer = gateway.chat("x", model="large")
    assert (answer.status, error_of(answer)["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
    assert error_of(answer)["message"] == "The endpoint of large has as many requests as it may"
    waiting.append(in_thread(gateway.chat, "please slow answer", model="small"))
    wait_until(lambda: len(small.requests) == 2)
    assert gateway.chat("x").status == 503
    assert gateway.metric("gpu_select_circuit_open", model="small") == 0
    assert gateway.metric("gpu_select_circuit_open", model="large") == 0
    assert gateway.metric("gpu_select_endpoint_tries_total", model="large", outcome="busy") == 3
    for thread in waiting:
        thread.join()
    assert (gateway.gateway.pool._n_all, gateway.gateway.pool._n_taken) == (0, {})


def test_the_connections_of_clients_that_leave_are_free_again(world):
    upstream, model = world.upstream("small")
    gateway = world.gateway([model], GatewayConfig(upstream=UpstreamConfig(max_connections=1)))
    for prompt, stream in (("please slow answer", False), ("please slow stream", True)):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)) as connection:
            n_before = len(upstream.requests)
            body = {"model": "small", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
            connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
            wait_until(lambda n=n_before: len(upstream.requests) > n)
        wait_until(lambda: gateway.gateway.pool._n_all == 0)
    for _ in range(3):
        assert cut(gateway) == "cut"
    assert gateway.chat("x", model="small").status == 200


def test_a_connection_that_the_endpoint_closes_as_it_is_used_again_is_no_failure(two):
    gateway, small, _ = two
    small.drops_used_connections = True
    for _ in range(3):
        answer = gateway.chat("x", model="small")
        assert (answer.status, answer.headers["x-vsr-attempts"]) == (200, "1")
    assert gateway.metric("gpu_select_endpoint_tries_total", model="small", outcome="answered") == 3
    assert len(small.requests) == 5  # two of them on connections that were closed


# ---------------------------------------------------------------- request ids


@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "trace:1/2=3"])
def test_a_harmless_request_id_is_kept(two, given):
    assert two[0].chat("x", headers={"x_request_id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["a b", "a" * 129, "é", "<script>", '"'])
def test_any_other_one_is_replaced(two, given):
    sent = {"x_request_id": given.encode("utf-8").decode("latin-1")}
    assert re.fullmatch(r"[0-9a-f]{32}", two[0].chat("x", headers=sent).headers["x-request-id"])
