"""The official openai client against the gateway: chats, streams, tools, embeddings, models and errors."""

from __future__ import annotations

import time

import pytest

from gpu_select.config.gateway import BatchingConfig, GatewayConfig, UpstreamConfig

openai = pytest.importorskip("openai")

PARAMETERS = {"type": "object", "properties": {}}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}]


def client_of(gateway, **settings):
    return openai.OpenAI(
        base_url=f"{gateway.url}/v1", **{"api_key": "any", "max_retries": 0, "timeout": 20, **settings}
    )


def ask(text):
    return [{"role": "user", "content": text}]


def test_a_chat(two):
    gateway, small, _ = two
    answer = client_of(gateway).chat.completions.create(model="auto", messages=ask("Grüße"))
    assert answer.model == "small"
    assert answer.choices[0].message.content == "".join(answer_words(gateway, small.requests[0][2]))


def answer_words(gateway, body):
    import json
    import sys

    server = sys.modules["upstream_server"]
    return server.words(server.digest(json.dumps(json.loads(body)["messages"])))


def test_a_chat_with_tools(two):
    answer = client_of(two[0]).chat.completions.create(model="auto", messages=ask("x"), tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "look_up"


def test_headers_through_the_raw_response(two):
    raw = client_of(two[0]).chat.completions.with_raw_response.create(model="auto", messages=ask("large"))
    assert raw.headers["x-vsr-selected-model"] == "large"
    assert raw.parse().model == "large"


def test_a_stream(two):
    gateway, small, _ = two
    stream = client_of(gateway).chat.completions.create(model="auto", messages=ask("tell me"), stream=True)
    text = "".join(chunk.choices[0].delta.content for chunk in stream)
    assert text == "".join(answer_words(gateway, small.requests[0][2]))


@pytest.mark.parametrize("text", ["one", "two", "three large"])
def test_a_stream_is_the_endpoints_own_byte_for_byte(two, text):
    gateway, _, _ = two
    kwargs = {"messages": ask(text), "stream": True}
    with client_of(gateway).chat.completions.with_streaming_response.create(model="auto", **kwargs) as routed:
        through = b"".join(routed.iter_bytes())
        model = routed.headers["x-vsr-selected-model"]
    base_url = gateway.gateway.generation.endpoints[model].model.endpoint
    direct = openai.OpenAI(base_url=base_url, api_key="x").chat.completions
    with direct.with_streaming_response.create(model=model, **kwargs) as answer:
        assert through == b"".join(answer.iter_bytes())
    assert through.endswith(b"data: [DONE]\n\n")


def test_a_stream_arrives_as_it_is_made_and_a_client_that_leaves_takes_the_endpoint_along(two):
    gateway, small, _ = two
    stream = client_of(gateway).chat.completions.create(model="auto", messages=ask("please slow stream"), stream=True)
    assert next(iter(stream)).choices[0].delta.content == "0 "
    stream.response.close()
    # the endpoint was still at the others of its 100 pieces
    wait_for(lambda: small.gone == 1)
    assert gateway.chat("x").status == 200
    wait_for(lambda: gateway.metric("gpu_select_requests_in_flight") == 0)


def test_a_client_that_leaves_while_it_waits_takes_the_endpoint_along(two):
    gateway, small, _ = two
    with pytest.raises(openai.APITimeoutError):
        client_of(gateway, timeout=0.3).chat.completions.create(model="auto", messages=ask("please slow answer"))
    wait_for(lambda: small.gone == 1)
    wait_for(lambda: gateway.metric("gpu_select_requests_total", route="/v1/chat/completions", status="499") == 1)


def wait_for(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("how", ["please cut stream", "please cut event"])
def test_a_stream_that_breaks_off_is_an_error_and_not_tried_again(two, how):
    gateway, small, large = two
    stream = client_of(gateway).chat.completions.create(model="auto", messages=ask(how), stream=True)
    texts = []
    with pytest.raises(openai.APIError, match="The endpoint of small broke off in the middle of its answer"):
        texts += [chunk.choices[0].delta.content for chunk in stream]
    assert len(small.requests) == 1
    assert large.requests == []
    assert gateway.metric("gpu_select_answers_cut_total", model="small") == 1


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(two):
    gateway, _, large = two
    with pytest.raises(openai.APIConnectionError):
        client_of(gateway).chat.completions.create(model="auto", messages=ask("please cut whole"))
    assert large.requests == []


def test_an_endpoint_that_falls_silent_in_its_stream(world):
    endpoints = [world.upstream(name)[1] for name in ("small", "large")]
    gateway = world.gateway(endpoints, GatewayConfig(upstream=UpstreamConfig(idle_s=0.01)))
    stream = client_of(gateway).chat.completions.create(model="auto", messages=ask("please slow stream"), stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


@pytest.mark.parametrize(
    ("text", "model", "error"),
    [
        ("nothing", "auto", openai.BadRequestError),
        ("x", "gpt-9", openai.NotFoundError),
        ("please status 400", "small", openai.BadRequestError),
        ("please status 422", "small", openai.UnprocessableEntityError),
        ("please status 429", "small", openai.RateLimitError),
        ("please status 500", "small", openai.InternalServerError),
    ],
)
def test_errors_are_those_of_the_clients_library(two, text, model, error):
    with pytest.raises(error) as raised:
        client_of(two[0]).chat.completions.create(model=model, messages=ask(text))
    assert raised.value.request_id
    assert raised.value.body["message"]


def test_completions(two):
    client = client_of(two[0])
    answer = client.completions.create(model="auto", prompt="large")
    assert answer.model == "large"
    pieces = list(client.completions.create(model="auto", prompt="large", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


# ---------------------------------------------------------------- embeddings


@pytest.mark.parametrize("model", ["auto", "stub-embedder"])
def test_embeddings_of_the_routers_own_encoder(two, model):
    gateway, small, _ = two
    answer = client_of(gateway).embeddings.create(model=model, input=["one", "two words"])  # the client asks for base64
    assert answer.model == "stub-embedder"
    assert [row.index for row in answer.data] == [0, 1]
    assert [row.embedding for row in answer.data] == [
        pytest.approx([3, 0.5, -0.1], abs=1e-7),
        pytest.approx([9, 0.5, -0.1], abs=1e-7),
    ]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 3
    assert small.requests == []


def test_embeddings_as_numbers(two):
    answer = client_of(two[0]).embeddings.create(model="auto", input="one", encoding_format="float", dimensions=3)
    assert answer.data[0].embedding == [3, 0.5, -0.1]


def test_texts_that_were_cut_are_counted(two):
    answer = two[0].send("POST", "/v1/embeddings", {"model": "auto", "input": ["short", "very long"]})
    assert answer.headers["x-vsr-truncated"] == "1"


def test_embeddings_of_an_endpoint(two):
    gateway, _, large = two
    answer = client_of(gateway).embeddings.create(model="large", input="one", encoding_format="float")
    assert answer.data[0].embedding == [0.5, 0.25]
    assert large.requests[0][0] == "/v1/embeddings"


@pytest.mark.parametrize(
    ("values", "param", "message"),
    [
        ({}, "input", "expected a text or a list of 1 to 2048 texts, got none"),
        ({"input": []}, "input", "got 0"),
        ({"input": ["a"] * 2049}, "input", "got 2049"),
        ({"input": ["a", ""]}, "input", "input[1]: expected a text that is not empty"),
        ({"input": [1, 2]}, "input", "input[0]: expected a text that is not empty (no token numbers), got 1"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "expected float or base64, got 'int8'"),
        ({"input": "a", "dimensions": 2}, "dimensions", "expected 3, as this encoder has, got 2"),
    ],
)
def test_a_bad_request_for_embeddings(two, values, param, message):
    answer = two[0].send("POST", "/v1/embeddings", {"model": "auto", **values})
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert message in answer.json["error"]["message"]


def test_no_encoder_no_embeddings(world):
    gateway = world.gateway([world.upstream("small")[1]], embedder=None)
    with pytest.raises(openai.NotFoundError):
        client_of(gateway).embeddings.create(model="auto", input="x")


# ---------------------------------------------------------------- models, keys, load


def test_the_list_of_models(two):
    client = client_of(two[0])
    assert [model.id for model in client.models.list()] == ["auto", "small", "large", "stub-embedder"]
    assert client.models.retrieve("large").id == "large"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/gpt-9")


def test_a_key_is_needed_where_there_are_any(world):
    gateway = world.gateway(
        [world.upstream(name)[1] for name in ("small", "large")], GatewayConfig(api_keys=("right", "right too"))
    )
    for key in ("right", "right too"):
        client_of(gateway, api_key=key).chat.completions.create(model="auto", messages=ask("x"))
    for key in ("wrong", "righ", "right-", "Right"):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            client_of(gateway, api_key=key).chat.completions.create(model="auto", messages=ask("x"))
        with pytest.raises(openai.AuthenticationError):
            client_of(gateway, api_key=key).models.list()


def test_a_full_queue_is_answered_with_429(world):
    import threading

    go, running = threading.Event(), threading.Event()

    def decide(queries):
        running.set()
        go.wait(10)
        raise AssertionError("not reached by this test's clients")

    settings = GatewayConfig(batching=BatchingConfig(max_batch=1, max_queue=2))
    gateway = world.gateway([world.upstream("small")[1]], settings, decide=decide)
    threads = []
    for _ in range(3):
        threads.append(threading.Thread(target=gateway.chat, args=("x",)))
        threads[-1].start()
        assert running.wait(10)
        wait_for(lambda: gateway.gateway._decisions.n_waiting == max(0, len(threads) - 1))
    with pytest.raises(openai.RateLimitError) as raised:
        client_of(gateway).chat.completions.create(model="auto", messages=ask("x"))
    assert raised.value.body["code"] == "queue_full"
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert gateway.metric("gpu_select_queue_full_total") == 1
    go.set()
    for thread in threads:
        thread.join()
