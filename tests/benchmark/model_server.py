"""A server of models that speaks the OpenAI chat protocol, and fails on demand or by chance.

    python model_server.py [--latency-ms 20] [--fail 0.3] [--truths TRUTHS.json]

It prints its port, and runs until standard input ends. A prompt that is a JSON list says what happens to each of its
calls in turn, the last step from then on; steps are described at `Models.step`. Any other prompt is answered with a
text that follows from prompt and model, or, with --truths, with the ground truth where the model is skilled in the
prompt's category, and mostly with something else where it is not. With --fail, such a share of calls fails first, by
429, 5xx, broken JSON, a cut connection, a cut stream or an error within an answer.

GET /log tells what was asked, POST /reset forgets it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "503", "broken json", "cut before", "cut whole", "cut stream", "error in answer", "no HTTP")


def digest(*values: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big")


def text_of(model: str, prompt: str) -> str:
    """What a model answers to a prompt that is no script."""
    return f"{model} says {digest(model, prompt):x}, Grüße 😀\n\ndata: [DONE]"


class Models:
    """All models of one server."""

    def __init__(self, latency_s: float = 0.0, fail: float = 0.0, truths: dict[str, Any] | None = None) -> None:
        self.latency_s = latency_s
        self.fail = fail
        self.truths = truths or {}
        self.reset()

    def reset(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.tries: Counter[tuple[str, str]] = Counter()
        self.answered: Counter[tuple[str, str]] = Counter()
        self.n_now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.post("/v1/chat/completions", self.complete), web.get("/log", self.log)])
        app.add_routes([web.post("/reset", self.forget)])
        return app

    async def log(self, request: web.Request) -> web.Response:
        answered = [[model, prompt, n] for (model, prompt), n in self.answered.items()]
        return web.json_response({"calls": self.calls, "answered": answered, "most": self.most})

    async def forget(self, request: web.Request) -> web.Response:
        self.reset()
        return web.Response()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        model, prompt = body["model"], body["messages"][0]["content"]
        n = self.tries[model, prompt]
        self.tries[model, prompt] += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append({"model": model, "prompt": prompt, "headers": headers, "body": body, "path": request.path_qs})
        for name in (model, ""):
            self.n_now[name] += 1
            self.most[name] = max(self.most[name], self.n_now[name])
        try:
            await asyncio.sleep(self.latency_s)
            return await self.step(request, body, self.script(model, prompt, n))
        finally:
            for name in (model, ""):
                self.n_now[name] -= 1

    def script(self, model: str, prompt: str, n: int) -> dict[str, Any]:
        if prompt.startswith("[{"):
            steps = json.loads(prompt.partition("\n")[0])
            return steps[min(n, len(steps) - 1)]
        chance = digest(model, prompt, n)
        if chance % 1000 < self.fail * 1000:
            return {"fault": FAULTS[chance // 1000 % len(FAULTS)]}
        known = self.truths.get(prompt.partition("\n\n")[0])
        if known is None:
            return {"text": text_of(model, prompt)}
        is_right = chance % 100 < (95 if known["category"] in self.truths[""][model] else 10)
        return {"text": f"It is {known['ground_truth'] if is_right else 'hard to say'}."}

    async def step(self, request: web.Request, body: dict[str, Any], step: dict[str, Any]) -> web.StreamResponse:
        """One of

        - status, and perhaps headers and body: a text, in which KEY stands for the key that came
        - fault: one of FAULTS
        - raw: a text, and perhaps type, its content type
        - events: texts, each sent as an event, and perhaps cut: true
        - wait: seconds, then the rest of the step
        - refuse: the name of an option, so that a request that has it is refused, and perhaps say: with which text
        - text, and perhaps finish, reasoning, usage: the answer
        """
        if "wait" in step:
            await asyncio.sleep(step["wait"])
        if "fault" in step:
            return await self.fault(request, body, step["fault"])
        if "status" in step:
            text = step.get("body", "").replace("KEY", request.headers.get("authorization", ""))
            return web.Response(status=step["status"], text=text, headers=step.get("headers", {}))
        if "raw" in step:
            return web.Response(body=step["raw"].encode(), content_type=step.get("type", "application/json"))
        if "events" in step:
            return await self.events(request, step["events"], cut=step.get("cut", False))
        if step.get("refuse") in body:
            say = step.get("say", f"Unsupported parameter: '{step['refuse']}'.")
            return web.json_response({"error": {"message": say, "param": step["refuse"]}}, status=400)
        return await self.answer(request, body, step)

    async def fault(self, request: web.Request, body: dict[str, Any], fault: str) -> web.StreamResponse:
        assert request.transport is not None
        if fault in ("429", "500", "503"):
            headers = {} if fault == "500" else {"Retry-After": "0"}
            return web.json_response({"error": {"message": "try later"}}, status=int(fault), headers=headers)
        if fault == "broken json":
            return web.Response(text='{"choices": [{"message": {"content": "ha', content_type="application/json")
        if fault == "error in answer":
            return web.json_response({"error": {"message": "overloaded", "code": 503}})
        if fault == "no HTTP":
            request.transport.write(b"SSH-2.0-nonsense\r\n\r\n")
        elif fault == "cut whole":
            response = web.StreamResponse(headers={"content-type": "application/json"})
            response.content_length = 1000
            await response.prepare(request)
            await response.write(b'{"choices": [')
        elif fault == "cut stream":
            await self.events(request, [self.chunk({"content": "half of an ans"})], cut=True)
        request.transport.close()
        return web.Response()

    async def events(self, request: web.Request, events: list[str], *, cut: bool = False) -> web.StreamResponse:
        """Server-sent events; a cut ends the stream as if it were whole, which only its contents can tell."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(b": a comment\n\n")
        for event in events:
            data = f"data: {event}\n\n".encode()
            middle = len(data) // 2
            await response.write(data[:middle])
            await asyncio.sleep(0)
            await response.write(data[middle:])
        await response.write_eof()
        return response

    def chunk(self, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> str:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        return json.dumps({"object": "chat.completion.chunk", "choices": choices, **more}, ensure_ascii=False)

    async def answer(self, request: web.Request, body: dict[str, Any], step: dict[str, Any]) -> web.StreamResponse:
        text, finish = step["text"], step.get("finish", "stop")
        self.answered[body["model"], body["messages"][0]["content"]] += 1
        usage = step.get("usage", {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18})
        thought = {"reasoning_content": step["reasoning"]} if "reasoning" in step else {}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text, **thought}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})
        events = [self.chunk({"role": "assistant", "content": ""})]
        events += [self.chunk(thought)] if thought else []
        events += [self.chunk({"content": text[i : i + 9]}) for i in range(0, len(text), 9)]
        events.append(self.chunk({}, finish))
        if body.get("stream_options", {}).get("include_usage"):
            events.append(self.chunk(None, usage=usage))
        return await self.events(request, [*events, "[DONE]"])


async def run(models: Models) -> None:
    runner = web.AppRunner(models.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--fail", type=float, default=0)
    parser.add_argument("--truths", type=Path, help="prompt -> category and ground_truth; '' -> model -> categories")
    options = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # connections that break are part of it
    truths = json.loads(options.truths.read_text(encoding="utf-8")) if options.truths else None
    asyncio.run(run(Models(options.latency_ms / 1000, options.fail, truths)))
