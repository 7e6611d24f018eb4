"""Clients that send or take too slowly, and bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time

import numpy as np
import pytest

from gpu_select.config.gateway import GatewayConfig, UpstreamConfig
from gpu_select.gateway.embedder import Embedding


def connect(gateway, data=b""):
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(data)
    return connection


def read_all(connection):
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    connection.close()
    return b"".join(pieces)


def post(body, *headers, length=None, path="/v1/chat/completions"):
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Connection: close"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_body_that_does_not_come_in_time(world):
    gateway = world.gateway([world.upstream("small")[1]], GatewayConfig(body_timeout_s=0.2))
    with connect(gateway, post(b'{"model": ', length=100)) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408
        assert json.loads(answer.read())["error"]["code"] == "request_timeout"


def test_a_client_that_leaves_in_the_middle_of_its_body(two):
    gateway, small, _ = two
    connect(gateway, post(b'{"model": ', length=100)).close()
    for _ in range(100):
        if gateway.metric("gpu_select_requests_total", route="/v1/chat/completions", status="499"):
            break
        time.sleep(0.02)
    else:
        raise AssertionError("waited in vain")
    assert small.requests == []


def test_a_client_that_takes_nothing_is_let_go_and_its_endpoint_with_it(world):
    small, model = world.upstream("small")

    async def flood(request, prompt, values):
        from aiohttp import web

        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b": nothing\n\n" * 10_000)
        except (asyncio.CancelledError, ConnectionError):
            small.gone += 1
            raise

    small.special = lambda *arguments: flood(*arguments)
    gateway = world.gateway([model], GatewayConfig(upstream=UpstreamConfig(idle_s=0.3)))
    body = json.dumps({"model": "small", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
    connection = connect(gateway, post(body))
    for _ in range(200):
        if small.gone:
            break
        time.sleep(0.05)
    assert small.gone == 1
    connection.close()
    assert gateway.metric("gpu_select_requests_in_flight") == 0


class WideEmbedder:
    """Vectors that make an answer of megabytes."""

    name = "wide"
    dim = 4096

    def embed(self, texts):
        return [Embedding(np.full(self.dim, 1 / 3, np.float32), 1, False) for _ in texts]


def ask_for_megabytes(gateway):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", gateway.port))
    body = json.dumps({"model": "wide", "input": ["x"] * 200}).encode()
    connection.sendall(post(body, path="/v1/embeddings"))
    return connection


def test_a_client_that_takes_nothing_of_a_whole_answer_is_let_go(world):
    settings = GatewayConfig(upstream=UpstreamConfig(idle_s=0.2))
    gateway = world.gateway([world.upstream("small")[1]], settings, embedder=WideEmbedder())
    with ask_for_megabytes(gateway) as connection:
        for _ in range(200):
            if gateway.metric("gpu_select_requests_total", route="/v1/embeddings", status="499"):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("waited in vain")
        assert gateway.metric("gpu_select_requests_in_flight") == 0
        with pytest.raises((ConnectionResetError, json.JSONDecodeError)):
            json.loads(b"".join(pieces_of_answer(connection)))


def test_a_client_that_takes_long_but_steadily_gets_its_whole_answer(world):
    idle_s, pause_s = 0.8, 0.03
    settings = GatewayConfig(upstream=UpstreamConfig(idle_s=idle_s))
    gateway = world.gateway([world.upstream("small")[1]], settings, embedder=WideEmbedder())
    pieces = []
    with ask_for_megabytes(gateway) as connection:
        for piece in pieces_of_answer(connection):
            pieces.append(piece)
            time.sleep(pause_s)
    assert len(pieces) * pause_s > 2 * idle_s
    assert len(json.loads(b"".join(pieces))["data"]) == 200
    assert gateway.metric("gpu_select_requests_total", route="/v1/embeddings", status="200") == 1


def pieces_of_answer(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    while piece := answer.read(1 << 17):
        yield piece


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx-request-id: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx: \x00\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400(two, data):
    gateway, small, _ = two
    assert read_all(connect(gateway, data)).startswith(b"HTTP/1.0 400 ")
    assert gateway.chat("x").status == 200
    assert len(small.requests) == 1


def test_a_header_cannot_be_smuggled_into_the_answer(two):
    gateway, _, _ = two
    value = "law%0d%0ax-evil: 1"
    answer = gateway.chat("x", headers={"x_vsr_domain": value})
    assert answer.headers["x-vsr-selected-category"] == "law%250d%250ax-evil: 1"
    assert "x-evil" not in answer.headers
