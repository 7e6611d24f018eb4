from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from dataclasses import replace

import pytest

pytest.importorskip("aiohttp")

from gpu_select import __version__
from gpu_select.benchmark import client as module
from gpu_select.benchmark.client import Client, open_session
from gpu_select.benchmark.dialect import Dialect
from gpu_select.benchmark.failure import CallFailedError, Refusal
from gpu_select.benchmark.targets import Target


@pytest.fixture
def target(server):
    return Target("m", f"{server.endpoint}/chat/completions", {}, 64, 0.0, 30.0, None, None, None)


def ask(target, *prompts, stream=True):
    """The answers to prompts one after the other by one client; the last one raises what it raises."""

    async def main():
        async with open_session() as session:
            client = Client(session, target, stream=stream)
            return [await client.ask(prompt) for prompt in prompts]

    return asyncio.run(main())


def failure(target, prompt, **options) -> CallFailedError:
    with pytest.raises(CallFailedError) as caught:
        ask(target, prompt, **options)
    return caught.value


def script(*steps):
    return json.dumps(steps)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_and_what_was_sent(server, target, model_server, stream):
    target = replace(target, headers={"authorization": "Bearer sk-1", "x-own": "1"})
    (answer,) = ask(target, "Grüße?", stream=stream)
    assert answer.text == model_server.text_of("m", "Grüße?")
    assert (answer.finish_reason, answer.input_tokens, answer.output_tokens) == ("stop", 7, 11)
    assert (answer.first_token_s is not None) == stream
    assert answer.with_temperature
    (call,) = server.calls()
    assert call["body"] == Dialect(stream=stream).body(target, "Grüße?")
    headers = call["headers"]
    assert (headers["authorization"], headers["x-own"]) == ("Bearer sk-1", "1")
    assert (headers["content-type"], headers["accept-encoding"]) == ("application/json", "identity")
    assert headers["user-agent"] == f"gpu-select/{__version__}"
    assert "cookie" not in headers


def test_times_are_those_of_the_answer_alone(target):
    start = time.perf_counter()
    (answer,) = ask(target, script({"wait": 0.3, "text": "x" * 90}))
    took = time.perf_counter() - start
    assert 0.3 <= answer.first_token_s <= answer.seconds <= took


def test_the_first_token_comes_before_the_last(target, server):
    chunk = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
    events = [json.dumps(chunk)] * 2000 + ["[DONE]"]
    (answer,) = ask(target, script({"events": events}))
    assert answer.text == "a" * 2000
    assert 0 < answer.first_token_s < answer.seconds


def test_thoughts_count_as_tokens_but_are_not_kept(target):
    prompt = script({"text": "42", "reasoning": "hm"})
    for stream in (True, False):
        assert ask(target, prompt, stream=stream)[0].text == "42"


def test_an_answer_that_was_cut_by_its_limit_says_so(target):
    (answer,) = ask(target, script({"text": "half", "finish": "length"}))
    assert (answer.text, answer.finish_reason) == ("half", "length")


def test_a_server_that_does_not_stream_is_understood(target):
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}
    (answer,) = ask(target, script({"raw": json.dumps(body)}))
    assert (answer.text, answer.first_token_s, answer.input_tokens) == ("whole", None, 2)


def test_connections_are_used_again(server, target, monkeypatch):
    made = []
    connect = module.aiohttp.TCPConnector._create_connection

    async def counted(self, *args, **kwargs):
        made.append(1)
        return await connect(self, *args, **kwargs)

    monkeypatch.setattr(module.aiohttp.TCPConnector, "_create_connection", counted)
    ask(target, "a", "b", script({"text": "c"}), "d")
    assert len(made) == 1


# ---------------------------------------------------------------- what goes wrong

CUT = "the connection was cut before the answer was complete"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("429", "HTTP 429: try later"),
        ("500", "HTTP 500: try later"),
        ("broken json", 'expected JSON, got \'{"choices": [{"message": {"content": "ha\''),
        ("cut before", CUT),
        ("cut whole", CUT),
        ("cut stream", "the stream ended before the answer was complete"),
        ("error in answer", "an error: overloaded"),
        ("no HTTP", "the server does not speak valid HTTP"),
    ],
)
def test_what_another_try_may_help_against(target, fault, text, stream):
    failed = failure(target, script({"fault": fault}), stream=stream)
    assert (str(failed), failed.may_retry, failed.refusal) == (text, True, Refusal.NO)
    assert failed.asked_s == (0.0 if fault == "429" else None)


def test_a_stream_that_breaks_the_protocol(target):
    failed = failure(target, script({"events": ['{"choices": [{"delta": 5}]}']}))
    assert (str(failed).startswith("expected choices[0].delta, got"), failed.may_retry) == (True, True)


def test_an_event_that_is_cut_in_its_middle(target):
    raw = 'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"choices": [{"de'
    failed = failure(target, script({"raw": raw, "type": "text/event-stream"}))
    assert (str(failed)[:18], failed.may_retry) == ("expected JSON, got", True)


def test_a_stream_may_end_without_an_empty_line(target):
    raw = 'data: {"choices": [{"delta": {"content": "all"}}]}\n\ndata: [DONE]'
    assert ask(target, script({"raw": raw, "type": "text/event-stream"}))[0].text == "all"


def test_a_stream_that_goes_on_after_its_end_is_not_waited_for(target, monkeypatch):
    monkeypatch.setattr(module, "_MAX_REFUSAL_BYTES", 1000)
    chunk = json.dumps({"choices": [{"delta": {"content": "a"}}]})
    (answer,) = ask(target, script({"events": [chunk, "[DONE]", *[chunk] * 100]}))
    assert answer.text == "a"


def test_an_answer_that_takes_too_long(target):
    start = time.perf_counter()
    failed = failure(replace(target, timeout_s=0.2), script({"wait": 30, "text": "late"}))
    assert time.perf_counter() - start < 10
    assert (str(failed), failed.may_retry) == ("no whole answer within 0.2 s", True)


def test_nobody_listens(target):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failed = failure(replace(target, url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1"), "a")
    assert (str(failed), failed.may_retry) == ("cannot connect: Connection refused", True)


def test_a_server_without_tls(server, target):
    failed = failure(replace(target, url=target.url.replace("http://", "https://")), "a")
    assert str(failed) == "cannot connect: the server does not speak TLS as https:// asks for"


def test_nobody_answers_the_call(target, monkeypatch):
    async def never(*args, **kwargs):
        raise module.aiohttp.ConnectionTimeoutError

    monkeypatch.setattr(module.aiohttp.ClientSession, "_request", never)
    failed = failure(target, "a")
    assert (str(failed), failed.may_retry) == ("no connection within 10 s", True)


def test_a_host_that_has_no_address(target):
    failed = failure(replace(target, url="http://nonesuch.invalid/v1"), "a")
    assert (str(failed), failed.may_retry) == ("cannot connect: the host's name is not known", True)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [(400, Refusal.THIS), (413, Refusal.THIS), (401, Refusal.FOR_ALL), (404, Refusal.FOR_ALL), (302, Refusal.FOR_ALL)],
)
def test_what_no_other_try_helps_against(server, target, status, refusal):
    failed = failure(target, script({"status": status, "body": "no", "headers": {"Location": server.endpoint}}))
    assert (failed.refusal, failed.may_retry) == (refusal, False)
    assert len(server.calls()) == 1


def test_the_wait_that_a_server_asks_for(target):
    failed = failure(target, script({"status": 503, "headers": {"Retry-After": "17"}}))
    assert (failed.asked_s, failed.may_retry) == (17.0, True)


def test_secrets_that_a_server_repeats_are_masked(target):
    target = replace(target, headers={"authorization": "Bearer sk-1234", "x-key": "t0ken"})
    for step in (
        {"status": 401, "body": '{"error": {"message": "bad key sk-1234, t0ken"}}'},
        {"raw": '{"error": {"message": "bad key sk-1234, t0ken"}}'},
    ):
        text = str(failure(target, script(step)))
        assert "bad key ***, ***" in text
        assert "sk-1234" not in text


def test_answers_have_a_bound(target, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BODY_BYTES", 1000)
    for stream in (True, False):
        failed = failure(target, script({"text": "x" * 2000}), stream=stream)
        assert (str(failed), failed.may_retry) == ("expected an answer of at most 8 MiB, got a longer one", False)


def test_what_a_refusal_says_has_a_bound(target, monkeypatch):
    monkeypatch.setattr(module, "_MAX_REFUSAL_BYTES", 1 << 16)
    assert str(failure(target, script({"status": 400, "body": "x" * 300_000}))).startswith("HTTP 400")


def test_what_a_server_says_does_nothing_to_a_terminal(target):
    failed = failure(target, script({"raw": json.dumps({"error": {"message": "a\x1b[2J\nb"}})}))
    assert str(failed) == "an error: a [2J b"


# ---------------------------------------------------------------- servers that take other options


def test_options_that_a_server_refuses_are_left_out_from_then_on(server, target):
    first = script({"refuse": "stream_options", "text": "a"})
    second = script({"text": "b"})
    assert [answer.text for answer in ask(target, first, second)] == ["a", "b"]
    bodies = [call["body"] for call in server.calls()]
    assert ["stream_options" in body for body in bodies] == [True, False, False]
    assert all(body["stream"] for body in bodies)


def test_reasoning_models_name_the_limit_otherwise(server, target):
    say = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    ask(target, script({"refuse": "max_tokens", "say": say, "text": "a"}))
    assert [call["body"].get("max_completion_tokens") for call in server.calls()] == [None, 64]


def test_a_model_that_takes_no_temperature(server, target, caplog):
    with caplog.at_level(logging.WARNING, "gpu_select"):
        first, second = ask(target, script({"refuse": "temperature", "text": "a"}), "b")
    assert (first.with_temperature, second.with_temperature) == (False, False)
    assert [record.getMessage() for record in caplog.records] == ["m takes no temperature: it answers with its own"]


def test_a_refusal_for_another_reason_changes_nothing(server, target):
    say = "max_tokens or max_completion_tokens is too large: this model's context has 20 tokens"
    prompt = script({"status": 400, "body": say}, {"status": 400, "body": say}, {"text": "never"})

    async def main():
        async with open_session() as session:
            client = Client(session, target, stream=True)
            with pytest.raises(CallFailedError, match="HTTP 400: max_tokens or max_completion_tokens is too large"):
                await client.ask(prompt)
            return client.dialect

    assert asyncio.run(main()) == Dialect()
    assert len(server.calls()) == 2


def test_a_proxy_of_the_environment_is_asked(server, target, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    (answer,) = ask(replace(target, url="http://models.invalid/v1/chat/completions"), "a")
    assert answer.output_tokens == 11
    assert server.calls()[0]["headers"]["host"] == "models.invalid"
