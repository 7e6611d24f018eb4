"""An OpenAI-compatible server whose answers follow from the request alone, and which fails on demand.

    python upstream_server.py --name small [--fail 0] [--refuse]

As a program it prints its port, and runs until its standard input ends. With --fail N, one in five prompts fails, in
turn by status 500, by a cut before the first byte and by a cut connection; N says which fifth. With --refuse it stops
listening for 200 ms of every second. A request with the header x-never-fail is spared.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import random
import sys
from typing import Any

from aiohttp import web


def digest(*values: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big")


def words(seed: int) -> list[str]:
    generator = random.Random(seed)
    return [generator.choice(["Grüße ", "a\n\n", "data: ", "😀", '"quoted" ', "word "]) for _ in range(seed % 40 + 3)]


class Upstream:
    """What came, and how to answer it."""

    def __init__(self, name: str, *, fail: int | None = None) -> None:
        self.name = name
        self.fail = fail
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.keep = True
        self.gone = 0
        """Clients that left in the middle of an answer."""
        self.broken = False
        """Answer everything with status 500."""
        self.n_failed = 0
        self.drops_used_connections = False
        """Close a connection on its second request, as one whose time was up just then."""
        self._used: set[int] = set()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.post("/v1/{path:.+}", self.answer), web.get("/failed", self.failed)])
        return app

    async def failed(self, request: web.Request) -> web.Response:
        return web.json_response({"failed": self.n_failed})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.keep:
            self.requests.append((request.path, {name.lower(): value for name, value in request.headers.items()}, body))
        assert request.transport is not None
        if self.drops_used_connections:
            port = request.transport.get_extra_info("peername")[1]
            if port in self._used:
                request.transport.close()
                return web.Response()
            self._used.add(port)
        values = json.loads(body)
        prompt = json.dumps(values.get("messages") or values.get("prompt") or values.get("input"))
        seed = digest(prompt)
        if self.broken:
            return web.json_response({"error": {"message": f"{self.name} is broken"}}, status=500)
        if self.fail is not None and seed % 5 == self.fail and "x-never-fail" not in request.headers:
            self.n_failed += 1
            return await self.failing(request, seed // 5 % 3, bool(values.get("stream")))
        special = self.special(request, prompt, values)
        if special is not None:
            return await special
        if request.path.endswith("/embeddings"):
            return web.json_response(
                {
                    "object": "list",
                    "model": values["model"],
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
                    "usage": {"prompt_tokens": 1, "total_tokens": 1},
                }
            )
        if values.get("stream"):
            return await self.stream(request, values, seed)
        return web.json_response(self.whole(values, seed), headers={"x-request-id": "of the endpoint", "x-own": "1"})

    def whole(self, values: dict[str, Any], seed: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words(seed))}
        if values.get("tools"):
            call = {"name": values["tools"][0]["function"]["name"], "arguments": json.dumps({"seed": seed})}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
            }
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        choice |= {"message": message} if "messages" in values else {"text": "".join(words(seed))}
        return {
            "id": f"chatcmpl-{seed:x}",
            "object": "chat.completion" if "messages" in values else "text_completion",
            "created": 1,
            "model": values["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        }

    async def stream(self, request: web.Request, values: dict[str, Any], seed: int) -> web.StreamResponse:
        """Events, cut into pieces anywhere, even within a character."""
        events = []
        for i, word in enumerate(words(seed)):
            delta = {"role": "assistant", "content": word} if i == 0 else {"content": word}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            choice |= {} if "messages" in values else {"text": word}
            chunk = {
                "id": f"chatcmpl-{seed:x}",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": values["model"],
                "choices": [choice],
            }
            events.append(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n")
        data = ("".join(events) + "data: [DONE]\n\n").encode()
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        generator = random.Random(seed)
        at = 0
        while at < len(data):
            size = generator.randint(1, 400)
            await response.write(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def failing(self, request: web.Request, how: int, stream: bool) -> web.StreamResponse:
        if how == 0:
            return web.json_response({"error": {"message": "out of order", "type": "server_error"}}, status=500)
        assert request.transport is not None
        if how == 1:
            content_type = "text/event-stream" if stream else "application/json"
            response = web.StreamResponse(headers={"content-type": content_type})
            response.content_length = None if stream else 1000
            await response.prepare(request)
        request.transport.close()
        return web.Response()

    def special(self, request: web.Request, prompt: str, values: dict[str, Any]) -> Any:
        """What tests ask for in the prompt."""
        for name in ("slow answer", "slow stream", "cut stream", "cut event", "cut whole", "status", "evil headers"):
            if f"please {name}" in prompt:
                return getattr(self, name.replace(" ", "_"))(request, prompt, values)
        return None

    async def slow_answer(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        return web.json_response({})

    async def slow_stream(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for i in range(100):
                chunk = {**self.whole(values, 0), "object": "chat.completion.chunk"}
                chunk["choices"] = [{"index": 0, "delta": {"content": f"{i} "}, "finish_reason": None}]
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(0.03)
            await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise
        return response

    async def cut_stream(
        self, request: web.Request, prompt: str, values: dict[str, Any], end: str = "\n\n"
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunk = {**self.whole(values, 0), "object": "chat.completion.chunk"}
        chunk["choices"] = [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]
        await response.write(f"data: {json.dumps(chunk)}{end}".encode())
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response

    async def cut_event(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        return await self.cut_stream(request, prompt, values, end="")

    async def cut_whole(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        """More than the gateway holds back, then the end."""
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = 8 << 20
        await response.prepare(request)
        await response.write(b"{" + b" " * (4 << 20))
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response

    async def status(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        status = int(prompt.partition("please status ")[2][:3])
        error = {"error": {"message": f"{self.name} says {status}", "type": "t", "param": None, "code": "c"}}
        return web.json_response(error, status=status, headers={"Retry-After": "7", "Location": "http://127.0.0.1:1/"})

    async def evil_headers(self, request: web.Request, prompt: str, values: dict[str, Any]) -> web.StreamResponse:
        names = {"set-cookie": "a=b", "x-vsr-selected-decision": "forged", "server": "secret/1.0", "x-own": "2"}
        return web.json_response(self.whole(values, 0), headers={**names, "connection": "x-hop", "x-hop": "1"})


async def run(name: str, fail: int | None, refuse: bool) -> None:
    upstream = Upstream(name, fail=fail)
    upstream.keep = False
    runner = web.AppRunner(upstream.app(), access_log=None, keepalive_timeout=0 if refuse else 75)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(port, flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        await asyncio.wait({ended}, timeout=0.8)
        if refuse:
            await site.stop()
            await asyncio.wait({ended}, timeout=0.2)
            site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
            await site.start()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="small")
    parser.add_argument("--fail", type=int)
    parser.add_argument("--refuse", action="store_true")
    options = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that leave are part of it
    asyncio.run(run(options.name, options.fail, options.refuse))
