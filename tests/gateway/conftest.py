"""A gateway with a router of a few lines, and endpoints that are real HTTP servers, in an event loop of a thread."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from aiohttp import web

from gpu_select.config import ModelConfig
from gpu_select.config.gateway import GatewayConfig
from gpu_select.decisions import Decided, Query
from gpu_select.errors import DecisionError, GpuSelectError
from gpu_select.gateway.app import build_app
from gpu_select.gateway.embedder import Embedding
from gpu_select.gateway.gateway import Gateway
from gpu_select.gateway.service import Service
from gpu_select.yamlio import dump_yaml


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def upstream_server() -> ModuleType:
    """The module upstream_server.py."""
    return _load("upstream_server")


def decide(queries: Sequence[Query]) -> list[Decided | GpuSelectError]:
    """The models in the order in which the text names them (all: small, large); "nothing" matches no decision."""
    return [_decide(query) for query in queries]


def _decide(query: Query) -> Decided | GpuSelectError:
    if "nothing" in query.text:
        return DecisionError("no decision matches, and there is no default")
    named = [word for word in query.text.split() if word in ("small", "large")]
    ranking = tuple(dict.fromkeys([*named, "small", "large"]))
    domain = query.domain or "math"
    return Decided(ranking[0], ranking, "fast", domain, query.domain is not None, 0.5, 0.25, len(query.text.split()))


class StubEmbedder:
    """Vectors that tell a text's length."""

    name = "stub-embedder"
    dim = 3

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        rows = [np.array([len(text), 0.5, -0.1], np.float32) for text in texts]
        return [Embedding(row, len(text.split()), "long" in text) for row, text in zip(rows, texts, strict=True)]


@dataclass
class HttpAnswer:
    """What came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RunningGateway:
    """A gateway that listens."""

    gateway: Gateway
    port: int
    loads: list[Callable[[], Service]]
    """The next reloads."""
    gateway_app: web.Application
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> HttpAnswer:
        """One request on a connection of its own; a body that is not bytes goes as JSON."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            names.setdefault("content-type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            got = HttpAnswer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        # counted and logged is an answer once it has gone out: in the same step of the loop
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(30)
        return got

    def chat(self, text: Any, *, model: str = "auto", **more: Any) -> HttpAnswer:
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.send("POST", "/v1/chat/completions", body, **headers)

    def metric(self, name: str, **labels: str) -> float:
        value = self.gateway.metrics._registry.get_sample_value(name, labels)
        return 0.0 if value is None else value


@dataclass
class World:
    """An event loop in a thread, and what runs in it."""

    loop: asyncio.AbstractEventLoop
    server: ModuleType
    _ends: list[Callable[[], Coroutine[Any, Any, object]]] = field(default_factory=list)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def upstream(self, name: str) -> tuple[Any, ModelConfig]:
        """An endpoint that listens, and its configuration."""
        upstream = self.server.Upstream(name)
        port = self.run(self._listen(upstream.app()))
        model = ModelConfig(
            name, f"http://127.0.0.1:{port}/v1", api_key=f"key-of-{name}", headers={"X-Extra": f"for {name}"}
        )
        return upstream, model

    def dead(self, name: str) -> ModelConfig:
        """An endpoint that refuses connections."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            return ModelConfig(name, f"http://127.0.0.1:{unused.getsockname()[1]}/v1")

    def gateway(self, endpoints: Sequence[ModelConfig], settings: GatewayConfig | None = None, **service: Any) -> Any:
        """A gateway that listens."""
        service = {"decide": decide, "embedder": StubEmbedder(), **service}
        first = Service(settings or GatewayConfig(), tuple(endpoints), **service)
        loads: list[Callable[[], Service]] = []

        async def start() -> RunningGateway:
            gateway = Gateway(first, lambda: loads.pop(0)())
            self._ends.append(gateway.close)
            app = build_app(gateway)
            return RunningGateway(gateway, await self._listen(app), loads, app, self.loop)

        return self.run(start())

    async def _listen(self, app: web.Application) -> int:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        self._ends.append(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    def close(self) -> None:
        for end in reversed(self._ends):
            self.run(end())


@pytest.fixture(scope="session")
def event_loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def world(event_loop_thread: asyncio.AbstractEventLoop, upstream_server: ModuleType) -> Iterator[World]:
    """Starts gateways and endpoints; they end with the test."""
    world = World(event_loop_thread, upstream_server)
    yield world
    world.close()


@pytest.fixture
def two(world: World) -> Any:
    """A gateway in front of the endpoints small and large, and the two."""
    small, small_model = world.upstream("small")
    large, large_model = world.upstream("large")
    return world.gateway([small_model, large_model]), small, large


# ---------------------------------------------------------------- processes


@dataclass
class GatewayProcess:
    """A gateway in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    events: list[dict[str, Any]]
    """What it has logged."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The event's `count`th entry in the log, once it is there."""
        for _ in range(1500):
            found = [entry for entry in self.events if entry["event"] == event]
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None or event == "stopped", self.events[-5:]
            time.sleep(0.02)
        raise AssertionError(f"no {event}: {self.events[-5:]}")


class Processes:
    """Starts endpoints and gateways as programs; all of them end with the test."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def upstream(self, name: str, *arguments: object) -> int:
        """The port of upstream_server.py."""
        program = Path(__file__).with_name("upstream_server.py")
        command = [sys.executable, str(program), "--name", name, *map(str, arguments)]
        process = self._start(command, stdin=subprocess.PIPE)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def gateway(self, *command: object) -> GatewayProcess:
        """A command that logs where it listens."""
        process = self._start([sys.executable, *map(str, command)], stderr=subprocess.PIPE)
        events: list[dict[str, Any]] = []
        gateway = GatewayProcess(process, 0, events)

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    events.append({"event": "no JSON", "line": line.decode()})

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(process.kill)
        gateway.port = gateway.wait_for("listening")["port"]
        return gateway

    def serve(self, config: Path) -> GatewayProcess:
        """`gpu-select serve`."""
        return self.gateway("-m", "gpu_select", "serve", "--config", config, "--port", 0, "--device", "cpu")

    def _start(self, command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels"), *sys.path])}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **streams)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts endpoints and gateways as programs; they end with the test."""
    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Call with ports by model (and gateway=): writes tmp_path/config.yaml, returns its path."""

    def write(ports: dict[str, int], gateway: dict[str, Any] | None = None, **more: Any) -> Path:
        document = {
            "decisions": [
                {
                    "name": "any",
                    "rules": {"operator": "AND", "conditions": []},
                    "modelRefs": [{"model": name} for name in ports],
                }
            ],
            "endpoints": [{"name": name, "endpoint": f"http://127.0.0.1:{port}/v1"} for name, port in ports.items()],
            "gateway": gateway or {},
            **more,
        }
        path = tmp_path / "config.yaml"
        path.write_text(dump_yaml(document))
        return path

    return write


# ---------------------------------------------------------------- with a router

MODELS = "abc"


@pytest.fixture(scope="session")
def models_dir(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path, write_tiny_models: Callable[..., Path]
) -> Path:
    """Selector files and a domain head of the tiny encoder."""
    from gpu_select.encoder import load_encoder

    encoder = load_encoder(str(tiny_encoder_path))
    own = {"encoder": {"name": str(tiny_encoder_path), "fingerprint": encoder.fingerprint}}
    return write_tiny_models(tmp_path_factory.mktemp("models"), own, models=MODELS)


@pytest.fixture
def config(models_dir: Path, tiny_encoder_path: Path, write_config: Callable[..., Path], processes: Processes) -> Path:
    """Where a configuration lies: three decisions with selectors of their own, an endpoint for each model."""
    refs = [{"model": name} for name in MODELS]
    domains = [{"type": "domain", "name": name} for name in ("math", "physics", "law", "biology", "history")]
    decisions = [
        {
            "name": "exact",
            "priority": 5,
            "rules": {"operator": "OR", "conditions": domains},
            "algorithm": {"type": "knn", "knn": {"k": 3}},
            "modelRefs": refs,
        },
        {"name": "now", "priority": 9, "rules": {"type": "keyword", "name": "urgent"}, "modelRefs": refs[1:]},
        {
            "name": "rest",
            "rules": {"operator": "AND", "conditions": []},
            "algorithm": {"type": "svm"},
            "modelRefs": refs[:2],
        },
    ]
    return write_config(
        {name: processes.upstream(name) for name in MODELS},
        decisions=decisions,
        keyword_rules=[{"name": "urgent", "operator": "OR", "keywords": ["asap"]}],
        model_selection={"ml": {"models_path": str(models_dir)}},
        embedding_models={"qwen3_model_path": str(tiny_encoder_path)},
    )


@pytest.fixture
def served(processes: Processes, config: Path) -> GatewayProcess:
    """`gpu-select serve` with that configuration."""
    return processes.serve(config)
