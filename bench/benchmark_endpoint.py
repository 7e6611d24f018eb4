"""The other side of bench/benchmark.py, in a process of its own: a model that answers every request after a while.

    python bench/benchmark_endpoint.py --latency-ms 200

It streams where that is asked for, prints its port, and runs until standard input ends. GET /held tells for how long
it has held answers back on average since it was asked last, which is longer where others use the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import sys
import time

TEXT = "The answer is 42, as far as anybody knows."
USAGE = {"prompt_tokens": 9, "completion_tokens": 11, "total_tokens": 20}


def whole() -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
    body = json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def streamed() -> bytes:
    common = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = [{"content": f"{word} "} for word in TEXT.split()]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
    events = [f"data: {json.dumps(common | chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%s0\r\n\r\n" % pieces
    )


ANSWERS = {False: whole(), True: streamed()}


class Endpoint(asyncio.Protocol):
    def __init__(self, latency_s: float, held_s: list[float]) -> None:
        self.latency_s = latency_s
        self.held_s = held_s
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            if head.startswith(b"GET /held"):
                self.tell()
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
            self.data = rest[length:]
            is_streamed = json.loads(rest[:length]).get("stream", False)
            asyncio.get_running_loop().call_later(self.latency_s, self.answer, is_streamed, time.perf_counter())

    def answer(self, is_streamed: bool, since: float) -> None:
        self.held_s.append(time.perf_counter() - since)
        self.transport.write(ANSWERS[is_streamed])  # type: ignore[attr-defined]

    def tell(self) -> None:
        body = json.dumps(sum(self.held_s) / len(self.held_s)).encode()
        self.held_s.clear()
        self.transport.write(  # type: ignore[attr-defined]
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()


async def main(latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(functools.partial(Endpoint, latency_s, []), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=200)
    asyncio.run(main(parser.parse_args().latency_ms / 1000))
