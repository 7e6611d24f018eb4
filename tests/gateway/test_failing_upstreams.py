"""1,000 streams, 64 at once, through a gateway whose endpoints fail on one request in five, and directly."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")
PROGRAM = Path(__file__).with_name("gateway_program.py")
N_REQUESTS, N_AT_ONCE = 1000, 64


async def answers_of(gateway, ports):
    """For each request, the model that answered, the bytes through the gateway, and those of this model directly."""
    routed = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0, timeout=60)
    direct = {
        name: openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1",
            api_key="x",
            timeout=60,
            max_retries=20,  # one of them does not listen all the time
            default_headers={"x-never-fail": "1"},
        )
        for name, port in ports.items()
    }
    turn = asyncio.Semaphore(N_AT_ONCE)

    async def ask(client, model, i):
        messages = [{"role": "user", "content": f"question {i} " + "x" * (i % 7)}]
        create = client.chat.completions.with_streaming_response.create
        async with create(model=model, messages=messages, stream=True) as answer:
            return answer.headers, b"".join([piece async for piece in answer.iter_bytes()])

    async def one(i):
        async with turn:
            headers, through = await ask(routed, "auto", i)
            model = headers["x-vsr-selected-model"]
            _, alone = await ask(direct[model], model, i)
            return model, int(headers["x-vsr-attempts"]), through, alone

    return await asyncio.gather(*(one(i) for i in range(N_REQUESTS)))


def failed(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/failed") as answer:
        return int(answer.read().decode().partition(": ")[2].strip("}"))


@pytest.mark.slow
def test_no_client_sees_an_error_and_every_stream_is_the_endpoints_own(processes, write_config):
    ports = {name: processes.upstream(name, "--fail", i) for i, name in enumerate(["a", "b", "c"])}
    ports["d"] = processes.upstream("d", "--fail", 3, "--refuse")
    gateway = processes.gateway(PROGRAM, write_config(ports, {"breaker": {"open_s": 0.2}}))
    answers = asyncio.run(answers_of(gateway, ports))
    assert len(answers) == N_REQUESTS
    assert [i for i, (_, _, through, alone) in enumerate(answers) if through != alone] == []
    assert len({through for _, _, through, _ in answers}) == N_REQUESTS
    assert {model for model, *_ in answers} == set(ports)
    # they did fail, and more than one candidate had to be asked
    n_failed = sum(failed(ports[name]) for name in "abc")
    assert n_failed > 0.1 * N_REQUESTS
    again = [n for _, n, _, _ in answers if n > 1]
    assert len(again) > 0.1 * N_REQUESTS
    outcomes = metrics(gateway)
    for outcome in ("failed", "cut", "unreachable"):
        assert any(f'outcome="{outcome}"' in line for line in outcomes), outcomes


def metrics(gateway):
    with urllib.request.urlopen(f"{gateway.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return [line for line in lines if line.startswith("gpu_select_endpoint_tries_total")]
