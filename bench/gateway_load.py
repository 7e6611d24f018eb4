"""The other side of bench/gateway.py, in processes of its own: clients that ask as fast as they are answered, and an
endpoint that answers at once.

    python bench/gateway_load.py endpoint
    python bench/gateway_load.py clients --port 8080 --path /v1/route --clients 64 --seconds 5 --queries QUERIES.jsonl

The endpoint prints its port, and runs until standard input ends. The clients print what they saw as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
    }
).encode()


class Endpoint(asyncio.Protocol):
    """Answers every request that has a content length with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
            self.data = rest[length:]
            self.transport.write(  # type: ignore[attr-defined]
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(ANSWER), ANSWER)
            )


async def endpoint() -> None:
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def clients(port: int, path: str, n_clients: int, seconds: float, queries: list[str]) -> dict[str, object]:
    texts = itertools.cycle(queries)
    latencies: list[float] = []
    statuses: dict[str, int] = {}
    start = time.perf_counter()
    await asyncio.gather(*(client(port, path, texts, start + seconds, latencies, statuses) for _ in range(n_clients)))
    took = time.perf_counter() - start
    ordered = statistics.quantiles(latencies, n=100)
    return {
        "requests": len(latencies),
        "requests_per_s": len(latencies) / took,
        "statuses": statuses,
        "ms": {f"p{p}": ordered[p - 1] * 1e3 for p in (50, 90, 99)},
    }


async def client(
    port: int, path: str, texts: Iterator[str], end: float, latencies: list[float], statuses: dict[str, int]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        message = {"role": "user", "content": next(texts)}
        body = json.dumps({"model": "auto", "messages": [message]} if "chat" in path else {"messages": [message]})
        start = time.perf_counter()
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        latencies.append(time.perf_counter() - start)
        status = head.split(b" ")[1].decode()
        statuses[status] = statuses.get(status, 0) + 1
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["endpoint", "clients"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--path", default="/v1/route")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--queries", type=Path, help="a JSON text a line")
    options = parser.parse_args()
    if options.role == "endpoint":
        asyncio.run(endpoint())
        return
    queries = [json.loads(line) for line in options.queries.read_text(encoding="utf-8").splitlines()]
    print(json.dumps(asyncio.run(clients(options.port, options.path, options.clients, options.seconds, queries))))


if __name__ == "__main__":
    main()
